"""Frames through the network and the blending of sharp details, one after the other, in the order of the video."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from selfhvd_tta import feeds
from selfhvd_tta.flows import FlowEstimator
from selfhvd_tta.method import transfer
from selfhvd_tta.method.clues import Clues
from selfhvd_tta.method.restoration import Restorer
from selfhvd_tta.settings import AlignmentSettings, Settings
from selfhvd_tta.video.background import ahead
from selfhvd_tta.video.reader import Frame

OpenFrames = Callable[[int], Iterator[Frame]]


@dataclass(frozen=True)
class Result:
    """One frame's way through the method.

    Attributes:
        index: position in the video.
        pts: its presentation time, as the source of the frames has it.
        network: the network's output, (3, H, W) float in [0, 1]; the input where there is no network.
        blended: with sharp details blended in; ``network`` itself where nothing is.
    """

    index: int
    pts: int
    network: Tensor
    blended: Tensor


@dataclass(frozen=True)
class Details:
    """What blending needs: the flow, and how teachers are chosen and merged."""

    estimator: FlowEstimator
    alignment: AlignmentSettings
    behind: int

    @classmethod
    def of(cls, estimator: FlowEstimator, settings: Settings) -> Details:
        """As the settings have it; ``behind`` is how far back a teacher can lie."""
        return cls(estimator, settings.alignment, max(settings.alignment.teacher_reach, 2 * settings.clues.segment))

    def blend(self, index: int, observed: Tensor, current: Tensor, clues: Clues, sharp: feeds.SharpFeed) -> Tensor:
        """Sharp-detail transfer for one frame.

        Args:
            index: of the frame.
            observed: B, (3, H, W) in [0, 1].
            current: R, likewise.
            clues: of the video.
            sharp: gives the teachers.

        Returns:
            (3, H, W); ``current`` itself for a frame with nothing to learn.
        """
        ranked = transfer.rank_teachers(index, clues, self.alignment)
        if ranked == [index]:
            return current
        sharps = [sharp.get(j, index, observed.device) for j in ranked]
        base, out = current[None], current[None]
        for _ in range(self.alignment.rounds):
            composite = transfer.compose(observed[None], out, sharps, self.estimator, self.alignment)
            out = transfer.apply(composite, base)
        return out[0]


def run_frames(
    open_frames: OpenFrames,
    clues: Clues,
    device: torch.device,
    restorer: Restorer | None,
    details: Details | None,
) -> Iterator[Result]:
    """Everything that is done to the frames of a video once the network has its weights.

    Decoding runs ahead in threads of its own; the order of the computations, and so the result, does not depend on it.

    Args:
        open_frames: frames of the video in order from the given index on, as often as asked for.
        clues: of the video.
        device: to compute on.
        restorer: the network; None hands the frames on as they are.
        details: blends sharp details in; None leaves the network's output.

    Yields:
        One result per frame, in order.
    """
    inflight = feeds.Inflight(ahead(open_frames(0)), device)
    sharp = feeds.SharpFeed(ahead(open_frames(0)), clues, details.behind) if details is not None else None
    try:
        for shot in clues.shots:
            frames = inflight.feed(len(shot))
            for index, output in zip(shot, restorer.restore(frames) if restorer else frames, strict=True):
                frame = inflight.collect()
                blended = output
                if details is not None and sharp is not None:
                    observed = feeds.to_tensor(frame.rgb, device)
                    blended = details.blend(index, observed, output, clues, sharp)
                yield Result(index, frame.pts, output, blended)
    finally:
        inflight.close()
        if sharp is not None:
            sharp.close()
