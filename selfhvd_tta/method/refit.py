"""Baseline after Ren et al., "Video Deblurring by Fitting to Test Data" (arXiv 2012.05228).

The network is fine-tuned on the sharp frames of the video, blurred again by random motion kernels; nothing is aligned.

What is ours: a network for videos gets clips, in which the blurry frames stay as they are, most of the sharp ones are
blurred again, and only these and the sharp ones that are left are compared with what they should be. Kernels are drawn
around the blur paths that the fit of the global motion finds in the video itself (flow ``embedded``), else at random.

What it does not do: put back the noise that blurring averages away, blur with more than one kernel per frame, or model
the codec.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from selfhvd_tta.events import Note, Progress
from selfhvd_tta.flows import BlurPath
from selfhvd_tta.method import losses
from selfhvd_tta.method.adaptation import Adaptation
from selfhvd_tta.method.pace import Pace
from selfhvd_tta.method.sampling import Draw, draw_clips

PHASE, MEASURING = "refit", "blur paths"
# Share of the sharp frames of a clip that are blurred again; the others stay, for blurry ones have sharp neighbours.
REBLURRED = 0.75
# Blurry frames whose blur is measured, and how many of them have to give one.
MEASURED, FEWEST = 24, 4
SHORTEST = 1.0  # pixels; what is shorter is no blur to learn from
LONGEST = 0.1  # of the longer side; what is longer is a failed fit
JITTER = (0.7, 1.3)  # factor on a measured path
RANDOM_LENGTH = (2.0, 0.03)  # pixels; share of the longer side
RANDOM_BEND = 0.3  # most bend of a random path, as a share of its velocity


class Refit(Adaptation):
    """Fine-tunes ``network`` in place on the sharp frames of one video; arguments as :class:`Adaptation`.

    All steps are of one kind (stages, SEVD, SCSCM and labels play no part); optimiser, learning rate, crops, losses
    and checkpoints are those of the adaptation.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        plan = replace(self.settings.adaptation, stage1=1.0, teacher="bank", early_stop=False)
        self.settings = replace(self.settings, adaptation=plan)
        self.pace = _Pace(plan.iters, 1.0, self.pace.until)
        # Otsu's threshold lets frames through that are a good deal less sharp than others: they teach nothing.
        self.sources = self.own_label.cpu().numpy()
        self.paths: list[BlurPath] | None = None

    def refresh(self, step: int, stage2: bool) -> None:
        """There are no labels; before the first step, learn what blur the video has."""
        self._relabel(stage2)

    def _relabel(self, stage2: bool) -> None:
        if self.paths is not None:
            return
        self.paths = measured_paths(self) if self.estimator.measures_blur else []
        if len(self.paths) >= FEWEST:
            lengths = sorted(path.length for path in self.paths)
            text = f"sharp frames are blurred like the video: {len(lengths)} paths, {lengths[len(lengths) // 2]:.1f} px"
        else:
            self.paths = []
            text = "sharp frames are blurred at random (flow embedded, where it fits, measures the video's own blur)"
        self.listen(Note(text))

    def step(self, stage2: bool, live: bool) -> tuple[tuple[str, ...], Tensor]:
        """One optimiser step on clips whose sharp frames were blurred again."""
        plan = self.settings.adaptation
        draws = draw_clips(self.working, plan, self.rng, degrade=False, wanted=self.sources)
        self.network.train()
        clips, truths, weights = zip(*(self._pair(draw) for draw in draws), strict=True)
        with self.compute.context():
            output = self.network(torch.stack(clips))
        weight = torch.stack(weights)
        counts = weight > 0
        shown, target = output.float()[counts][None], torch.stack(truths)[counts][None]
        weight = weight[counts][None]
        weight = weight / weight.mean()
        mask = torch.ones_like(target[:, :, :1])
        beta = plan.perceptual_weight if self.features is not None else 0.0
        reconstruction = losses.reconstruction_loss(shown, target, mask, weight)
        perceptual = output.new_zeros(())
        if beta and self.features is not None:
            perceptual = losses.perceptual_loss(self.features, shown, target, mask, weight)
        loss = losses.stage1_objective(reconstruction, perceptual, beta)
        return self._descend({"loss": loss, "rec": reconstruction, "vgg": perceptual})

    def _pair(self, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
        """Input (T, 3, h, w), what it should become, and the weight (T,) of every position."""
        truth = self.bank.shown(draw.rows, draw.box)
        clip = truth.clone()
        places = [p for p, row in enumerate(draw.rows) if self.sources[row]]
        chosen = [p for p in places if self.rng.random() < REBLURRED]
        if places and not chosen:
            chosen = [places[int(self.rng.integers(len(places)))]]
        weight = [self.settings.adaptation.sharp_weight if p in places else 0.0 for p in range(len(draw.rows))]
        for p in chosen:
            weight[p] = 1.0
            clip[p] = reblurred(self.bank.frames[draw.rows[p]], draw.box, kernel(self.draw_path())).to(clip)
        return draw.turned(clip), draw.turned(truth), torch.tensor(weight).to(clip)

    def draw_path(self) -> BlurPath:
        """A blur path for one frame: like one of the video, or a random one."""
        if self.paths:
            path = self.paths[int(self.rng.integers(len(self.paths)))]
            return path.scaled(float(self.rng.uniform(*JITTER)))
        side = max(self.working.frames.shape[-2:])
        speed = self.rng.uniform(RANDOM_LENGTH[0], max(RANDOM_LENGTH[0], RANDOM_LENGTH[1] * side)) / 2
        angle, towards = self.rng.uniform(0, 2 * math.pi, 2)
        bend = self.rng.uniform(0, RANDOM_BEND) * speed
        return BlurPath(
            (float(speed * math.cos(angle)), float(speed * math.sin(angle))),
            (float(bend * math.cos(towards)), float(bend * math.sin(towards))),
        )


class _Pace(Pace):
    def progress(self, step: int, values: tuple[tuple[str, float], ...]) -> Progress:
        return replace(super().progress(step, values), phase=PHASE)


def measured_paths(adaptation: Adaptation) -> list[BlurPath]:
    """Blur of some of the blurry frames, relative to the sharp frame nearest to each; those that could be fitted."""
    working = adaptation.working
    blurry = np.flatnonzero(~working.clues.sharp)
    picked = blurry[np.unique(np.linspace(0, len(blurry) - 1, min(MEASURED, len(blurry))).round().astype(int))]
    longest = LONGEST * max(working.frames.shape[-2:])
    found = []
    for done, row in enumerate(picked.tolist(), 1):
        source, target = (adaptation.bank.observed(r) for r in (row, int(working.clues.nearest[row])))
        path = adaptation.estimator.blur(source, target)
        if path is not None and SHORTEST <= path.length <= longest:
            found.append(path)
        adaptation.listen(Progress(MEASURING, done, len(picked)))
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
    """A crop of a frame, blurred in linear light by what lies around it too.

    Args:
        frame: (3, H, W) uint8; beyond its borders the last pixels go on.
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


LEARNERS: dict[str, type[Adaptation]] = {"adapt": Adaptation, "refit": Refit}
