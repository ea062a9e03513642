"""The table as the user sees it: what is here, what can be downloaded, what has to be fetched by hand."""

from __future__ import annotations

from dataclasses import dataclass

from selfhvd_tta.weights.rows import Manual, Row, table
from selfhvd_tta.weights.store import Availability, find
from selfhvd_tta.wording import size


@dataclass(frozen=True)
class ModelRow:
    """One line of ``selfhvd-tta models``; all fields are ready to be shown.

    Attributes:
        name: of the weights.
        kind: what they are for.
        model: plug-in and variant, as ``--backbone`` or ``--flow`` takes them.
        state: whether they are here.
        size: to be downloaded, for example ``15.7 MB``; empty where nothing is, or where it is not known.
        licence: as the authors state it.
        note: training data, and what the user has to know or do.
    """

    name: str
    kind: str
    model: str
    state: str
    size: str
    licence: str
    note: str


def _note(row: Row, found: Availability) -> str:
    parts = [row.trained_on]
    if row.non_commercial:
        parts.append("not for commercial use")
    if found.state == "manual" and isinstance(row.source, Manual):
        parts.append(f"fetch {row.source.file} by hand: {row.source.page}")
    if row.note and found.state != "here":
        parts.append(row.note)
    if found.state == "missing":
        parts.append(found.reason)
    return "; ".join(parts)


def models_overview(offline: bool = False) -> list[ModelRow]:
    """All rows of the table, in its order; looks at names and sizes of files only (milliseconds).

    Args:
        offline: show what can be downloaded as missing.
    """
    rows = []
    for name, row in table().items():
        found = find(name, offline=offline)
        rows.append(
            ModelRow(
                name=name,
                kind=row.kind,
                model=f"{row.model}:{row.variant}" if row.variant else row.model,
                state=found.state,
                size="" if found.state == "here" or found.bytes is None else size(found.bytes),
                licence=row.licence,
                note=_note(row, found),
            )
        )
    return rows
