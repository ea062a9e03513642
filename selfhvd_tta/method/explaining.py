"""A blurry frame explained by the frames around it: what, blurred the way each of them was, gives what was recorded.

Used where the motion differs from place to place (depth, people). Sharp frames and the nearest neighbours are aligned
to the frame by re-blurring: each of the two is blurred along the *other's* path, after which both have the same blur
and an optical flow between them is not misled by it. Where the two then agree, the aligned frame is believed. From the
believed sharp frames a first picture is made, and a few Richardson-Lucy steps make it explain all of them.
After Cho et al. 2012 (patches of sharp frames, re-blurred) and Richardson 1972.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from selfhvd_tta.flows.dis import dis_flow
from selfhvd_tta.method.blur_field import (
    FlowArray,
    Gray,
    Picture,
    blurred,
    compose,
    places,
    to_codes,
    to_light,
    velocity,
    warp,
)
from selfhvd_tta.method.clues import Clues
from selfhvd_tta.method.exposure import Exposure, median_motion, trusted, vote
from selfhvd_tta.method.richardson_lucy import Recording, coarse_to_fine, explained

# Frames to both sides that may be used.
REACH = 9
# The motion of those is seen against their own neighbours.
WINDOW = REACH + 1
# Sharp frames that a frame learns from, and blurry neighbours to each side that have to be explained as well.
SHARP_FRAMES = 3
NEIGHBOURS = 1
# Frames of more than this many pixels on the longer side are aligned at half their size.
ALIGNED_AT = 1280
# A clue is sharp when its blur is this short in pixels, or when its blur or exposure is short against the median of the
# video's blurry frames.
SHORT_BLUR = 1.5
SHORTER = 0.6
# Share of a sharp frame's exposure: it has little motion blur left, or it would not be sharp.
SHARP_SHARE = 0.1
# Mean difference of code values (8 bit) at which an explanation is half believed, and the scale it is measured at.
TOLERANCE = 3.4
SCALE = 4.0
# Weight of a blurry neighbour against that of a sharp frame.
NEIGHBOUR_WEIGHT = 0.5
# Weight of the recorded frame in the first picture; it rises where its blur changes less than this many squared codes.
RECORDED_WEIGHT = 0.05
HARMLESS_BLUR = 100.0
# Steps in which all frames are explained, at half the size and at the full size, and after them the frame alone.
COARSE_STEPS = 2
FINE_STEPS = 1
OWN_STEPS = 1
# Steps at the full size where no sharp frame is in reach.
LONE_STEPS = 2
# The velocity is the mean over two frame times, in which shake turns: during the exposure, motion is this much faster.
FASTER = 1.1

Frames = Callable[[int], npt.NDArray[np.uint8] | npt.NDArray[np.uint16]]


@dataclass(frozen=True)
class _Witness:
    """A frame brought to the place of another: linear light, its own blur's path there, and belief (H, W) in 0..1."""

    light: Picture
    path: FlowArray
    share: float
    belief: Picture
    sharp: bool

    def recording(self) -> Recording:
        """What the picture is to be explained by."""
        return Recording(
            self.light, self.path, self.share, self.belief * np.float32(1 if self.sharp else NEIGHBOUR_WEIGHT)
        )


