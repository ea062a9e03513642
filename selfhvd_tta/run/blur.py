"""Which kind of blur a video has: measured on a few of its frames, before the work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt
import torch

from selfhvd_tta.flows import luma
from selfhvd_tta.flows.dis import DIS
from selfhvd_tta.flows.global_motion import GlobalMotionFirst, blur_matched
from selfhvd_tta.flows.homography import estimate_homography, working_size
from selfhvd_tta.method.clues import Clues
from selfhvd_tta.method.composite import apply
from selfhvd_tta.method.explaining import REACH, WINDOW, Explainer, aligned_width
from selfhvd_tta.method.exposure import Exposure, median_motion, vote
from selfhvd_tta.method.teachers import choose_teachers
from selfhvd_tta.method.transfer import compose
from selfhvd_tta.run.memory import within_memory
from selfhvd_tta.settings import NO_BACKBONE, AlignmentSettings, BlurKind, Settings
from selfhvd_tta.video.reader import Frame

# Blurry frames that the exposure is measured on, those on which both explanations are compared, and the sharp frames
# by which each of these is explained.
LOOKED_AT = 12
COMPARED = 8
BY_SHARP = 3
# Longer side in pixels at which they are compared.
SIDE = 640
# A scene is flat unless one path for the whole frame leaves this many times the difference that local motion leaves:
# streaked lights mislead a local flow more than a fit to all of the frame. Fits fail here and there, at strong blur or
# far from a sharp frame, so the quarter of the frames counts in which it does best: it does well in some frames of a
# flat scene, in none of a scene with depth. Measured: flat scenes 0.69 to 1.16 (their medians reach 1.5), scenes with
# depth, movers or people 1.36 to 5.2.
DEEP_FROM = 1.2
BEST_SHARE = 0.25
# A scene that is not flat is tried on this many frames: sharp ones are merged by one path and the flow that it leaves,
# and the result is blurred again. If it then is this many times as far from what was recorded as the blurry frame
# itself would be, the merged content is not where it belongs. Measured: simulated scenes with depth, movers or crowds
# 0.6 to 1.1, and there one path and flow gain 0.7 to 3 dB more; a recorded street of known truth 1.6 to 2.7, and there
# they lose what local motion gains; other recordings 1.0, 1.4 and 3.3.
TRIED = 5
ASTRAY_FROM = 1.3
TRIAL = AlignmentSettings(teachers=3, teacher_reach=REACH)
# A video without sharp frames is worth restoring from blur of this length in pixels, if this share of frames agree.
RESTORABLE_LENGTH = 4.0
RESTORABLE_VOTES = 0.75


@dataclass(frozen=True)
class Blur:
    """The blur of a video.

    Attributes:
        local: it differs from place to place (depth, people) in a way that one path per frame and flow do not undo.
        exposure: share of the frame time, and length.
        residuals: mean absolute difference, in 8-bit codes, that the local and the global explanation leave; None if
            they were not compared.
    """

    local: bool
    exposure: Exposure
    residuals: tuple[float, float] | None = None

    @property
    def restorable(self) -> bool:
        """Whether frames can be restored from their own blur alone, without sharp frames."""
        return self.exposure.known >= RESTORABLE_VOTES and self.exposure.length >= RESTORABLE_LENGTH


class FrameSource(Protocol):
    """Reads some frames of a video, ascending."""

    def read(self, indices: Sequence[int]) -> Iterator[Frame]:
        """Frames at these positions."""


class Excerpt:
    """Some frames of a video, for an :class:`Explainer`.

    Args:
        reader: of the video.
        numbers: frames that will be asked for, ascending.
        side: longer sides are scaled down to it; None: frames as they are.

    Attributes:
        scale: size of the frames over the size that an explainer aligns the video's frames at.
        zoom: size of the video over the size of the frames.
    """

    def __init__(self, reader: FrameSource, numbers: Iterable[int], side: int | None = None) -> None:
        self.frames: dict[int, npt.NDArray[np.uint8] | npt.NDArray[np.uint16]] = {}
        self.scale = self.zoom = 1.0
        self.side = side
        for frame in reader.read(list(numbers)):
            self._take(frame)

    def move(self, frames: Iterator[Frame], numbers: range) -> None:
        """Hold these frames instead, all of which lie behind the first one held; ``frames`` gives the ones to come."""
        for index in [i for i in self.frames if i < numbers.start]:
            del self.frames[index]
        while numbers[-1] not in self.frames:
            frame = next(frames)
            if frame.index >= numbers.start:
                self._take(frame)

    def _take(self, frame: Frame) -> None:
        small = frame.rgb if self.side is None else _at_most(frame.rgb, self.side)
        self.scale = small.shape[1] / aligned_width(frame.rgb.shape[0], frame.rgb.shape[1])
        self.zoom = frame.rgb.shape[1] / small.shape[1]
        self.frames[frame.index] = small

    def __call__(self, index: int) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
        return self.frames[index]


def _at_most(
    rgb: npt.NDArray[np.uint8] | npt.NDArray[np.uint16], side: int
) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    rows, columns = working_size(rgb.shape[0], rgb.shape[1], side)
    if (rows, columns) == rgb.shape[:2]:
        return rgb
    small: npt.NDArray[Any] = cv2.resize(rgb, (columns, rows), interpolation=cv2.INTER_AREA)
    return small


@within_memory("measuring the blur")
def measure_blur(reader: FrameSource, clues: Clues, kind: BlurKind) -> Blur:
    """Measure the blur of some blurry frames.

    Args:
        reader: of the video, which has counted its frames.
        clues: of the video.
        kind: ``local`` or ``global`` as the user wants it, or ``auto``.
    """
    blurry = [i for i in range(len(clues.sharp)) if not clues.sharp[i] and len(clues.shot_of(i)) > 1]
    if not blurry:
        return Blur(kind == "local", Exposure.of([]))
    exposure = Exposure.of(
        Explainer(Excerpt(reader, _around(i, clues, 1)), clues, Exposure.of([])).look(i)
        for i in _spread(blurry, LOOKED_AT)
    )
    if kind != "auto":
        return Blur(kind == "local", exposure)
    near = [i for i in blurry if abs(int(clues.nearest[i]) - i) <= REACH]
    left = [pair for i in _spread(near, COMPARED) if (pair := _compared(reader, clues, exposure, i)) is not None]
    if not left:
        return Blur(True, exposure)
    by_local, by_global = (float(np.median(side)) for side in zip(*left, strict=True))
    local = deep(left) and _goes_astray(reader, clues, exposure, _spread(near, TRIED))
    return Blur(local, exposure, (by_local, by_global))


def deep(left: Sequence[tuple[float, float]]) -> bool:
    """Whether one path does not explain a frame as local motion does.

    Args:
        left: differences that the local and the global explanation of some frames leave, in codes.
    """
    best = np.quantile([np.log(by_global / by_local) for by_local, by_global in left], BEST_SHARE)
    return bool(best > np.log(DEEP_FROM))


def settled(settings: Settings, blur: Blur) -> Settings:
    """The settings with the kind of blur decided, and with what follows from that.

    Local blur is undone without a network, unless one is named or adapted.
    """
    kind: BlurKind = "local" if blur.local else "global"
    settings = replace(settings, alignment=replace(settings.alignment, blur=kind))
    if (
        blur.local
        and not settings.learns
        and settings.backbone == "auto"
        and settings.weights is None
        and settings.adapted is None
    ):
        settings = replace(settings, backbone=NO_BACKBONE)
    return settings


def _around(index: int, clues: Clues, reach: int) -> range:
    shot = clues.shot_of(index)
    return range(max(shot.start, index - reach), min(shot.stop, index + reach + 1))


def _spread(items: list[int], count: int) -> list[int]:
    """At most ``count`` of them, evenly."""
    if len(items) <= count:
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, count).round().astype(int)]


def _compared(reader: FrameSource, clues: Clues, exposure: Exposure, index: int) -> tuple[float, float] | None:
    """What the local and the global explanation of a frame by sharp ones leave at least, in 8-bit codes."""
    excerpt = Excerpt(reader, _around(index, clues, WINDOW), SIDE)
    small = replace(exposure, length=exposure.length * excerpt.scale)
    blurry = _planes(excerpt(index))
    left = []
    for other, recorded, predicted in Explainer(excerpt, clues, small).predictions(index, BY_SHARP):
        sharp = _planes(excerpt(other))
        motion = estimate_homography(luma(blurry)[0].numpy(), luma(sharp)[0].numpy(), SIDE)
        if motion.blurrier == "target":
            continue
        seen, made = blur_matched(blurry, sharp, motion)
        gray = [(luma(each)[0].numpy() * 255 + 0.5).astype(np.uint8) for each in (seen, made)]
        left.append((_left(recorded, predicted), _left(gray[0], gray[1])))
    if not left:
        return None
    by_local, by_global = (min(side) for side in zip(*left, strict=True))
    return by_local, by_global


@torch.no_grad()
def _goes_astray(reader: FrameSource, clues: Clues, exposure: Exposure, indices: list[int]) -> bool:
    """Whether frames merged by one path and the flow that it leaves are, blurred again, far from what was recorded."""
    flow, ratios = GlobalMotionFirst(DIS()), []
    for index in indices:
        excerpt = Excerpt(reader, _around(index, clues, WINDOW), SIDE)
        explainer = Explainer(excerpt, clues, replace(exposure, length=exposure.length * excerpt.scale))
        teachers = choose_teachers(index, clues, TRIAL)
        recorded = _planes(excerpt(index))
        composite = compose(recorded, recorded, [_planes(excerpt(j)) for j in teachers.others], teachers, flow, TRIAL)
        merged, same = (
            np.ascontiguousarray(each[0].permute(1, 2, 0).numpy()) for each in (apply(composite, recorded), recorded)
        )
        left = [_left(255 * same, 255 * explainer.blurred_like(index, each)) for each in (merged, same)]
        ratios.append(left[0] / left[1])
    return bool(np.median(ratios) > ASTRAY_FROM)


def _left(recorded: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> float:
    """Mean absolute difference of the middle of two low-passed pictures, (H, W) or (H, W, 3) in 8-bit codes."""
    a, b = (cv2.GaussianBlur(each.astype(np.float32), (0, 0), 1.0) for each in (recorded, predicted))
    rows, columns = recorded.shape[:2]
    border = min(rows, columns) // 10
    return float(np.abs(a - b)[border : rows - border, border : columns - border].mean()) + 1e-3


def _planes(rgb: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> torch.Tensor:
    """(1, 3, H, W) in [0, 1]."""
    codes = rgb.astype(np.float32) / np.iinfo(rgb.dtype).max
    return torch.from_numpy(np.ascontiguousarray(codes.transpose(2, 0, 1)))[None]


def blur_lengths(reader: FrameSource, clues: Clues, exposure: Exposure) -> Iterator[float]:
    """Median length of the blur of every frame, in pixels of the video.

    Args:
        reader: of the video, which has counted its frames.
        clues: of the video.
        exposure: of the video, for frames that do not show their own.
    """
    window = Excerpt(reader, (), SIDE)
    frames = reader.read(range(len(clues.sharp)))
    for index in range(len(clues.sharp)):
        if len(clues.shot_of(index)) == 1:
            yield 0.0
            continue
        window.move(frames, _around(index, clues, 1))
        luma_, velocity = Explainer(window, clues, exposure).look(index)
        own = vote(luma_, velocity).share
        share = exposure.share if own is None else own
        yield share * median_motion(velocity) * window.zoom
