"""The command ``models``."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Sequence

from selfhvd_tta.cli.options import Debug, JsonLines
from selfhvd_tta.console import show_lines, terminal_width


def models(json_lines: JsonLines = False, debug: Debug = False) -> None:
    """List networks and flows, and the weights that are on this machine or can be downloaded."""
    from selfhvd_tta import backbones, flows
    from selfhvd_tta.weights import models_overview

    plugins = {
        "backbones": [
            {"id": b.id, "variants": [v.name for v in b.variants], "licence": b.licence, "summary": b.summary}
            for b in backbones.discover().values()
        ],
        "flows": [
            {"id": f.id, "variants": [v.name for v in f.variants], "licence": f.licence, "summary": f.summary}
            for f in flows.discover().values()
        ],
    }
    rows = models_overview()
    if json_lines:
        show_lines([json.dumps({**plugins, "weights": [dataclasses.asdict(row) for row in rows]})])
        return
    for title, key in (("Backbones (--backbone)", "backbones"), ("Flows (--flow)", "flows")):
        show_lines([title, ""])
        for plugin in plugins[key]:
            facts = [", ".join(plugin["variants"]), f"code {plugin['licence']}"]
            show_lines(_entry(str(plugin["id"]), facts, str(plugin["summary"])))
    show_lines(["Weights", ""])
    for row in rows:
        show_lines(_entry(row.name, [row.kind, row.state, row.size, row.licence], row.note))


def _entry(name: str, facts: Sequence[str], text: str) -> list[str]:
    """A name with its facts, and a text below it; fits the terminal."""
    columns = min(terminal_width(), 100)
    head = f"  {name}: {'; '.join(fact for fact in facts if fact)}"
    lines = textwrap.wrap(head, columns, subsequent_indent="      ", break_long_words=False, break_on_hyphens=False)
    body = textwrap.wrap(
        text,
        columns,
        initial_indent="      ",
        subsequent_indent="      ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [*lines, *body, ""]
