"""Baseline after Ren et al., "Video Deblurring by Fitting to Test Data" (arXiv 2012.05228).

The network is fine-tuned on the sharp frames of the video, blurred again by random motion kernels; nothing is aligned.

What is ours: a network for videos gets clips, in which the blurry frames stay as they are, most of the sharp ones are
blurred again, and only these and the sharp ones that are left are compared with what they should be. Kernels are drawn
around the blur paths that the fit of the global motion finds in the video itself (flow ``embedded``), else at random.

It does not restore the noise that blurring averages away, blur with more than one kernel per frame, or model
the codec.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from selfhvd_tta.events import Listener, Note, Progress
from selfhvd_tta.flows import BlurPath
from selfhvd_tta.method.labels import Rows
from selfhvd_tta.method.objective import objective
from selfhvd_tta.method.pace import Pace
from selfhvd_tta.method.sampling import Draw, draw_clips
from selfhvd_tta.method.state import AdaptationState, snapshot
from selfhvd_tta.method.supervision import Inputs, Lesson, own_labels
from selfhvd_tta.settings import Settings

PHASE, MEASURING = "refit", "blur paths"
# Share of the sharp frames of a clip that are blurred again; the others stay, because real ones have sharp neighbours.
REBLURRED = 0.75
# Blurry frames whose blur is measured, and how many measurements have to succeed.
MEASURED, FEWEST = 24, 4
SHORTEST = 1.0  # pixels; a shorter blur teaches nothing
LONGEST = 0.1  # of the longer side; a longer blur is a failed fit
JITTER = (0.7, 1.3)  # factor on a measured path
RANDOM_LENGTH = (2.0, 0.03)  # pixels; share of the longer side
RANDOM_BEND = 0.3  # most bend of a random path, as a share of its velocity


class ReblurredSupervision:
    """Sharp frames of the video are blurred again and supervise themselves. Arguments: see :class:`Supervision`.

    All steps are of one kind; stages, SEVD, SCSCM and labels play no part.
    """

    phases: tuple[str, ...] = (PHASE,)

    def __init__(
        self, inputs: Inputs, settings: Settings, state: AdaptationState, pace: Pace, listen: Listener
    ) -> None:
        self.inputs, self.settings, self.state, self.listen = inputs, settings, state, listen
        # Otsu's threshold also selects frames that are much less sharp than others: they teach nothing.
        self.sources = own_labels(inputs, settings).cpu().numpy()
        self.paths: list[BlurPath] | None = None

    def renews(self, step: int) -> bool:
        """Good weights are stored as often as the other kinds of supervision renew labels."""
        return step % self.settings.adaptation.refresh_every == 0

    def prepare(self, stage2: bool) -> bool:
        """Before the first step, measure the blur of the video."""
        if self.paths is None:
            self.rebuild()
        if self.renews(self.state.step):
            self.state.good = snapshot(self.inputs.network)
        return True

    def lesson(self, stage2: bool) -> Lesson:
        """Clips whose sharp frames were blurred again; only sharp frames count."""
        inputs, plan = self.inputs, self.settings.adaptation
        draws = draw_clips(inputs.working, plan, self.state.rng, degrade=False, wanted=self.sources)
        clips, truths, weights = (torch.stack(each) for each in zip(*map(self.pair, draws), strict=True))

        def terms(output: Tensor) -> dict[str, Tensor]:
            counts = weights > 0
            shown, target = output[counts][None], truths[counts][None]
            weight = weights[counts][None]
            weight = weight / weight.mean()
            mask = torch.ones_like(target[:, :, :1])
            nobody = torch.zeros_like(weight, dtype=torch.bool)
            rows = Rows(target, mask, target, nobody, weight)
            return objective(shown, rows, weight, inputs.perceive, plan, stage2=False)

        return Lesson(clips, terms)

    def to_host(self) -> bool:
        """See :class:`Supervision`."""
        found = self.inputs.in_host_memory()
        self.inputs = found or self.inputs
        return found is not None

    def after_step(self) -> None:
        """Nothing to do."""

    def finish(self) -> None:
        """Nothing to do."""

    def rebuild(self) -> None:
        """Measure the blur of the video."""
        self.paths = measured_paths(self.inputs, self.listen) if self.inputs.estimator.measures_blur else []
        if len(self.paths) >= FEWEST:
            lengths = sorted(path.length for path in self.paths)
            text = f"sharp frames are blurred like the video: {len(lengths)} paths, {lengths[len(lengths) // 2]:.1f} px"
        else:
            self.paths = []
            text = "sharp frames are blurred at random (flow embedded, where it fits, measures the video's own blur)"
        self.listen(Note(text))

    def pair(self, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
        """Input (T, 3, h, w), its target, and the weight (T,) of every position."""
        working, rng = self.inputs.working, self.state.rng
        truth = working.shown(draw.rows, draw.box, self.inputs.compute.device)
        clip = truth.clone()
        places = [p for p, row in enumerate(draw.rows) if self.sources[row]]
        chosen = [p for p in places if rng.random() < REBLURRED]
        if places and not chosen:
            chosen = [places[int(rng.integers(len(places)))]]
        weight = [self.settings.adaptation.sharp_weight if p in places else 0.0 for p in range(len(draw.rows))]
        for p in chosen:
            weight[p] = 1.0
            clip[p] = reblurred(working.frames[draw.rows[p]], draw.box, kernel(self.draw_path())).to(clip)
        return draw.turned(clip), draw.turned(truth), torch.tensor(weight).to(clip)

    def draw_path(self) -> BlurPath:
        """A blur path for one frame: like one of the video, or a random one."""
        rng = self.state.rng
        if self.paths:
            path = self.paths[int(rng.integers(len(self.paths)))]
            return path.scaled(float(rng.uniform(*JITTER)))
        side = max(self.inputs.working.frames.shape[-2:])
        speed = rng.uniform(RANDOM_LENGTH[0], max(RANDOM_LENGTH[0], RANDOM_LENGTH[1] * side)) / 2
        angle, towards = rng.uniform(0, 2 * math.pi, 2)
        bend = rng.uniform(0, RANDOM_BEND) * speed
        return BlurPath(
            (float(speed * math.cos(angle)), float(speed * math.sin(angle))),
            (float(bend * math.cos(towards)), float(bend * math.sin(towards))),
        )


def measured_paths(inputs: Inputs, listen: Listener) -> list[BlurPath]:
    """Blur of some of the blurry frames, relative to the sharp frame nearest to each; those that could be fitted."""
    working, device = inputs.working, inputs.compute.device
    blurry = np.flatnonzero(~working.clues.sharp)
    picked = blurry[np.unique(np.linspace(0, len(blurry) - 1, min(MEASURED, len(blurry))).round().astype(int))]
    longest = LONGEST * max(working.frames.shape[-2:])
    found = []
    for done, row in enumerate(picked.tolist(), 1):
        source, target = (working.observed(r, device) for r in (row, int(working.clues.nearest[row])))
        path = inputs.estimator.blur(source, target)
        if path is not None and SHORTEST <= path.length <= longest:
            found.append(path)
        listen(Progress(MEASURING, done, len(picked)))
    return found


def kernel(path: BlurPath) -> Tensor:
    """The path as a kernel for correlation, (k, k) float32 of odd sides and sum 1, mid-exposure in its centre."""
    count = max(41, 4 * math.ceil(path.length))
    times = (np.arange(count) + 0.5) * 2 / count - 1
    points = times[:, None] * np.array(path.velocity) + times[:, None] ** 2 * np.array(path.bend)
    reach = int(np.ceil(np.abs(points).max())) + 1
    steps = np.arange(-reach, reach + 1)
    along_x, along_y = (np.maximum(1 - np.abs(steps - points[:, axis, None]), 0) for axis in (0, 1))
    return torch.from_numpy((along_y.T @ along_x / count).astype(np.float32))


def reblurred(frame: Tensor, box: Sequence[int], weights: Tensor) -> Tensor:
    """A crop of a frame, blurred in linear light; its surroundings blur into it.

    Args:
        frame: (3, H, W) uint8; its border pixels are repeated beyond the border.
        box: top, left, height, width of the crop.
        weights: (k, k) kernel.

    Returns:
        (3, height, width) float in [0, 1], rounded to 8 bits as the frames of the video are.
    """
    top, left, height, width = box
    reach = weights.shape[0] // 2
    rows = torch.arange(top - reach, top + height + reach, device=frame.device).clamp(0, frame.shape[1] - 1)
    columns = torch.arange(left - reach, left + width + reach, device=frame.device).clamp(0, frame.shape[2] - 1)
    light = to_linear(frame[:, rows][:, :, columns].float() / 255)
    blurred = F.conv2d(light[:, None], weights[None, None].to(light))[:, 0]
    return (from_linear(blurred) * 255).round() / 255


def to_linear(code: Tensor) -> Tensor:
    """sRGB values in [0, 1] to linear light."""
    return torch.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)


def from_linear(light: Tensor) -> Tensor:
    """The inverse of :func:`to_linear`."""
    light = light.clamp(0, 1)
    return torch.where(light <= 0.0031308, 12.92 * light, 1.055 * light.clamp(min=1e-8) ** (1 / 2.4) - 0.055)