class Explainer:
    """Explains the frames of one video, in order.

    Args:
        frames: gives a frame of the video, (H, W, 3) uint8 or uint16 RGB; asked for at most ``WINDOW`` frames away from
            the current one.
        clues: of the video.
        exposure: of the video.
    """

    def __init__(self, frames: Frames, clues: Clues, exposure: Exposure) -> None:
        self.frames = frames
        self.clues = clues
        self.exposure = exposure
        self._grays: dict[int, Gray] = {}
        self._flows: dict[tuple[int, int], npt.NDArray[np.float16]] = {}
        self._shares: dict[int, float] = {}
        self._sharp: dict[int, bool] = {}

    def explain(self, index: int, restored: Picture | None = None) -> Picture:
        """Restore one frame. A sharp frame comes back as it was recorded.

        Args:
            index: of the frame; those asked for ascend.
            restored: what a network makes of it, (H, W, 3) float32 in [0, 1]: believed where, blurred, it gives what
                was recorded.

        Returns:
            (H, W, 3) float32 in [0, 1].
        """
        self._forget(index)
        recorded = self._codes(index)
        shot = self.clues.shot_of(index)
        if len(shot) == 1 or self._is_sharp(index):
            return recorded
        light = self._light(index)
        path = self._full(self._velocity(index), recorded.shape[:2])
        share = self._share_of(index)
        sharp = self._sharp_near(index)
        near = [j for j in range(index - NEIGHBOURS, index + NEIGHBOURS + 1) if j != index and j in shot]
        witnesses = [self._witness(index, j, light, share) for j in [*near, *(j for j in sharp if j not in near)]]
        clear = [w for w in witnesses if w.sharp]
        if restored is not None:
            made = to_light(restored)
            belief = _agreement(light, blurred(made, path, share))
            clear.append(_Witness(made, path, 0.0, belief, sharp=True))
        picture = self._first(recorded, light, path, share, clear)
        own = Recording(light, path, share, np.ones(light.shape[:2], np.float32))
        if witnesses:
            others = [w.recording() for w in witnesses]
            picture = coarse_to_fine(picture, [own, *others], COARSE_STEPS, FINE_STEPS if sharp else LONE_STEPS)
        return to_codes(explained(picture, [own], OWN_STEPS))

    def _is_sharp(self, index: int) -> bool:
        """Whether a clue is sharp, not only the least blurry of its segment: its blur is short against the others'."""
        if not self.clues.sharp[index]:
            return False
        if index not in self._sharp:
            path = self._velocity(index)
            own = vote(self._gray(index), path).share
            share = self.exposure.share if own is None else own
            short = share * median_motion(path) <= max(SHORT_BLUR, SHORTER * self.exposure.length)
            self._sharp[index] = short or share <= SHORTER * self.exposure.share
        return self._sharp[index]

    def _sharp_near(self, index: int) -> list[int]:
        """Sharp frames to learn from, the nearest first."""
        shot = self.clues.shot_of(index)
        clues = sorted(
            (j for j in self.clues.sharp_in(shot) if 0 < abs(j - index) <= REACH), key=lambda j: abs(j - index)
        )
        found: list[int] = []
        for j in clues:
            if len(found) < SHARP_FRAMES and self._is_sharp(j):
                found.append(j)
        return found

    def _witness(self, index: int, other: int, light: Picture, share: float) -> _Witness:
        """Align frame ``other`` to frame ``index`` by blurring each along the other's path."""
        sharp = self._is_sharp(other)
        their_share = SHARP_SHARE if sharp else self._share_of(other)
        flow = self._between(index, other)
        here, there = (to_light(self._small(j)) for j in (index, other))
        mine, theirs = self._velocity(index), self._velocity(other)
        grays = [cv2.cvtColor(each, cv2.COLOR_RGB2GRAY) for each in (here, there)]
        ours = _gray(blurred(grays[0], warp(theirs, flow), their_share))
        matched = _gray(blurred(np.clip(warp(grays[1], flow, cubic=True), 0, 1), mine, share))
        forward, backward = dis_flow(ours, matched), dis_flow(matched, ours)
        # Half of what both directions say: an error of one of them is halved.
        flow = compose(0.5 * (forward - warp(backward, forward)), flow)
        moved, their_path = np.clip(warp(there, flow, cubic=True), 0, 1), warp(theirs, flow)
        belief = _agreement(blurred(here, their_path, their_share), blurred(moved, mine, share)) * _inside(flow)
        if light.shape != here.shape:
            height, width = light.shape[:2]
            flow, their_path = (self._full(each, (height, width)) for each in (flow, their_path))
            belief = cv2.resize(belief, (width, height), interpolation=cv2.INTER_LINEAR)
            moved = np.clip(warp(self._light(other), flow, cubic=True), 0, 1)
        return _Witness(moved, their_path, their_share, belief, sharp)

    def _first(
        self, recorded: Picture, light: Picture, path: FlowArray, share: float, sharp: list[_Witness]
    ) -> Picture:
        """The mean of the recorded frame and of the aligned sharp frames, each by its belief."""
        if not sharp:
            return light
        lost = np.square(255 * (recorded - to_codes(blurred(light, path, share)))).mean(axis=2)
        lost = cv2.GaussianBlur(lost, (0, 0), 3.0)
        total = RECORDED_WEIGHT * np.maximum(1, HARMLESS_BLUR / (lost + 0.5))
        mean = light * total[..., None]
        for one in sharp:
            mean += one.light * one.belief[..., None]
            total = total + one.belief
        return mean / total[..., None]

    def _share_of(self, index: int) -> float:
        """Exposure share of a blurry frame: its own where it shows one, or the video's."""
        if index not in self._shares:
            path = self._velocity(index)
            own = vote(self._gray(index), path).share
            share = trusted(self.exposure.share if own is None else own, median_motion(path))
            self._shares[index] = FASTER * share
        return self._shares[index]

    def predictions(self, index: int, most: int) -> Iterator[tuple[int, Gray, Gray]]:
        """What the nearest sharp frames say a frame should look like, to compare explanations.

        Args:
            index: of the frame.
            most: sharp frames that are asked.

        Yields:
            Index of a sharp frame, and luma of the frame and of its prediction with the same blur, (H, W) uint8;
            nothing without a sharp frame in reach.
        """
        sharp = self._sharp_near(index)[:most]
        if not sharp:
            return
        light, share = self._light(index), self._share_of(index)
        path = self._full(self._velocity(index), light.shape[:2])
        for other in sharp:
            found = self._witness(index, other, light, share)
            pictures = blurred(light, found.path, found.share), blurred(found.light, path, share)
            recorded, predicted = (_gray(cv2.cvtColor(each, cv2.COLOR_RGB2GRAY)) for each in pictures)
            yield other, recorded, predicted

    def blurred_like(self, index: int, picture: Picture) -> Picture:
        """A picture (H, W, 3) in code values, blurred the way a frame was: what the frame would be, were it right."""
        path = self._full(self._velocity(index), picture.shape[:2])
        return to_codes(blurred(to_light(picture), path, self._share_of(index)))

    def look(self, index: int) -> tuple[Gray, FlowArray]:
        """Luma and velocity of a frame at the size of alignment, for :meth:`Exposure.of`."""
        return self._gray(index), self._velocity(index)

    def _velocity(self, index: int) -> FlowArray:
        """At the size of alignment, in its pixels."""
        shot = self.clues.shot_of(index)
        to_next = self._flow(index, index + 1) if index + 1 in shot else None
        return velocity(to_next, self._flow(index, index - 1) if index - 1 in shot else None)

    def _between(self, index: int, other: int) -> FlowArray:
        """Flow from a frame to another along the frames between them."""
        step = 1 if other > index else -1
        flow = self._flow(index, index + step)
        for k in range(index + step, other, step):
            flow = compose(flow, self._flow(k, k + step))
        return flow

    def _flow(self, index: int, other: int) -> FlowArray:
        """Between neighbours, computed once. Half precision: hundredths of a pixel for flows of tens of them."""
        if (index, other) not in self._flows:
            self._flows[index, other] = dis_flow(self._gray(index), self._gray(other)).astype(np.float16)
        return self._flows[index, other].astype(np.float32)

    def _gray(self, index: int) -> Gray:
        if index not in self._grays:
            self._grays[index] = _codes_u8(cv2.cvtColor(self._small(index), cv2.COLOR_RGB2GRAY))
        return self._grays[index]

    def _codes(self, index: int) -> Picture:
        frame = self.frames(index)
        return frame.astype(np.float32) * np.float32(1 / np.iinfo(frame.dtype).max)

    def _light(self, index: int) -> Picture:
        frame = self.frames(index)
        return to_light(frame if frame.dtype == np.uint8 else self._codes(index))

    def _small(self, index: int) -> Picture:
        codes = self._codes(index)
        height, width = codes.shape[:2]
        columns = aligned_width(height, width)
        if columns == width:
            return codes
        return cv2.resize(codes, (columns, (height + 1) // 2), interpolation=cv2.INTER_AREA)

    @staticmethod
    def _full(flow: FlowArray, size: tuple[int, int]) -> FlowArray:
        """A flow of the size of alignment at the size of the frame, in its pixels."""
        if flow.shape[:2] == size:
            return flow
        ratio = np.array([size[1] / flow.shape[1], size[0] / flow.shape[0]], np.float32)
        return cv2.resize(flow, (size[1], size[0]), interpolation=cv2.INTER_LINEAR) * ratio

    def _forget(self, index: int) -> None:
        """Drop what no later frame asks for."""
        oldest = index - WINDOW
        self._grays = {j: gray for j, gray in self._grays.items() if j >= oldest}
        self._flows = {pair: flow for pair, flow in self._flows.items() if min(pair) >= oldest}
        self._sharp = {j: sharp for j, sharp in self._sharp.items() if j >= oldest}
        self._shares = {j: share for j, share in self._shares.items() if j >= oldest}


def aligned_width(height: int, width: int) -> int:
    """Width at which frames of this size are aligned."""
    return width if max(height, width) <= ALIGNED_AT else (width + 1) // 2


def _agreement(a: Picture, b: Picture) -> Picture:
    """(H, W) in [0, 1]: how well two pictures in linear light with the same blur agree around each pixel."""
    difference = np.abs(cv2.GaussianBlur(to_codes(a), (0, 0), 1.0) - cv2.GaussianBlur(to_codes(b), (0, 0), 1.0))
    around = cv2.GaussianBlur(difference.mean(axis=2), (0, 0), SCALE) * (255 / TOLERANCE)
    return cv2.exp(-np.square(around) * np.float32(np.log(2)))


def _inside(flow: FlowArray) -> Picture:
    """(H, W): 1 where a flow ends inside the frame, 0 elsewhere."""
    height, width = flow.shape[:2]
    where = flow + places(height, width)
    x, y = where[..., 0], where[..., 1]
    return ((x > 1) & (x < width - 2) & (y > 1) & (y < height - 2)).astype(np.float32)


def _gray(light: Picture) -> Gray:
    return _codes_u8(to_codes(light))


def _codes_u8(codes: Picture) -> Gray:
    return np.clip(codes * 255 + 0.5, 0, 255).astype(np.uint8)
