"""``batch.json``: what an output folder holds and what it was made from."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfhvd_tta.batch.events import Outcome
from selfhvd_tta.config import INDIFFERENT, to_table
from selfhvd_tta.errors import UsageError
from selfhvd_tta.files import write_atomically
from selfhvd_tta.settings import Settings
from selfhvd_tta.video.target import disk_errors

LEDGER = "batch.json"
VERSION = 1


@dataclass(frozen=True)
class Stamp:
    """Size and time of modification of a file, which stay the same until it is written to."""

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> Stamp | None:
        """Stamp of a file; None if there is none."""
        try:
            stat = path.stat()
        except OSError:
            return None
        return cls(stat.st_size, stat.st_mtime_ns)


@dataclass(frozen=True)
class Entry:
    """What is recorded about one output.

    Attributes:
        source: stamp of the input when work on it began.
        settings: :func:`digest` of the settings.
        output: stamp of the finished output; None if it failed.
        outcome: as it was reported to the user.
    """

    source: Stamp
    settings: str
    output: Stamp | None
    outcome: Outcome


def digest(settings: Settings, action: str) -> str:
    """Equal for settings that give the same result.

    Args:
        settings: of the run.
        action: what the run did to the video, as in :class:`Outcome`. Settings that had no part in it do not count: a
            video that was passed through has seen no network, and transfer knows no training.
    """
    table = to_table(settings)
    for name in INDIFFERENT:
        *path, leaf = name.split(".")
        node = table
        for key in path:
            node = node[key]
        del node[leaf]
    if action == "passed through":
        table = {key: table[key] for key in ("clues", "output", "range", "force")}
        table["blur"] = settings.alignment.blur if settings.transfers else None
        table["restored anyway"] = settings.learns and settings.adaptation.iters == 0
    elif action == "transferred" and settings.method == "transfer":
        table["adaptation"] = settings.adaptation.working_set
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()[:16]


class Ledger:
    """The entries of one output folder, by the output's path in it.

    Args:
        folder: the output folder; it need not exist before :meth:`write`.

    Raises:
        UsageError: there is a ``batch.json`` that was not written by a batch.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LEDGER
        self.entries: dict[str, Entry] = {}
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{self.path}: cannot be read: {error}", "Move it away, or repair it.") from error
        try:
            body = json.loads(text)
            if body["version"] != VERSION:
                raise UsageError(f"{self.path}: was written by another version", "Choose another output folder.")
            self.entries = {key: _entry(value) for key, value in body["videos"].items()}
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(
                f"{self.path}: is not the record of a batch", "Move it away; finished videos then need --overwrite."
            ) from error

    def write(self) -> None:
        """Replace the file in one step.

        Raises:
            DiskError: it cannot be written.
        """
        body = {"version": VERSION, "videos": {k: dataclasses.asdict(e) for k, e in sorted(self.entries.items())}}
        with disk_errors(self.path), write_atomically(self.path) as part:
            part.write_text(json.dumps(body, indent=1), encoding="utf-8")


def _entry(value: dict[str, Any]) -> Entry:
    output = value["output"]
    return Entry(
        source=Stamp(**value["source"]),
        settings=value["settings"],
        output=None if output is None else Stamp(**output),
        outcome=Outcome(**value["outcome"]),
    )
