"""Settings as TOML: a job file sets what it names, everything else keeps its default."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
import math
import re
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from selfhvd_tta.errors import UsageError
from selfhvd_tta.settings import QUALITIES, Settings

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

WIDTH = 110
QUALITY = "quality"  # a key of job files that stands for several settings
# Settings that do not change what comes out. Of weights the content counts, not where they lie.
INDIFFERENT = (
    "output.overwrite", "runtime.offline", "runtime.restart", "runtime.checkpoint_minutes", "strict", "save_adapted",
    "accept_non_commercial", "progressive",
)  # fmt: skip


def load(path: str | Path, base: Settings | None = None) -> Settings:
    """Settings of a job file.

    Args:
        path: TOML file whose tables are named like the attributes of :class:`~selfhvd_tta.settings.Settings`.
        base: settings of what the file does not name; None for the defaults.

    Raises:
        UsageError: no such file, no TOML, an unknown key, a value of the wrong type or out of range; names the key.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UsageError(f"{path}: there is no such file", "Write one with: selfhvd-tta config show") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: is not UTF-8 text", "A job file is TOML text.") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    return parse(text, str(path), base)


def parse(text: str, where: str = "config", base: Settings | None = None) -> Settings:
    """Settings of TOML text; see :func:`load`.

    Args:
        text: TOML.
        where: what to call it in errors.
        base: settings of what the text does not name.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(
            f"{where}: is not TOML: {error}", "Text needs quotes; true and false are lower case."
        ) from error
    except (ValueError, RecursionError) as error:  # thousands of digits or of brackets
        raise UsageError(f"{where}: holds a number or a nesting that is far too long", "Settings are short.") from error
    return from_table(table, where, base)


def from_table(table: Mapping[str, object], where: str = "config", base: Settings | None = None) -> Settings:
    """Settings of nested mappings, as TOML and JSON give them; null stands for None. Errors as :func:`load`.

    ``quality`` is a key of its own: it sets what its name stands for, wherever the table does not.
    """
    base = base or Settings()
    try:
        return _merge(base, _expanded(table, base), "")
    except UsageError as error:
        raise UsageError(f"{where}: {error.message}", error.hint) from error


def to_table(settings: Settings) -> dict[str, Any]:
    """All settings as nested dictionaries; ``from_table`` gives the same settings back."""
    return dataclasses.asdict(settings)


def override(settings: Settings, values: Mapping[str, object]) -> Settings:
    """Settings with some replaced: what flags of the command line do to a job file.

    Args:
        settings: where the others come from.
        values: by the attribute's name, which is unique in the tree (``iters``), or by the full one
            (``adaptation.iters``). None is a value as any other. ``quality`` sets what its name stands for, wherever
            the others do not.

    Raises:
        UsageError: no such setting, a value of the wrong type or out of range.
    """
    paths = {path.rpartition(".")[2]: path for path in setting_names()} | {path: path for path in setting_names()}
    table: dict[str, Any] = {}
    for name, value in values.items():
        if name == QUALITY:
            table[name] = value
        elif name in paths:
            _put(table, paths[name], value)
        else:
            raise UsageError(f"{name} is not a setting", _suggestion(name, list(paths)))
    adaptation = table.get("adaptation", {})
    if "learning_rate" in adaptation and "final_learning_rate" not in adaptation:
        # A rate that is set very low is meant as such, not as a contradiction to the rate at the end.
        rate, final = adaptation["learning_rate"], settings.adaptation.final_learning_rate
        adaptation["final_learning_rate"] = min(final, rate) if _is_number(rate) else final
    return _merge(settings, _expanded(table, settings), "")


def _expanded(table: Mapping[str, object], base: Settings) -> dict[str, Any]:
    """The table with what it implies: the settings of its ``quality``, and a method where it names steps."""
    full: dict[str, Any] = {key: dict(part) if isinstance(part, Mapping) else part for key, part in table.items()}
    quality = full.pop(QUALITY, None)
    adaptation = full.get("adaptation", {})
    if "method" not in full and base.method == "auto" and isinstance(adaptation, dict) and "iters" in adaptation:
        full["method"] = "adapt"  # who names steps wants them done, on a CPU too
    if quality is None:
        return full
    if quality not in QUALITIES:
        raise UsageError(f"quality is {quality!r}, but it must be one of {', '.join(QUALITIES)}")
    for name, value in QUALITIES[quality].items():
        _put(full, name, value, over=False)
    return full


def _put(table: dict[str, Any], name: str, value: object, over: bool = True) -> None:
    """Set a setting by its full name in nested tables; ``over`` replaces one that is there."""
    *parents, leaf = name.split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
    if isinstance(table, dict) and (over or leaf not in table):  # what is not a table is refused later, by name
        table[leaf] = value


def setting_names() -> list[str]:
    """Full names of all settings, for example ``adaptation.iters``."""
    return [path for path, _ in _walk(Settings(), "") if path]


def dumps(settings: Settings, comments: bool = True) -> str:
    """The settings as TOML; ``parse`` gives the same settings back.

    Args:
        settings: to write.
        comments: what each one means, from the attribute docs, above it.

    A setting that is None is written commented out, because TOML has no null.
    """
    lines: list[str] = []
    if comments:
        lines += ["# Settings of selfhvd-tta. Give this file to --config; delete what you do not want to set.", ""]
    _write(settings, "", comments, lines)
    return "\n".join(lines).rstrip() + "\n"


def attribute_docs(kind: type) -> dict[str, str]:
    """Meaning of each attribute of a dataclass, from the ``Attributes:`` part of its docstring."""
    _, _, part = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")
    docs: dict[str, str] = {}
    name = ""
    for line in part.splitlines():
        start = re.match(r"    (\w+): (.*)", line)
        if start:
            name = start[1]
            docs[name] = start[2].strip()
        elif name and line.strip():
            docs[name] += " " + line.strip()
    return docs


def _walk(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Full name and value of every setting below a node of the tree."""
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        if dataclasses.is_dataclass(value):
            yield from _walk(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, value


def _merge(node: Any, table: Mapping[str, object], prefix: str) -> Any:
    hints = get_type_hints(type(node))
    changes: dict[str, object] = {}
    for key, value in table.items():
        name = prefix + key
        if key not in hints:
            raise UsageError(f"{name} is not a setting", _suggestion(name, setting_names()))
        current = getattr(node, key)
        if dataclasses.is_dataclass(current):
            if not isinstance(value, Mapping):
                raise UsageError(f"{name} is {value!r}, but it must be a table", f"Write [{name}] above its keys.")
            changes[key] = _merge(current, value, f"{name}.")
        else:
            changes[key] = _convert(value, hints[key], f"{name}")
    return dataclasses.replace(node, **changes)


def _convert(value: object, hint: Any, name: str) -> object:
    """The value as the setting's type, exactly: no text for numbers, no numbers for booleans."""
    optional = get_origin(hint) in (Union, types.UnionType)
    kinds = [k for k in get_args(hint) if k is not type(None)] if optional else [hint]
    if value is None and optional:
        return None
    kind = kinds[0]
    rule = {bool: "true or false", int: "a whole number", float: "a number", str: "text in quotes"}.get(kind)
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        if value in choices and isinstance(value, str):
            return value
        rule = "one of " + ", ".join(choices)
    elif kind is float and _is_number(value):
        try:
            number = float(value)  # type: ignore[arg-type]
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
        rule = "a finite number"
    elif kind in (bool, int, str) and type(value) is kind:
        return value
    raise UsageError(f"{name} is {value!r}, but it must be {rule}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _suggestion(name: str, known: list[str]) -> str:
    paths = {path.rpartition(".")[2]: path for path in known} | {path: path for path in known}
    close = difflib.get_close_matches(name, list(paths), 1) or difflib.get_close_matches(
        name.rpartition(".")[2], list(paths), 1
    )
    return f"Did you mean {paths[close[0]]}?" if close else "See all of them with: selfhvd-tta config show"


def _write(node: Any, prefix: str, comments: bool, lines: list[str]) -> None:
    docs = attribute_docs(type(node))
    inner = []
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        if dataclasses.is_dataclass(value):
            inner.append(field.name)
            continue
        if comments:
            lines.extend(_comment(docs[field.name]))
        lines.append(f"# {field.name} =" if value is None else f"{field.name} = {_literal(value)}")
        if comments:
            lines.append("")
    for name in inner:
        value = getattr(node, name)
        if comments:
            summary = inspect.cleandoc(type(value).__doc__ or "").splitlines()[0]
            lines.extend(_comment(summary))
        elif lines:
            lines.append("")
        lines.append(f"[{prefix}{name}]")
        _write(value, f"{prefix}{name}.", comments, lines)


def _comment(text: str) -> list[str]:
    lines, line = [], "#"
    for word in text.replace("``", "").split():
        if len(line) + len(word) >= WIDTH:
            lines.append(line)
            line = "#"
        line += " " + word
    return [*lines, line]


def _literal(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's text is TOML's, except that TOML wants this control character escaped too.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
