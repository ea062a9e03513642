"""Takes frames through the network and the blending of sharp details, in the order of the video."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from selfhvd_tta.errors import is_out_of_memory
from selfhvd_tta.flows import FlowEstimator, release
from selfhvd_tta.method import transfer
from selfhvd_tta.method.blur_field import Picture, halved
from selfhvd_tta.method.clues import Clues
from selfhvd_tta.method.composite import Merger, merge
from selfhvd_tta.method.explaining import WINDOW, Explainer, aligned_width
from selfhvd_tta.method.exposure import Exposure
from selfhvd_tta.method.restoration import Restart, Restorer
from selfhvd_tta.method.teachers import choose_teachers
from selfhvd_tta.run import feeds
from selfhvd_tta.run.blur import Blur
from selfhvd_tta.run.deadline import Deadline
from selfhvd_tta.run.equipment import Equipment
from selfhvd_tta.settings import AlignmentSettings, Settings
from selfhvd_tta.video.background import ahead
from selfhvd_tta.video.reader import Frame

OpenFrames = Callable[[int], Iterator[Frame]]


@dataclass(frozen=True)
class RestoredFrame:
    """One frame's way through the method.

    Attributes:
        index: position in the video.
        pts: its presentation time, as the source of the frames has it.
        network: the network's output, (3, H, W) float in [0, 1]; the input where there is no network.
        blended: with sharp details blended in; ``network`` itself where nothing is.
        recorded: the frame as decoded, (H, W, 3) uint8 or uint16.
    """

    index: int
    pts: int
    network: Tensor
    blended: Tensor
    recorded: np.ndarray


def mixed(result: RestoredFrame, strength: float) -> Tensor:
    """The frame to write, (3, H, W) float in [0, 1]: recorded + strength * (blended - recorded)."""
    if strength == 1:
        return result.blended
    return torch.lerp(feeds.to_tensor(result.recorded, result.blended.device), result.blended, strength)


@dataclass(frozen=True)
class Details:
    """What blending needs: the flow, how teachers are chosen and merged, a network that merges, a limit of time."""

    estimator: FlowEstimator
    merger: Merger | None
    alignment: AlignmentSettings
    behind: int
    deadline: Deadline | None = None

    @classmethod
    def of(
        cls, estimator: FlowEstimator, merger: Merger | None, settings: Settings, deadline: Deadline | None = None
    ) -> Details:
        """Build it from the settings; ``behind`` is how far back a teacher can lie."""
        behind = max(settings.alignment.teacher_reach, 2 * settings.clues.segment)
        return cls(estimator, merger, settings.alignment, behind, deadline)

    def begin(self, open_frames: OpenFrames, clues: Clues, device: torch.device, first: int) -> Blender:
        """See :class:`Blending`."""
        return _WithDetails(self, open_frames, clues, device, first)

    def blend(self, index: int, observed: Tensor, current: Tensor, clues: Clues, sharp: feeds.SharpFeed) -> Tensor:
        """Sharp-detail transfer for one frame.

        Args:
            index: of the frame.
            observed: B, (3, H, W) in [0, 1].
            current: R, of the same shape and range.
            clues: of the video.
            sharp: gives the teachers.

        Returns:
            (3, H, W); ``current`` itself for a frame with nothing to learn.
        """
        alignment = self.alignment
        if self.deadline is not None:
            alignment = replace(alignment, teachers=self.deadline.teachers(index, alignment.teachers))
        teachers = choose_teachers(index, clues, alignment)
        if not teachers.others:
            return current
        economy, device = self.estimator.economy, observed.device

        def work() -> Tensor:
            estimator, recorded, base = (
                economy.module(self.estimator),
                economy.placed(observed[None]),
                economy.placed(current[None]),
            )
            merger = economy.module(self.merger) if self.merger is not None else None
            sharps = [sharp.get(j, index, recorded.device) for j in teachers.others]
            candidates, out = merger.candidates if merger is not None else 0, base
            for _ in range(alignment.rounds):
                composite = transfer.compose(recorded, out, sharps, teachers, estimator, alignment, candidates)
                out = merge(composite, recorded, base, merger)
            return out[0].to(device)

        blended = economy.run(work, "blending sharp details in", device)
        if self.deadline is not None:
            self.deadline.count(len(teachers.others))
        return blended


class Blending(Protocol):
    """How recorded frames become better ones; :class:`Details` by one blur path a frame, :class:`LocalDetails`."""

    def begin(self, open_frames: OpenFrames, clues: Clues, device: torch.device, first: int) -> Blender:
        """Start at frame ``first`` of a video."""


class Blender(Protocol):
    """A :class:`Blending` applied to one video."""

    def blend(self, frame: Frame, current: Tensor) -> Tensor:
        """The next frame, (3, H, W) in [0, 1].

        Args:
            frame: as recorded.
            current: what the network makes of it, (3, H, W) in [0, 1]; the frame itself without one.
        """

    def close(self) -> None:
        """Stop reading."""


class _WithDetails:
    """See :class:`Details`."""

    def __init__(
        self, details: Details, open_frames: OpenFrames, clues: Clues, device: torch.device, first: int
    ) -> None:
        self.details, self.clues, self.device = details, clues, device
        opened = ahead(open_frames(max(0, first - details.behind)))
        self.sharp = feeds.SharpFeed(opened, clues, details.behind)

    def blend(self, frame: Frame, current: Tensor) -> Tensor:
        observed = feeds.to_tensor(frame.rgb, self.device)
        return self.details.blend(frame.index, observed, current, self.clues, self.sharp)

    def close(self) -> None:
        self.sharp.close()


@dataclass(frozen=True)
class LocalDetails:
    """Blending where motion differs from place to place.

    Attributes:
        exposure: of the video.
        network: the frames come out of a network, not as recorded.
        warn: told in one line if memory asks for less.
    """

    exposure: Exposure
    network: bool
    warn: Callable[[str], None] = lambda text: None

    def begin(self, open_frames: OpenFrames, clues: Clues, device: torch.device, first: int) -> Blender:
        """See :class:`Blending`."""
        return _Explaining(self, open_frames, clues, device, first)


def blending(blur: Blur | None, gear: Equipment, settings: Settings, deadline: Deadline | None = None) -> Blending:
    """The blending that suits the blur of a video; one path per frame if the blur is not known.

    Args:
        blur: of the video; None if it is not known.
        gear: flow and networks.
        settings: all settings.
        deadline: heeded where there is one path per frame.
    """
    if blur is not None and blur.local:
        return LocalDetails(blur.exposure, gear.network is not None, gear.flow.economy.warn)
    return Details.of(gear.flow, gear.merger, settings, deadline)


class _Explaining:
    """See :class:`LocalDetails`. The arithmetic is that of the CPU on every device.

    When memory runs out, frames are explained at half their size, and what that changes is added to them.
    """

    def __init__(
        self, details: LocalDetails, open_frames: OpenFrames, clues: Clues, device: torch.device, first: int
    ) -> None:
        self.device, self.details, self.clues = device, details, clues
        start = max(0, first - WINDOW)
        self.window = feeds.WindowFeed(ahead(open_frames(start)), start, WINDOW)
        self.explainer = Explainer(self.window.get, clues, details.exposure)
        self.half_size = False

    def blend(self, frame: Frame, current: Tensor) -> Tensor:
        self.window.present = frame.index
        restored = feeds.to_array(current) if self.details.network else None
        try:
            codes = self._explained(frame, restored)
        except Exception as error:
            if self.half_size or not is_out_of_memory(error):
                raise
            codes = None
        if codes is None:
            self._halve(*frame.rgb.shape[:2])
            codes = self._explained(frame, restored)
        return torch.from_numpy(codes).to(self.device).permute(2, 0, 1)

    def _explained(self, frame: Frame, restored: Picture | None) -> Picture:
        if not self.half_size:
            return self.explainer.explain(frame.index, restored)
        small = self.explainer.explain(frame.index, None if restored is None else halved(restored))
        recorded = frame.rgb * np.float32(1 / np.iinfo(frame.rgb.dtype).max)
        height, width = recorded.shape[:2]
        change = cv2.resize(small - halved(recorded), (width, height), interpolation=cv2.INTER_LINEAR)
        return np.clip(recorded + change, 0, 1)

    def _halve(self, height: int, width: int) -> None:
        """From now on with frames of half the size."""
        self.half_size, exposure = True, self.details.exposure
        shorter = aligned_width((height + 1) // 2, (width + 1) // 2) / aligned_width(height, width)
        exposure = replace(exposure, length=exposure.length * shorter)
        self.explainer = Explainer(lambda index: halved(self.window.get(index)), self.clues, exposure)
        release(self.device)
        self.details.warn("memory ran out while explaining blur: continuing at half the size")

    def close(self) -> None:
        self.window.close()


@dataclass(frozen=True)
class Mark:
    """A place in the video from which the frame loop can be resumed.

    Attributes:
        shot: first frame of the shot.
        restart: how the network continues there.
    """

    shot: int
    restart: Restart

    @property
    def frame(self) -> int:
        """First frame of the video for which it can be used."""
        return self.shot + self.restart.valid_from


@dataclass(frozen=True)
class Place:
    """Where the frame loop begins, and what it leaves for a later run.

    Attributes:
        first: frame to begin with; the ones before are done.
        mark: the last one at or before ``first``; without one, a network starts with the shot.
        keep: gets a mark now and then, after the results before it were taken.
    """

    first: int = 0
    mark: Mark | None = None
    keep: Callable[[Mark], None] | None = None


def run_frames(
    open_frames: OpenFrames,
    clues: Clues,
    device: torch.device,
    restorer: Restorer | None,
    details: Blending | None,
    place: Place = Place(),
) -> Iterator[RestoredFrame]:
    """Everything that is done to the frames of a video once the network has its weights.

    Decoding runs ahead in threads of its own; the order of the computations, and so the result, does not depend on it.

    Args:
        open_frames: frames of the video in order from the given index on, as often as asked for.
        clues: of the video.
        device: to compute on.
        restorer: the network; None hands the frames on as they are.
        details: blends sharp details in; None leaves the network's output.
        place: where to begin, and what is kept for a later run.

    Yields:
        One result per frame from ``place.first`` on, in order.
    """
    first, mark, keep = place.first, place.mark, place.keep
    shots = [shot for shot in clues.shots if shot.stop > first]
    if not shots:
        return
    restart = Restart()
    if mark is not None and mark.shot == shots[0].start and mark.frame <= first:
        restart = mark.restart
    if restorer is None:
        begin = max(0, first - shots[0].start)
        restart = Restart(begin, begin, begin)
    start = shots[0].start + restart.output_from
    inflight = feeds.Inflight(ahead(open_frames(start)), device)
    blender = details.begin(open_frames, clues, device, first) if details is not None else None
    try:
        for shot in shots:
            # The network of an interrupted run had seen these already.
            inflight.skip(restart.feed_from - restart.output_from)
            frames = inflight.feed(len(shot) - restart.feed_from)
            outputs = restorer.restore(frames, restart) if restorer else frames
            for index, output in zip(shot[restart.output_from :], outputs, strict=True):
                frame = inflight.collect()
                if index < first:
                    continue
                blended = blender.blend(frame, output) if blender is not None else output
                yield RestoredFrame(index, frame.pts, output, blended, frame.rgb)
                if keep and restorer and restorer.boundary_at == index + 1 - shot.start:
                    mark = Mark(shot.start, restorer.boundary())
                    # With the whole shot fed, a later run would have no frame left to open the network with.
                    if mark.restart.feed_from < len(shot):
                        keep(mark)
            restart = Restart()
    finally:
        inflight.close()
        if blender is not None:
            blender.close()
