"""Looking at a video before anything is done: which frames are sharp, where the cuts are, what can be expected."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from selfhvd_tta.errors import InputError
from selfhvd_tta.events import Event, Listener, Note, Progress, ignore
from selfhvd_tta.method.clues import Clues, laplacian_variance, local_contrast, select_clues
from selfhvd_tta.run.blur import Blur, blur_lengths, measure_blur, settled
from selfhvd_tta.run.cancelling import CancelToken
from selfhvd_tta.run.memory import within_memory
from selfhvd_tta.settings import BlurKind, ClueSettings, Settings
from selfhvd_tta.video.opening import Reader, open_reader
from selfhvd_tta.video.probe import VideoInfo
from selfhvd_tta.video.shots import ShotDetector

SMALLEST = 16  # Pixels in both directions; the optical flow compares patches of 8.


@dataclass(frozen=True)
class Inspection:
    """What a scan found.

    Attributes:
        info: of the file.
        clues: sharp frames, shots, separability.
        pts: presentation time stamp of every frame, in units of the stream's time base.
        verdict: one line for the user.
        helpful: whether there is blur that sharp frames of the same shot could mend.
        blur: of its frames; None: not measured.
        lengths: median length of the blur of every frame, pixels; empty: not measured.
    """

    info: VideoInfo
    clues: Clues
    pts: tuple[int, ...]
    verdict: str
    helpful: bool
    blur: Blur | None = None
    lengths: tuple[float, ...] = ()

    def with_blur(self, reader: Reader, kind: BlurKind) -> Inspection:
        """With the blur of its frames measured."""
        return replace(self, blur=measure_blur(reader, self.clues, kind))


@within_memory("the scan")
def scan(reader: Reader, settings: ClueSettings, listen: Listener) -> Inspection:
    """Decode the luma of the whole video once and select its clues.

    Raises:
        InputError: not one frame could be decoded, or the picture is tiny.
    """
    if min(reader.info.width, reader.info.height) < SMALLEST:
        size = f"{reader.info.width}x{reader.info.height}"
        raise InputError(
            f"{reader.info.path}: {size} pixels are too few to detect motion",
            f"Give a video of {SMALLEST} pixels or more.",
        )
    values: list[float] = []
    contrast: list[float] = []
    pts: list[int] = []
    detector = ShotDetector()
    for frame in reader.luma():
        values.append(laplacian_variance(frame.y))
        contrast.append(local_contrast(frame.y))
        detector.add(frame.y)
        pts.append(frame.pts)
        if len(values) % 10 == 0:
            listen(Progress("scan", len(values), reader.info.frames))
    if not values:
        raise InputError(f"{reader.info.path}: no frame could be decoded", "The file is damaged or empty.")
    listen(Progress("scan", len(values), len(values)))
    for text in reader.warnings:
        listen(Note(text, "warning"))
    clues = select_clues(np.asarray(values), detector.shots(), settings, np.asarray(contrast))
    helpful, verdict = judge(clues, settings)
    return Inspection(reader.info, clues, tuple(pts), verdict, helpful)


def examine(reader: Reader, settings: Settings, tell: Listener) -> tuple[Inspection, Settings]:
    """Scan a video, measure its blur where the method uses it, and settle what the blur decides.

    Args:
        reader: of the video.
        settings: of the run, its method chosen.
        tell: gets progress and notes.

    Returns:
        What was found, and the settings with the kind of blur decided. A video without sharp frames becomes one to
        transfer if its blur alone says how to restore it, unless ``strict`` or ``force`` decide otherwise.

    Raises:
        InputError: as :func:`scan`.
    """
    seen = scan(reader, settings.clues, tell)
    if settings.transfers and len(seen.pts) > 1:
        seen = seen.with_blur(reader, settings.alignment.blur)
    blur = seen.blur
    if blur is None:
        return seen, settings
    if not seen.helpful and not settings.strict and not settings.force and blur.restorable:
        tell(Note("no frame is sharp: every frame is restored from its own blur and that of its neighbors"))
        settings = replace(settings, method="transfer", save_adapted=None, adapted=None, weights=None)
        blur = replace(blur, local=True)
        seen = replace(seen, helpful=True, blur=blur)
    return seen, settled(settings, blur)


def judge(clues: Clues, settings: ClueSettings) -> tuple[bool, str]:
    """Whether the method can help, and why, in one line."""
    count = len(clues.sharp)
    soft = int(clues.soft.sum())
    if count == 1:
        return False, "there is only one frame, so no other frame can help it"
    if soft == 0 or clues.soft_share < settings.min_soft:
        return False, (
            f"its frames do not differ in sharpness ({soft} of {count} are clearly softer than their neighbours): "
            "either all are sharp, or none is"
        )
    return True, (
        f"{soft} of {count} frames are clearly softer than a frame nearby; sharp frames have {clues.contrast:.1f} "
        f"times their Laplacian variance (separability {clues.separability:.2f})"
    )


def inspect(
    path: str | Path,
    settings: ClueSettings | None = None,
    listen: Listener = ignore,
    cancel: CancelToken | None = None,
    blur: bool = False,
) -> Inspection:
    """Scan a video file without changing anything.

    Args:
        path: video file.
        settings: how clues are selected.
        listen: gets progress.
        cancel: to end the scan from another thread.
        blur: measure the blur of every frame as well, which takes longer.

    Raises:
        InputError: the file cannot be read as a video.
        Interrupted: ``cancel`` asked for it.
    """

    def tell(event: Event) -> None:
        if cancel is not None:
            cancel.check()
        listen(event)

    reader = open_reader(path, progressive=True)  # looking does no harm; a note tells the flag
    seen = scan(reader, settings or ClueSettings(), tell)
    if not blur or len(seen.pts) == 1:
        return seen
    seen = seen.with_blur(reader, "auto")
    assert seen.blur is not None
    lengths = []
    for length in blur_lengths(reader, seen.clues, seen.blur.exposure):
        lengths.append(length)
        tell(Progress("scan", len(lengths), len(seen.pts)))
    return replace(seen, lengths=tuple(lengths))
