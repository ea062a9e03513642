"""The pages of docs/reference that follow from the code.

    python docs/generate.py

writes settings.md, models.md and exit-codes.md, and the tables between the ``generated`` marks of events.md. A test
compares all four with the code.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

import typer

from selfhvd_tta import backbones, errors, events, flows
from selfhvd_tta.batch.events import Outcome
from selfhvd_tta.cli import app
from selfhvd_tta.config import attribute_docs
from selfhvd_tta.settings import Settings
from selfhvd_tta.weights.rows import Manual, Row, table
from selfhvd_tta.wording import size

FOLDER = Path(__file__).parent / "reference"
BEGIN, END = "<!-- generated: begin -->", "<!-- generated: end -->"
NOTICE = "<!-- Made by docs/generate.py. Edit the code's docstrings instead. -->"
# Printed by the command line, but not events of a run.
ERROR_FIELDS = {
    "message": "one line: what happened.",
    "hint": "one line: what to do; may be empty.",
    "exit_code": "exit status of the process, see [exit codes](exit-codes.md).",
}
BATCH_FIELDS = {"video": "name of the video.", "number": "counts from 1.", "total": "videos to be done."}


def _cell(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    head = list(head)
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def _page(title: str, *parts: Iterable[str]) -> str:
    lines = [f"# {title}", "", NOTICE]
    for part in parts:
        lines += ["", *part]
    return "\n".join(lines) + "\n"


# -- settings


def _flags() -> dict[str, str]:
    """Flag of ``deblur`` by the name of the parameter that it fills."""
    program: Any = typer.main.get_command(app)
    options = (p for p in program.commands["deblur"].params if p.param_type_name == "option")
    return {option.opts[0].lstrip("-").replace("-", "_"): option.opts[0] for option in options}


def _value(value: object) -> str:
    if value is None:
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _sections(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    yield prefix, node
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        if dataclasses.is_dataclass(value):
            yield from _sections(value, f"{prefix}.{field.name}".lstrip("."))


def settings_page() -> str:
    """Every setting with its default, its flag and its meaning, one table per section of a job file."""
    flags, parts = _flags(), []
    for name, node in _sections(Settings()):
        docs, rows = attribute_docs(type(node)), []
        for field in dataclasses.fields(node):
            value = getattr(node, field.name)
            if not dataclasses.is_dataclass(value):
                flag = f"`{flags[field.name]}`" if field.name in flags else ""
                rows.append((f"`{field.name}`", _value(value), flag, _cell(docs[field.name])))
        title = f"## `[{name}]`" if name else "## At the top of the file"
        summary = inspect.cleandoc(type(node).__doc__ or "").splitlines()[0]
        parts.append([title, "", summary, "", *_table(("setting", "default", "flag", "meaning"), rows)])
    intro = [
        "The sections and names are those of a job file (`--config job.toml`) and of `Settings` in Python.",
        "`selfhvd-tta config show` prints them as a job file. *none* means not set: decided during the run.",
    ]
    return _page("Settings", intro, *parts)


# -- models


def _source(row: Row) -> str:
    source = row.source
    if isinstance(source, Manual):
        return f"fetched manually: `{source.file}` from [the authors' page]({source.page})"
    return "bundled" if str(source).startswith("bundled:") else "downloaded"


def models_page() -> str:
    """Backbones, flows and weights, from their descriptors and the table of models."""
    nets = [
        (f"`{b.id}`", ", ".join(f"`{v.name}`" for v in b.variants), _cell(b.summary), b.licence, _cell(b.paper))
        for b in sorted(backbones.discover().values(), key=lambda b: b.id)
    ]
    estimators = [
        (f"`{f.id}`", ", ".join(f"`{v.name}`" for v in f.variants), _cell(f.summary), f.licence)
        for f in sorted(flows.discover().values(), key=lambda f: f.id)
    ]
    weights = []
    for name, row in table().items():
        model = f"`{row.model}:{row.variant}`" if row.variant else row.model
        licence = row.licence + (", non-commercial" if row.non_commercial else "")
        count = row.size or row.about
        shown = size(count) if count else ""
        weights.append((f"`{name}`", model, _source(row), shown, licence, _cell(row.trained_on)))
    return _page(
        "Models",
        ["`selfhvd-tta models` prints the same, with what is present on your machine."],
        ["## Backbones", "", "For `--backbone id` or `id:variant`; the first variant is the default."],
        _table(("id", "variants", "summary", "licence of the code", "paper"), nets),
        ["## Flows", "", "For `--flow id` or `id:variant`; the first variant is the default."],
        _table(("id", "variants", "summary", "licence of the code"), estimators),
        ["## Weights"],
        _table(("name", "for", "source", "download", "licence", "trained on"), weights),
    )


# -- exit codes


def exit_codes_page() -> str:
    """Exit statuses and the exceptions that carry them."""
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, errors.SelfHVDError)]
    meanings = {kind.exit_code: kind for kind in kinds if kind.__base__ is errors.SelfHVDError}
    rows = [("0", "The command succeeded.", "")]
    for code in errors.ExitCode:
        if code in meanings:
            kind = meanings[code]
            rows.append(
                (str(int(code)), _cell(inspect.cleandoc(kind.__doc__ or "").splitlines()[0]), f"`{kind.__name__}`")
            )
    intro = [
        "Every command ends with one of these. From Python the same conditions are exceptions, all of them",
        "subclasses of `SelfHVDError` with `message`, `hint` and `exit_code`.",
        "What to do about each: [Troubleshooting](../guides/troubleshooting.md).",
    ]
    return _page("Exit codes", intro, _table(("code", "meaning", "exception in `selfhvd_tta.errors`"), rows))


# -- events


def _fields(docs: dict[str, str]) -> str:
    return "<br>".join(f"`{name}`: {_cell(text)}" for name, text in docs.items())


def events_tables() -> str:
    """Events of one run, then those that only a batch has."""
    kinds = events.Event.__args__
    docs = {kind.__name__.lower(): attribute_docs(kind) for kind in kinds}
    for kind in kinds:
        described = set(docs[kind.__name__.lower()])
        assert set(get_type_hints(kind)) == described, f"{kind.__name__}: fields and their descriptions differ"
    run = [(f"`{name}`", _fields(fields)) for name, fields in docs.items()]
    ended = {"video": BATCH_FIELDS["video"], **attribute_docs(Outcome)}
    del ended["name"]
    batch = [("`started`", _fields(BATCH_FIELDS)), ("`ended`", _fields(ended))]
    lines = _table(("`event`", "fields"), [*run, ("`error`", _fields(ERROR_FIELDS))])
    middle = "`batch --json` adds `video`, the name of the video, to each of them, and has two more:"
    return "\n".join([*lines, "", middle, "", *_table(("`event`", "fields"), batch)])


def events_page() -> str:
    """The page as it stands, with the tables of today."""
    text = (FOLDER / "events.md").read_text(encoding="utf-8")
    pattern = re.compile(f"{BEGIN}.*?{END}", re.S)
    assert len(pattern.findall(text)) == 1
    return pattern.sub(lambda _: f"{BEGIN}\n{events_tables()}\n{END}", text)


PAGES = {
    "settings.md": settings_page,
    "models.md": models_page,
    "exit-codes.md": exit_codes_page,
    "events.md": events_page,
}

if __name__ == "__main__":
    for name, make in PAGES.items():
        (FOLDER / name).write_text(make(), encoding="utf-8")
