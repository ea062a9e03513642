"""Baseline after DADeblur (He et al., "Domain-adaptive Video Deblurring via Test-time Blurring", ECCV 2024).

The parts of the video that are blurred least, wherever they are, get the blur of other parts, and the network is
fine-tuned to undo it: a clip of ``clip_length`` frames whose middle one was blurred again.

What is DADeblur's: a share of patches relative to the video (its own ``relative_sharpness_ratio`` of 0.2 per frame),
neighbours left as they are, blur conditions of the video itself. What is not: it finds patches and blur conditions by
networks of its own, blurs by a diffusion network (ID-Blau), draws conditions that resemble the video's, and fine-tunes
by a squared error; here both are measured by optical flow and the exposure share, patches are blurred along the motion
of another place of the video, and the loss is that of stage 1. Its figures are therefore not DADeblur's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from selfhvd_tta.errors import InputError
from selfhvd_tta.events import Listener, Note, Progress
from selfhvd_tta.method.blur_field import FlowArray, blurred, to_codes, to_light, velocity
from selfhvd_tta.method.exposure import Exposure
from selfhvd_tta.method.labels import Rows
from selfhvd_tta.method.objective import objective
from selfhvd_tta.method.pace import Pace
from selfhvd_tta.method.sampling import Draw
from selfhvd_tta.method.state import AdaptationState, snapshot
from selfhvd_tta.method.supervision import Inputs, Lesson
from selfhvd_tta.method.working_set import Box
from selfhvd_tta.settings import Settings

PHASE, MEASURING = "re-blur", "motion"
RATIO = 0.2  # patches per frame that count as relatively sharp
TEXTURE = 4.0  # least standard deviation of a patch, code values: a flat one teaches nothing
LEAST_BLUR = 1.0  # pixels; a shorter blur to learn from is none


@dataclass(frozen=True)
class Patch:
    """A place in a frame.

    Attributes:
        row: of the working set.
        box: top, left, height, width.
        blur: mean length of its blur in pixels.
    """

    row: int
    box: Box
    blur: float


class RelativelySharp:
    """Relatively sharp patches are blurred by the motion of others. Arguments: see
    :class:`selfhvd_tta.method.supervision.Supervision`."""

    phases: tuple[str, ...] = (PHASE,)

    def __init__(
        self, inputs: Inputs, settings: Settings, state: AdaptationState, pace: Pace, listen: Listener
    ) -> None:
        self.inputs, self.settings, self.state, self.listen = inputs, settings, state, listen
        self.motion: dict[int, FlowArray] = {}
        self.share = 0.0
        self.sharp: list[Patch] = []
        self.blurry: list[Patch] = []

    def renews(self, step: int) -> bool:
        """Good weights are kept as often as labels are renewed elsewhere."""
        return step % self.settings.adaptation.refresh_every == 0

    def prepare(self, stage2: bool) -> bool:
        """Before the first step, measure the motion of all frames."""
        if not self.motion:
            self.rebuild()
        if self.renews(self.state.step):
            self.state.good = snapshot(self.inputs.network)
        return True

    def to_host(self) -> bool:
        """See :class:`selfhvd_tta.method.supervision.Supervision`."""
        found = self.inputs.in_host_memory()
        self.inputs = found or self.inputs
        return found is not None

    def after_step(self) -> None:
        """Nothing is left to do."""

    def finish(self) -> None:
        """Nothing is left to do."""

    def rebuild(self) -> None:
        """Motion and exposure share of the video, and its patches by the length of their blur.

        Raises:
            InputError: no patch is blurred, or none is sharper than others.
        """
        working = self.inputs.working
        self.motion = {row: v for run in working.runs for row, v in self._measured(run)}
        blurry = [row for row in self.motion if not working.clues.sharp[row]] or list(self.motion)
        self.share = Exposure.of((self._luma(row), self.motion[row]) for row in blurry).share
        patches = sorted((p for row in self.motion for p in self._patches(row)), key=lambda patch: patch.blur)
        count = max(1, round(RATIO * len(self.motion)))
        self.sharp, self.blurry = patches[:count], [p for p in patches[count:] if p.blur >= LEAST_BLUR]
        if not self.sharp or not self.blurry:
            raise InputError("no blur was found that sharper patches could be given", "Leave out --method reblur.")
        median = float(np.median([p.blur for p in self.blurry]))
        text = f"{len(self.sharp)} patches with {self.sharp[-1].blur:.1f} px of blur or less"
        self.listen(Note(f"{text} are blurred like the others, {median:.1f} px in the middle"))

    def lesson(self, stage2: bool) -> Lesson:
        """Clips around relatively sharp patches, whose middle frame was blurred again and alone counts."""
        inputs, plan = self.inputs, self.settings.adaptation
        pairs = [self.pair() for _ in range(plan.batch)]
        clips, truths, places = zip(*pairs, strict=True)

        def terms(output: Tensor) -> dict[str, Tensor]:
            shown = torch.stack([out[place] for out, place in zip(output, places, strict=True)])[None]
            target = torch.stack(truths)[None]
            weight = torch.ones_like(target[:, :, 0, 0, 0])
            nobody = torch.zeros_like(weight, dtype=torch.bool)
            rows = Rows(target, torch.ones_like(target[:, :, :1]), target, nobody, weight)
            return objective(shown, rows, weight, inputs.perceive, plan, stage2=False)

        return Lesson(torch.stack(clips), terms)

    def pair(self) -> tuple[Tensor, Tensor, int]:
        """A clip (T, 3, h, w) as shown, the truth (3, h, w) of one of its frames, and which one that is."""
        working, rng = self.inputs.working, self.state.rng
        patch = self.sharp[int(rng.integers(len(self.sharp)))]
        other = self.blurry[int(rng.integers(len(self.blurry)))]
        rows = self._around(patch.row)
        turn = int(rng.integers(4)) if patch.box[2] == patch.box[3] else 2 * int(rng.integers(2))
        draw = Draw(rows, rows, patch.box, turn, bool(rng.integers(2)))
        clip = working.shown(rows, patch.box, self.inputs.compute.device)
        place = rows.index(patch.row)
        truth = clip[place].clone()
        light = to_light(truth.permute(1, 2, 0).cpu().numpy())
        code = to_codes(blurred(light, _cut(self.motion[other.row], other.box), self.share))
        clip[place] = torch.from_numpy(np.rint(code * 255) / 255).permute(2, 0, 1).to(clip)
        return draw.turned(clip), draw.turned(truth), place

    def _measured(self, run: range) -> list[tuple[int, FlowArray]]:
        if len(run) < 2:
            return []
        working, device, flow = self.inputs.working, self.inputs.compute.device, self.inputs.estimator
        forward: list[FlowArray] = []
        backward: list[FlowArray] = []
        with torch.no_grad():
            for row in run[:-1]:
                there, back = flow.both(working.observed(row, device), working.observed(row + 1, device))
                forward.append(_array(there.flow))
                backward.append(_array(back.flow))
                self.listen(Progress(MEASURING, row + 1, len(working)))
        return [
            (
                row,
                velocity(
                    forward[k] if k < len(forward) else None,
                    backward[k - 1] if k else None,
                ),
            )
            for k, row in enumerate(run)
        ]

    def _luma(self, row: int) -> np.ndarray:
        return np.rint(self.inputs.working.frames[row].float().mean(0).cpu().numpy()).astype(np.uint8)

    def _patches(self, row: int) -> list[Patch]:
        """Patches of the size of a crop, half overlapping, that have texture."""
        luma, motion = self._luma(row), self.motion[row]
        height, width = luma.shape
        h, w = min(self.settings.adaptation.side, height), min(self.settings.adaptation.side, width)
        length = self.share * np.hypot(motion[..., 0], motion[..., 1])
        boxes = [(top, left, h, w) for top in _starts(height, h) for left in _starts(width, w)]
        return [Patch(row, box, float(_cut(length, box).mean())) for box in boxes if _cut(luma, box).std() >= TEXTURE]

    def _around(self, row: int) -> tuple[int, ...]:
        """Rows of a clip with this one in its middle, as far as the run goes."""
        run = next(run for run in self.inputs.working.runs if row in run)
        length = min(self.settings.adaptation.length, len(run))
        start = min(max(row - length // 2, run.start), run.stop - length)
        return tuple(range(start, start + length))


def _starts(size: int, part: int) -> list[int]:
    """Starts of parts that cover a length, half overlapping."""
    count = -(-2 * (size - part) // part) + 1
    return sorted({int(s) for s in np.linspace(0, size - part, count).round()})


def _cut(array: np.ndarray, box: Box) -> np.ndarray:
    top, left, height, width = box
    return array[top : top + height, left : left + width]


def _array(flow: Tensor) -> FlowArray:
    """(1, 2, H, W) to (H, W, 2)."""
    return np.ascontiguousarray(flow[0].permute(1, 2, 0).float().cpu().numpy())
