"""What ``bench --speed`` is asked, and what it finds."""

from __future__ import annotations

from dataclasses import dataclass, field

from selfhvd_tta.errors import UsageError
from selfhvd_tta.lab.speed.end_to_end import Breakdown
from selfhvd_tta.lab.speed.floors import Rates
from selfhvd_tta.lab.speed.timing import Timing
from selfhvd_tta.settings import Settings


@dataclass(frozen=True)
class SpeedSettings:
    """What is measured.

    Attributes:
        backbones: ``id`` or ``id:variant``; speed hardly depends on the weights, so random ones do where none are here.
        width, height, frames: of the clip.
        repeats: timed rounds.
        large: width and height of a second, short clip, on which restoration, a label and steps with the bank are
            measured as well, above all for their memory; None: no such clip.
        end_to_end: also time a whole job, with as many steps as ``run.adaptation.iters``.
        minutes: after which nothing new is begun; None: no limit.
        run: everything else: device, precision, flow, crop, clip length, teachers.
    """

    backbones: tuple[str, ...] = ("estrnn:lite",)
    width: int = 384
    height: int = 256
    frames: int = 24
    repeats: int = 5
    large: tuple[int, int] | None = None
    end_to_end: bool = True
    minutes: float | None = None
    run: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        large = self.large or (self.width, self.height)
        for name, value, least in (
            ("--size", min(self.width, self.height), 32),
            ("--large", min(large), 32),
            ("--frames", self.frames, 8),
            ("--repeats", self.repeats, 1),
        ):
            if value < least:
                raise UsageError(f"{name} is {value}, but it must be at least {least}")
        if self.minutes is not None and self.minutes <= 0:
            raise UsageError(f"--minutes is {self.minutes:g}, but it must be positive")
        for name, (width, height) in (("--size", (self.width, self.height)), ("--large", large)):
            if width % 2 or height % 2:
                raise UsageError(f"{name} is {width}x{height}, but both must be even")


@dataclass(frozen=True)
class TimingRow:
    """One line of the result.

    Attributes:
        group: backbone, or ``shared`` for what no backbone takes part in.
        task: what was timed.
        per: of what one.
        timing: seconds per that.
        floor: seconds below which the measured rates of the device do not allow; None where no bound is known.
        host: peak of resident memory while it ran, bytes; None if unknown.
        device: peak of the tensors on the GPU, bytes; None on a CPU.
    """

    group: str
    task: str
    per: str
    timing: Timing
    floor: float | None
    host: int | None
    device: int | None


@dataclass(frozen=True)
class SpeedReport:
    """All of it.

    Attributes:
        machine: hardware, versions, date, load.
        settings: what was measured.
        dtype: in which the networks computed, by backbone.
        rates: of the device.
        rows: in order.
        breakdown: where the time of one whole job went; None if not asked for or no weights are here.
        notes: what the reader has to know about these figures.
    """

    machine: dict[str, str]
    settings: SpeedSettings
    dtype: dict[str, str]
    rates: Rates
    rows: tuple[TimingRow, ...]
    breakdown: Breakdown | None
    notes: tuple[str, ...]
