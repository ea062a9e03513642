"""What can be made in addition to a result: a report page and a comparison video."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from selfhvd_tta.errors import Interrupted
from selfhvd_tta.events import Event, Listener, Written, ignore
from selfhvd_tta.extras.comparison import check_comparison, comparison_path, write_comparison
from selfhvd_tta.extras.report import Recorder, report_file, write_report
from selfhvd_tta.run.cancelling import CancelToken
from selfhvd_tta.run.checks import NewFile, check_paths
from selfhvd_tta.settings import Layout, Settings
from selfhvd_tta.video.opening import open_reader

if TYPE_CHECKING:
    from selfhvd_tta.pipeline import Result


@dataclass(frozen=True)
class Extras:
    """What is wanted in addition to the result.

    Attributes:
        report: path of an ``.html`` page; None for none.
        compare: layout of a comparison video, written next to the result; None for none.
    """

    report: Path | None = None
    compare: Layout | None = None


def deblur_with(
    video: str | Path,
    output: str | Path,
    settings: Settings,
    extras: Extras,
    listen: Listener = ignore,
    cancel: CancelToken | None = None,
) -> Result:
    """:func:`selfhvd_tta.deblur`, then the extras.

    Args:
        video: input video.
        output: where the result goes.
        settings: all settings; ``output.overwrite`` holds for the other files too.
        extras: what else to write.
        listen: gets everything as it comes, and a :class:`Written` for each other file.
        cancel: to end it from another thread.

    Returns:
        What ``deblur`` did.

    Raises:
        SelfHVDError: before any work if one of the files could not be written; the result is in place when a later
            error is about another file.
    """
    others = [report_file(extras.report)] if extras.report is not None else []
    if extras.compare is not None:
        others.append(NewFile("--compare", comparison_path(output, extras.compare)))
    check_paths(Path(video), Path(output), settings, others)
    if extras.compare is not None:
        check_comparison(
            open_reader(video, settings.part, settings.progressive), output, extras.compare, settings.output
        )

    from selfhvd_tta.pipeline import deblur

    def tell(event: Event) -> None:
        if cancel is not None and cancel.cancelled:
            raise KeyboardInterrupt
        listen(event)

    recorder = Recorder(listen)
    result = deblur(video, output, settings, recorder, cancel)
    try:
        if extras.compare is not None:
            path = write_comparison(video, output, extras.compare, settings.output, tell, part=settings.part)
            listen(Written("comparison", str(path)))
        if extras.report is not None:
            path = write_report(extras.report, video, result, settings, recorder.log, settings.output.overwrite)
            listen(Written("report", str(path)))
    except KeyboardInterrupt as error:
        raise Interrupted(f"{output} is complete, but the report or comparison was not written") from error
    return result
