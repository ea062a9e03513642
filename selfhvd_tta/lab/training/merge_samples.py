"""What the merging network learns from: frames of simulated clips, with all that a run knows of them at its end.

A clip goes the way of a video: its sharp frames are found, some of its frames get their teachers, the flow aligns
these, and :func:`~selfhvd_tta.method.transfer.compose` weighs them; a backbone's output accompanies it. The truth is
the simulator's frame at mid exposure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfhvd_tta.backbones.wrapper import Network
from selfhvd_tta.lab.simulation.simulate import SimulatedClip
from selfhvd_tta.lab.training.clip_files import ClipFiles
from selfhvd_tta.method.clues import Clues, laplacian_variance, local_contrast, select_clues
from selfhvd_tta.method.composite import Candidates, Composite
from selfhvd_tta.method.teachers import choose_teachers
from selfhvd_tta.method.transfer import compose
from selfhvd_tta.run.equipment import Equipment
from selfhvd_tta.run.networks import BUNDLED_FLOW
from selfhvd_tta.settings import AlignmentSettings, ClueSettings, RuntimeSettings, Settings

CANDIDATES = 3
# Frames of one clip that samples are made of: ones that are no clues, and clues.
SOFT, SHARP = 4, 1
# Share of samples with a limited number of teachers: in a video of mostly blurry frames there are few.
FEW, FEW_TEACHERS = 0.5, 4


@dataclass(frozen=True)
class MergeSample:
    """One frame.

    Attributes:
        observed: B, (1, 3, H, W) in [0, 1].
        current: R, the backbone's output, of the same shape.
        composite: with its candidates; of occlusion nothing is kept.
        truth: (1, 3, H, W) in [0, 1].
        extent: of its blur in pixels.
    """

    observed: Tensor
    current: Tensor
    composite: Composite
    truth: Tensor
    extent: float

    def mapped(self, change: Callable[[Tensor], Tensor]) -> MergeSample:
        """With every picture and map (n, C, H, W) changed in the same way."""
        found = self.composite.candidates
        assert found is not None
        candidates = replace(
            found,
            images=change(found.images),
            masks=change(found.masks),
            shares=change(found.shares),
            spread=change(found.spread),
            support=change(found.support),
        )
        mask = change(self.composite.mask)
        return replace(
            self,
            observed=change(self.observed),
            current=change(self.current),
            truth=change(self.truth),
            composite=Composite(change(self.composite.image), mask, mask, candidates),
        )


@dataclass(frozen=True)
class MergeSamples:
    """Samples of one clip, N of them, up to K candidates each; the missing ones are zero.

    Attributes:
        observed, current, truth, image: (N, 3, H, W) uint8; the last is the composite's.
        mask: (N, 1, H, W) uint8.
        images: (N, K, 3, H, W) uint8, of the candidates.
        masks, shares: (N, K, 1, H, W) uint8.
        spread, support: (N, 1, H, W) float16.
        found: (N,) number of candidates.
        own, equal: (N,) bool, see :class:`Candidates`.
        extent: (N,) float32, of the blur in pixels.
    """

    observed: NDArray[np.uint8]
    current: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    shares: NDArray[np.uint8]
    spread: NDArray[np.float16]
    support: NDArray[np.float16]
    found: NDArray[np.int64]
    own: NDArray[np.bool_]
    equal: NDArray[np.bool_]
    extent: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.observed)

    def sample(self, index: int, y: int = 0, x: int = 0, side: int | None = None) -> MergeSample:
        """One of them, or a square part of it."""
        window = (..., slice(y, None if side is None else y + side), slice(x, None if side is None else x + side))
        count = int(self.found[index])

        def picture(array: NDArray[Any]) -> Tensor:
            part = torch.from_numpy(np.ascontiguousarray(array[window])).float()
            return part / 255 if array.dtype == np.uint8 else part

        def one(array: NDArray[Any]) -> Tensor:
            return picture(array[index][None])

        mask = one(self.mask)
        candidates = Candidates(
            images=picture(self.images[index, :count]),
            masks=picture(self.masks[index, :count]),
            shares=picture(self.shares[index, :count]),
            spread=one(self.spread),
            support=one(self.support),
            own=bool(self.own[index]),
            equal=bool(self.equal[index]),
        )
        composite = Composite(one(self.image), mask, mask, candidates)
        extent = float(self.extent[index])
        return MergeSample(one(self.observed), one(self.current), composite, one(self.truth), extent)


@cache
def gear_of(backbone: str) -> Equipment:
    """The bundled flow and a backbone with its weights, on the CPU in float32; once per process.

    Raises:
        UsageError: no such backbone.
        WeightsError: its weights are not available.
    """
    return Equipment.load(
        Settings(
            method="transfer",
            backbone=backbone,
            detail=False,
            alignment=AlignmentSettings(flow=BUNDLED_FLOW),
            runtime=RuntimeSettings(device="cpu", precision="fp32"),
        )
    )


def clues_of(frames: NDArray[np.uint8]) -> Clues:
    """Sharp frames of (T, H, W, 3) uint8, as of a video of one shot."""
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    values = np.array([laplacian_variance(frame) for frame in grey])
    contrast = np.array([local_contrast(frame) for frame in grey])
    return select_clues(values, [range(len(frames))], ClueSettings(), contrast)


@torch.no_grad()
def outputs_of(network: Network, frames: Tensor, chosen: list[int]) -> Tensor:
    """The backbone's output for some frames of a clip (T, 3, H, W): (n, 3, H, W) in [0, 1]."""
    if network.backbone.temporal == "frame":
        return network(frames[chosen][None])[0].clamp(0, 1)
    return network(frames[None])[0][chosen].clamp(0, 1)


