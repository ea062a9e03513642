"""The best frames of a video as restored pictures: spread over its length, the least blurred of their surroundings."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from selfhvd_tta.errors import UsageError
from selfhvd_tta.events import Event, Listener, Note, Progress, Written, ignore
from selfhvd_tta.method.restoration import WARM_UP, Restart
from selfhvd_tta.run import feeds
from selfhvd_tta.run.cancelling import CancelToken
from selfhvd_tta.run.checks import check_names
from selfhvd_tta.run.equipment import Equipment
from selfhvd_tta.run.frames import Mark, Place, RestoredFrame, blending, mixed, run_frames
from selfhvd_tta.run.scan import Inspection, examine
from selfhvd_tta.settings import Settings
from selfhvd_tta.video.color import Array
from selfhvd_tta.video.images import as_integers, save_image
from selfhvd_tta.video.opening import Reader, open_reader
from selfhvd_tta.video.orientation import picture
from selfhvd_tta.video.target import check_target, disk_errors, make_workplace, publish
from selfhvd_tta.wording import plural

COUNT = 20
INDEX = "stills.csv"
# More than any side of a video: pictures keep their size.
LONGEST = 1 << 16


@dataclass(frozen=True)
class Still:
    """One picture.

    Attributes:
        path: of the PNG file.
        frame: number of the frame in the video, from 0.
        seconds: its time from the start of the video.
        sharpness: as recorded, its score over the median of its shot: 1 is an ordinary frame.
    """

    path: Path
    frame: int
    seconds: float
    sharpness: float


def stills(
    video: str | Path,
    folder: str | Path,
    settings: Settings | None = None,
    count: int = COUNT,
    every: float | None = None,
    listen: Listener = ignore,
    cancel: CancelToken | None = None,
) -> tuple[Still, ...]:
    """Write the best frames of a video, restored by transfer, as pictures: 8 bits, upright, with square pixels.

    Only the frames that are chosen are restored. Where the method cannot help, they are written as recorded. The folder
    also holds a table of them, ``stills.csv``.

    Args:
        video: input video; it is only read.
        folder: new folder for the pictures; the frame's time and number are their names.
        settings: of the restoration; its method is transfer, into the output of adapted weights if they are given.
        count: the most pictures to write.
        every: seconds; one picture for each such stretch of the video instead of ``count`` in all.
        listen: gets progress and notes as they come.
        cancel: to end it from another thread.

    Returns:
        The pictures in the order of the video.

    Raises:
        UsageError: a number is out of range, the folder exists, or its name is that of a file.
        SelfHVDError: as :func:`selfhvd_tta.deblur`.
    """
    if count < 1 or (every is not None and every <= 0):
        raise UsageError("--count and --every must be positive", "For example: --count 20 or --every 1s")
    settings = replace(settings or Settings(), method="transfer")

    def tell(event: Event) -> None:
        if cancel is not None and isinstance(event, Progress):
            cancel.check()
        listen(event)

    reader = open_reader(video, settings.part)
    target = check_target(folder, reader.info.path, settings.output.overwrite, INDEX)
    if not target.is_folder:
        raise UsageError(f"{folder}: pictures go into a folder", "Leave the suffix out, for example -o stills.")
    check_names(settings)
    seen, settings = examine(reader, settings, tell)
    if reader.info.color.hdr:
        tell(Note("HDR: pictures hold its values in 8 bits without tone mapping; they look flat", "warning"))
    chosen = best_frames(seen, count, every)
    times = seconds_of_frames(seen)
    sharpness = relative_sharpness(seen)
    workplace = make_workplace(target)
    done: list[Still] = []
    try:
        finished = workplace / "finished"
        with disk_errors(target.path):
            finished.mkdir()
        for index, rgb in _pictures(reader, seen, settings, chosen, tell):
            path = finished / still_name(index, times[index], times[-1])
            with disk_errors(target.path):
                save_image(path, picture(as_integers(rgb, 8), reader.info, LONGEST))
            done.append(Still(target.path / path.name, index, times[index], float(sharpness[index])))
            tell(Progress("transfer", len(done), len(chosen)))
        with disk_errors(target.path):
            _write_index(finished / INDEX, done)
        publish(finished, target)
    finally:
        shutil.rmtree(workplace, ignore_errors=True)
    listen(Written("stills", str(target.path)))
    listen(Note(f"{plural(len(done), 'picture')} and {INDEX}"))
    return tuple(done)


def best_frames(seen: Inspection, count: int = COUNT, every: float | None = None) -> list[int]:
    """The sharpest frame of each of ``count`` equal stretches of a video, or of each stretch of ``every`` seconds.

    A frame is at least half a stretch later than the one before it, if its stretch has such a frame: two pictures of
    the same moment are of little use.

    Returns:
        Ascending frame numbers.
    """
    times = np.asarray(seconds_of_frames(seen))
    step = (times[-1] - times[0]) / max(1, len(times) - 1)
    length = every if every is not None else max((times[-1] - times[0] + step) / count, 1e-9)
    stretch = np.floor((times - times[0]) / length + 1e-6).astype(int)
    sharpness = relative_sharpness(seen)
    chosen: list[int] = []
    for number in np.unique(stretch):
        frames = np.flatnonzero(stretch == number)
        if chosen and (times[frames] - times[chosen[-1]] >= length / 2).any():
            frames = frames[times[frames] - times[chosen[-1]] >= length / 2]
        chosen.append(int(frames[np.argmax(sharpness[frames])]))
    return chosen


def relative_sharpness(seen: Inspection) -> np.ndarray:
    """(N,) score of every frame over the median of its shot; comparable between shots of different content."""
    score = seen.clues.score
    medians = np.concatenate(
        [np.full(len(shot), np.median(score[shot.start : shot.stop])) for shot in seen.clues.shots]
    )
    return np.asarray(score / np.maximum(medians, 1e-9))


def seconds_of_frames(seen: Inspection) -> list[float]:
    """Time of every frame from the start of the video."""
    origin = seen.pts[0] if seen.info.span is None else seen.info.span.origin
    return [float((pts - origin) * seen.info.time_base) for pts in seen.pts]


def still_name(index: int, seconds: float, last: float) -> str:
    """``00m03.240s-f00081.png``; names of one video sort by time."""
    minutes, rest = divmod(round(1000 * seconds), 60_000)
    width = max(2, len(str(int(last // 60))))
    return f"{minutes:0{width}d}m{rest / 1000:06.3f}s-f{index:05d}.png"


def _pictures(
    reader: Reader, seen: Inspection, settings: Settings, chosen: list[int], tell: Listener
) -> Iterator[tuple[int, Array]]:
    """The chosen frames, restored; coded orientation."""
    if not (seen.helpful or settings.force):
        tell(Note(f"written as recorded: {seen.verdict} (--force restores them anyway)", "warning"))
        for frame in reader.read(chosen):
            yield frame.index, frame.rgb
        return
    gear = Equipment.load(settings, tell)
    details = blending(seen.blur, gear, settings)
    network = gear.network
    reach = 0
    if network is not None:
        # A recurrent network needs some frames to settle, a bidirectional one those on both sides.
        past = network.backbone.context[0] + WARM_UP if network.backbone.temporal == "causal" else 0
        reach = network.backbone.reach or past
        settings = gear.sized(settings, seen.info.height, seen.info.width, lambda _, found: found)
        window = min(gear.window(seen.info.height, seen.info.width, settings), 2 * reach + 2)
        settings = replace(settings, runtime=replace(settings.runtime, window=window))
    for index in chosen:
        shot = seen.clues.shot_of(index)
        start = max(0, index - shot.start - reach)
        start -= start % 2  # networks that pair frames see the pairs that a run over the whole video would show them
        mark = Mark(shot.start, Restart(start, start, index - shot.start))
        restorer = gear.restorer(seen.info.height, seen.info.width, settings, tell)
        frames = run_frames(feeds.opener(reader), seen.clues, gear.device, restorer, details, Place(index, mark))
        yield index, _first(frames, settings.strength)


def _first(frames: Iterator[RestoredFrame], strength: float) -> Array:
    try:
        return feeds.to_array(mixed(next(frames), strength))
    finally:
        frames.close()  # type: ignore[attr-defined]  # a generator: its decoders end


def _write_index(path: Path, done: list[Still]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("file", "seconds", "frame", "sharpness"))
        for still in done:
            rows.writerow((still.path.name, f"{still.seconds:.3f}", still.frame, f"{still.sharpness:.2f}"))
