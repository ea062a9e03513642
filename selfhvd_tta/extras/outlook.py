"""What can be expected of a video before any work: what was found in it, and how long each quality would take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from selfhvd_tta.config import override
from selfhvd_tta.events import Event, Listener, Progress, ignore
from selfhvd_tta.method.working_set import choose_frames
from selfhvd_tta.run.blur import settled
from selfhvd_tta.run.cancelling import CancelToken
from selfhvd_tta.run.choice import choose_method
from selfhvd_tta.run.equipment import Equipment
from selfhvd_tta.run.forecast import Forecast, Load
from selfhvd_tta.run.memory import working_set_limit
from selfhvd_tta.run.scan import Inspection, examine
from selfhvd_tta.settings import QUALITIES, Quality, Settings
from selfhvd_tta.video.opening import open_reader


@dataclass(frozen=True)
class Outlook:
    """What a look at a video tells.

    Attributes:
        seen: the scan, with the blur measured; ``helpful`` tells whether a run would change anything.
        seconds: estimated duration of a run on this machine, for each quality; empty if it would change nothing.
    """

    seen: Inspection
    seconds: Mapping[Quality, float]


def outlook(
    video: str | Path, settings: Settings | None = None, listen: Listener = ignore, cancel: CancelToken | None = None
) -> Outlook:
    """Scan a video and estimate what each quality would take; nothing is written.

    Args:
        video: input video.
        settings: of the run, before a quality is chosen.
        listen: gets progress and notes.
        cancel: to end it from another thread.

    Raises:
        SelfHVDError: as :func:`selfhvd_tta.deblur`.
    """

    def tell(event: Event) -> None:
        if cancel is not None and isinstance(event, Progress):
            cancel.check()
        listen(event)

    given = settings or Settings()
    reader = open_reader(video, given.part)
    seen, _ = examine(reader, replace(given, method="transfer"), tell)
    if not seen.helpful and not given.force:
        return Outlook(seen, {})
    seconds: dict[Quality, float] = {}
    measured: dict[str, Forecast] = {}
    for quality, values in QUALITIES.items():
        chosen = choose_method(override(given, dict(values)))
        if seen.blur is not None:
            chosen = settled(chosen, seen.blur)
        gear = Equipment.load(chosen, tell)
        chosen = replace(chosen, adaptation=chosen.adaptation.on(gear.device.type))
        limit = working_set_limit(seen.info.height, seen.info.width, chosen.adaptation.working_set)
        working = len(choose_frames(seen.clues, limit, chosen.clues.segment))
        # The machine is timed once for each method, so that qualities of one method compare.
        if chosen.method not in measured:
            measured[chosen.method] = Forecast.measure(reader, seen, chosen, gear, working)
        forecast = replace(measured[chosen.method], load=Load.of(seen, chosen, gear, working))
        seconds[quality] = forecast.seconds(chosen)
    return Outlook(seen, seconds)
