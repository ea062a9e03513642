"""The guides name commands and flags that exist, and link to pages that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from selfhvd_tta.cli import app

ROOT = Path(__file__).parent.parent
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"]
PROSE = sorted({*PAGES, *ROOT.glob("*.md"), *ROOT.glob("weights/*.md"), *ROOT.glob("examples/*.md")})
pages = pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)


def flags_of(command: Any) -> set[str]:
    return {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"--help", "-h"}


def commands_in(text: str) -> list[list[str]]:
    """Every ``selfhvd-tta ...`` in a block of shell commands or in backticks, as words."""
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.S)).splitlines()
    spans = re.findall(r"`(selfhvd-tta [^`]*)`", text)
    parts = [part for line in blocks for part in re.split(r"&&|>", line)] + spans
    found = [re.search(r"selfhvd-tta (?!\d)(.*)", part) for part in parts]
    return [shlex.split(f[1], comments=True) for f in found if f]


@pages
def test_commands_and_flags_exist(page: Path) -> None:
    program: Any = typer.main.get_command(app)
    everything: set[str] = set()
    for words in commands_in(page.read_text()):
        command = program
        if "." in words[0]:
            words.insert(0, "deblur")  # a file in the place of a command
        while hasattr(command, "commands") and words and not words[0].startswith("-"):
            assert words[0] in command.commands, f"selfhvd-tta {' '.join(words)}"
            command = command.commands[words.pop(0)]
        unknown = {w for w in words if w.startswith("-")} - flags_of(command)
        assert not unknown, f"{unknown} in: {' '.join(words)}"
    for command in program.commands.values():
        everything |= flags_of(command)
    everything |= flags_of(program)
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    named = {flag for span in re.findall(r"`([^`]+)`", prose) for flag in re.findall(r"(?<!\S)--[a-z][a-z0-9-]+", span)}
    assert named <= everything | {"--gpus"}, named - everything


@pages
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PROSE, ids=lambda p: p.name)
def test_prose_is_wrapped(page: Path) -> None:
    prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S).splitlines()
    long = [line for line in prose if len(line) > 100 and not line.startswith(("|", "![", "<!--", "#"))]
    assert not long, long[0]


def test_the_index_leads_to_every_page() -> None:
    index = ROOT / "docs/index.md"
    linked = {(index.parent / target).resolve() for target in re.findall(r"\]\(([^)#\s]+)", index.read_text())}
    assert {p for p in PAGES if p.parent != ROOT} - {index} <= linked
