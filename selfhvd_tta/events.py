"""What happens during a run, as typed values: the pipeline emits them, listeners render them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Action = Literal["adapted", "refitted", "restored", "transferred", "passed through"]
"""What a run did; ``restored``: by the backbone as it is."""
Level = Literal["info", "warning"]


@dataclass(frozen=True)
class Note:
    """One line that the user should read: a fallback, a conversion, a decision.

    Attributes:
        text: one line.
        level: ``info``, or ``warning`` where the result is affected.
    """

    text: str
    level: Level = "info"


@dataclass(frozen=True)
class Loaded:
    """Weights that take part in the run are in memory.

    Attributes:
        role: ``backbone``, ``flow``, ``merging network`` or ``perceptual loss``.
        name: row of the table of models, Hub repository, or path.
        file: path on this machine.
        sha256: digest of its content.
        licence: of the weights; empty if unknown.
    """

    role: str
    name: str
    file: str
    sha256: str
    licence: str = ""


@dataclass(frozen=True)
class MethodTime:
    """How long a method would take.

    Attributes:
        method: as ``--method`` takes it.
        seconds: estimated for this video on this machine.
    """

    method: str
    seconds: float


@dataclass(frozen=True)
class Plan:
    """What is about to be done, reported before the work.

    Attributes:
        rows: label and value, in the order to show them.
        minutes: estimated duration of what follows; None if it cannot be known.
        times: of the method that was chosen, then of others that could be.
    """

    rows: tuple[tuple[str, str], ...]
    minutes: float | None = None
    times: tuple[MethodTime, ...] = ()


@dataclass(frozen=True)
class Progress:
    """How far one phase has come.

    Attributes:
        phase: ``scan``, ``download``, ``labels``, ``stage 1``, ``stage 2``, ``blur paths``, ``refit``, ``transfer``,
            ``restore`` or ``compare``.
        done: units finished.
        total: units altogether; None if unknown.
        unit: what is counted, for example ``frames`` or ``steps``.
        values: current figures, for example the loss terms.
    """

    phase: str
    done: int
    total: int | None
    unit: str = "frames"
    values: tuple[tuple[str, float], ...] = field(default=())


@dataclass(frozen=True)
class Finished:
    """The output is in place.

    Attributes:
        output: its path.
        seconds: duration of the whole run.
        rows: label and value, in the order to show them.
        action: what was done.
        late: seconds that it took longer than the budget; 0: in time, or without one.
    """

    output: str
    seconds: float
    rows: tuple[tuple[str, str], ...] = ()
    action: Action = field(kw_only=True)
    late: float = 0.0


@dataclass(frozen=True)
class Written:
    """A file other than the output, or a folder of pictures, is in place.

    Attributes:
        what: ``report``, ``comparison``, ``preview`` or ``stills``.
        path: of the file or folder.
    """

    what: str
    path: str


Event = Note | Loaded | Plan | Progress | Finished | Written
Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Discards every event; the default listener."""
