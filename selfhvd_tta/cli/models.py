"""The command ``models``."""

from __future__ import annotations

from selfhvd_tta.cli.options import Debug
from selfhvd_tta.console import show_table


def models(debug: Debug = False) -> None:
    """List networks and flows, and the weights that are on this machine or can be downloaded."""
    from selfhvd_tta import backbones, flows
    from selfhvd_tta.weights import models_overview

    rows = [(b.id, ", ".join(v.name for v in b.variants), b.licence, b.summary) for b in backbones.discover().values()]
    show_table("Backbones (--backbone)", ("id", "variants", "code licence", "what"), rows)
    rows = [(f.id, ", ".join(v.name for v in f.variants), f.licence, f.summary) for f in flows.discover().values()]
    show_table("\nFlows (--flow)", ("id", "variants", "code licence", "what"), rows)
    table = [(r.name, r.kind, r.state, r.size, r.licence, r.note) for r in models_overview()]
    show_table("\nWeights", ("name", "kind", "state", "size", "licence", "note"), table)
