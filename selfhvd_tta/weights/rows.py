"""The table of models: rows of ``weights/models.toml``, typed and checked."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

from selfhvd_tta.errors import WeightsError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Kind = Literal["backbone", "flow", "merge", "perceptual"]
ChannelOrder = Literal["rgb", "bgr"]


@dataclass(frozen=True)
class Bundled:
    """A file that comes with this package."""

    file: str

    def __str__(self) -> str:
        return f"bundled:{self.file}"


@dataclass(frozen=True)
class Hub:
    """A file in a model repository of the Hugging Face Hub."""

    repo: str
    file: str
    revision: str = "main"

    def __str__(self) -> str:
        return f"hf:{self.repo}/{self.file}" + (f"@{self.revision}" if self.revision != "main" else "")


@dataclass(frozen=True)
class Download:
    """A file at one or several addresses that serve the same bytes."""

    urls: tuple[str, ...]

    @property
    def file(self) -> str:
        return self.urls[0].rsplit("/", 1)[-1]

    def __str__(self) -> str:
        return self.urls[0]


@dataclass(frozen=True)
class Manual:
    """A file that only a person can fetch, from the authors' page."""

    page: str
    file: str

    def __str__(self) -> str:
        return self.page


Source = Bundled | Hub | Download | Manual


@dataclass(frozen=True)
class Row:
    """A row of the table of models.

    Attributes:
        name: what plug-ins and users call them.
        kind: what they are for.
        model: id of the plug-in that they fit.
        variant: its variant.
        source: where they come from.
        sha256: hex digest of the file as published; empty where it is not known.
        size: bytes of the file as published, where exactly known.
        about: roughly the bytes to be transferred, where not exactly known.
        licence: as the authors state it.
        channel_order: order in which these weights expect the colour channels.
        trained_on: training data.
        note: one line for the user.
        non_commercial: the licence forbids commercial use, so they have to be asked for explicitly.
    """

    name: str
    kind: Kind
    model: str
    variant: str
    source: Source
    sha256: str = ""
    size: int | None = None
    about: int | None = None
    licence: str = ""
    channel_order: ChannelOrder = "rgb"
    trained_on: str = ""
    note: str = ""
    non_commercial: bool = False


def bundled_folder() -> Path:
    """Folder of the table and the bundled files: inside the installed package, or at the top of a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "bundled_weights"
    return installed if installed.is_dir() else package.parent / "weights"


def parse_source(text: str, file: str = "", mirrors: tuple[str, ...] = ()) -> Source:
    """Read a ``source`` as written in the table.

    Raises:
        ValueError: it is of no known form.
    """
    scheme, _, rest = text.partition(":")
    if scheme == "bundled" and re.fullmatch(r"[\w.-]+", rest):
        return Bundled(rest)
    if scheme == "hf" and (match := re.fullmatch(r"([\w.-]+/[\w.-]+)/([\w./-]+?)(?:@([\w./-]+))?", rest)):
        return Hub(match[1], match[2], match[3] or "main")
    if scheme in ("https", "http"):
        return Download((text, *mirrors))
    if scheme == "manual" and rest and file:
        return Manual(rest, file)
    raise ValueError(f"source '{text}' is of no known form")


def _row(name: str, entry: Mapping[str, Any]) -> Row:
    values = dict(entry)
    source = parse_source(values.pop("source"), values.pop("file", ""), tuple(values.pop("mirrors", ())))
    row = Row(name=name, source=source, **values)
    if row.kind not in get_args(Kind) or row.channel_order not in get_args(ChannelOrder):
        raise ValueError(f"kind '{row.kind}' or channel order '{row.channel_order}' is unknown")
    if row.sha256 and not re.fullmatch(r"[0-9a-f]{64}", row.sha256):
        raise ValueError("sha256 is not 64 hex digits")
    return row


def read_table(path: Path) -> dict[str, Row]:
    """Rows of a table file by name.

    Raises:
        WeightsError: the file is missing or damaged; names the row.
    """
    name = ""
    try:
        rows = {}
        for name, entry in tomllib.loads(path.read_text(encoding="utf-8")).items():
            rows[name] = _row(name, entry)
        return rows
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        where = f"row '{name}' of {path}" if name else str(path)
        raise WeightsError(f"The table of models cannot be read: {where}: {error}", "Reinstall selfhvd-tta.") from error


@cache
def table() -> Mapping[str, Row]:
    """All rows of ``weights/models.toml`` by name.

    Raises:
        WeightsError: the file is missing or damaged.
    """
    return MappingProxyType(read_table(bundled_folder() / "models.toml"))


def find_row(name: str) -> Row:
    """The row of that name.

    Raises:
        WeightsError: there is none.
    """
    try:
        return table()[name]
    except KeyError:
        raise WeightsError(f"There are no weights called '{name}'", f"Known: {', '.join(table())}.") from None