@torch.no_grad()
def make_samples(clip: SimulatedClip, gear: Equipment, generator: np.random.Generator) -> MergeSamples | None:
    """Samples of a clip; None if none of the frames drawn has a sharp one near it.

    Args:
        clip: of any size.
        gear: flow and backbone.
        generator: draws the frames, and how many teachers they have.
    """
    assert gear.network is not None
    settings = AlignmentSettings()
    clues = clues_of(clip.blurry)
    frames = torch.from_numpy(np.ascontiguousarray(clip.blurry)).permute(0, 3, 1, 2).float() / 255
    soft, sharp = (generator.permutation(np.flatnonzero(kind)) for kind in (~clues.sharp, clues.sharp))
    made: list[MergeSample] = []
    chosen = [int(index) for index in (*soft[:SOFT], *sharp[:SHARP])]
    for index, current in zip(chosen, outputs_of(gear.network, frames, chosen), strict=True):
        teachers = choose_teachers(index, clues, settings)
        if generator.random() < FEW:
            most = int(generator.integers(1, FEW_TEACHERS + 1))
            teachers = replace(teachers, others=teachers.others[:most], weights=teachers.weights[:most])
        if not teachers.others:
            continue
        sharps = [frames[j][None] for j in teachers.others]
        observed = frames[index][None]
        composite = compose(observed, current[None], sharps, teachers, gear.flow, settings, CANDIDATES)
        truth = torch.from_numpy(np.ascontiguousarray(clip.sharp[index])).permute(2, 0, 1)[None].float() / 255
        made.append(MergeSample(observed, current[None], composite, truth, float(clip.extent[index])))
    return _packed(made) if made else None


def _packed(samples: list[MergeSample]) -> MergeSamples:
    """Samples of one size as arrays."""
    composites = [sample.composite for sample in samples]
    found = [one.candidates for one in composites if one.candidates is not None]

    def bytes_of(pictures: list[Tensor]) -> NDArray[np.uint8]:
        return (torch.cat(pictures) * 255).round().clamp(0, 255).to(torch.uint8).numpy()

    def filled(stacks: list[Tensor]) -> NDArray[np.uint8]:
        empty = [stack.new_zeros(CANDIDATES - len(stack), *stack.shape[1:]) for stack in stacks]
        return bytes_of([torch.cat(pair)[None] for pair in zip(stacks, empty, strict=True)])

    return MergeSamples(
        observed=bytes_of([sample.observed for sample in samples]),
        current=bytes_of([sample.current for sample in samples]),
        truth=bytes_of([sample.truth for sample in samples]),
        image=bytes_of([one.image for one in composites]),
        mask=bytes_of([one.mask for one in composites]),
        images=filled([one.images for one in found]),
        masks=filled([one.masks for one in found]),
        shares=filled([one.shares for one in found]),
        spread=torch.cat([one.spread for one in found]).half().numpy(),
        support=torch.cat([one.support for one in found]).half().numpy(),
        found=np.array([len(one.images) for one in found]),
        own=np.array([one.own for one in found]),
        equal=np.array([one.equal for one in found]),
        extent=np.array([sample.extent for sample in samples], np.float32),
    )


class SamplePool(ClipFiles[MergeSamples]):
    """The clips' samples that a training run draws from, made once and kept on disk.

    Args:
        photos, folder, settings: see :class:`ClipFiles`.
        backbone: ``id:variant``, whose outputs are merged.
    """

    def __init__(self, photos: list[Path], folder: Path, *, backbone: str, **settings: Any) -> None:
        super().__init__(photos, folder, **settings)
        self.backbone = backbone
        self.mark = f"{backbone.replace(':', '-')}-"

    def lesson(self, clip: SimulatedClip, generator: np.random.Generator) -> MergeSamples | None:
        """See :meth:`ClipFiles.lesson`."""
        return make_samples(clip, gear_of(self.backbone), generator)

    def read(self, arrays: dict[str, np.ndarray]) -> MergeSamples:
        """See :meth:`ClipFiles.read`."""
        return MergeSamples(**arrays)
