"""Words that STYLE.md asks to avoid: in help texts, messages, docstrings, comments and pages."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from selfhvd_tta import config
from selfhvd_tta.cli import app

ROOT = Path(__file__).parent.parent
SPEAKERS = {"Note", "Option", "Argument", "Check", "Typer"}


def avoided() -> list[str]:
    """First column of the table of words in STYLE.md."""
    _, _, table = (ROOT / "STYLE.md").read_text().partition("| avoid | write |\n")
    rows = table.split("\n\n")[0].splitlines()[1:]
    return [word.strip() for row in rows for word in row.split("|")[1].split(",")]


WORDS = avoided()
# "There is no such file" and "no longer" are plain English, "text is no number" is not; ``haste:`` is a parameter.
PATTERN = re.compile(
    r"(?<!there )(?<!`)\b(" + "|".join(map(re.escape, WORDS)) + r")\b(?! longer| stronger|:|`)", re.IGNORECASE
)
PAGES = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "weights").glob("*.md")]


def helps(command: Any, name: str = "selfhvd-tta") -> Iterator[tuple[str, str]]:
    yield name, command.help or ""
    for parameter in command.params:
        yield f"{name} {parameter.name}", getattr(parameter, "help", None) or ""
    for inner in getattr(command, "commands", {}).values():
        yield from helps(inner, f"{name} {inner.name}")


def messages(path: Path) -> Iterator[tuple[str, str]]:
    """Texts handed to exceptions of ours, notes and checks."""
    for node in ast.walk(ast.parse(path.read_text())):
        name = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
        if name in SPEAKERS or name.endswith("Error"):
            for text in ast.walk(node):
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    yield f"{path.relative_to(ROOT)}:{text.lineno}", text.value


def explanations(path: Path) -> Iterator[tuple[str, str]]:
    """Docstrings and comments."""
    source = path.read_text()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}", ast.get_docstring(node) or ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield f"{path.relative_to(ROOT)}:{token.start[0]}", token.string


def faults(texts: Iterator[tuple[str, str]]) -> list[str]:
    return [f"{where}: {found[0]!r} in {text!r}" for where, text in texts if (found := PATTERN.search(text))]


def test_the_list_is_read() -> None:
    assert {"anew", "beside", "likewise"} <= set(WORDS)
    assert faults(iter([("here", "Begin Anew.")])) == ["here: 'Anew' in 'Begin Anew.'"]


def test_help_texts() -> None:
    program: Any = typer.main.get_command(app)
    assert faults(helps(program)) == []


def test_settings() -> None:
    assert faults(iter([("config show", config.dumps(config.Settings()))])) == []


def test_messages() -> None:
    found = [fault for path in sorted((ROOT / "selfhvd_tta").rglob("*.py")) for fault in faults(messages(path))]
    assert found == []


def test_docstrings_and_comments() -> None:
    found = [fault for path in sorted((ROOT / "selfhvd_tta").rglob("*.py")) for fault in faults(explanations(path))]
    assert found == []


def test_pages() -> None:
    assert faults((str(path.relative_to(ROOT)), path.read_text()) for path in PAGES) == []
