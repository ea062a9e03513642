"""Training of the network that merges aligned sharp frames, on samples that the simulator makes.

``train_merge`` can be stopped at any time and continues at the last checkpoint; a time budget ends it cleanly with the
learning rate annealed. Data order follows from the seed and the step alone. The weights to keep are those of the moving
average; :func:`export_merge` writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from selfhvd_tta.lab.training.checkpoint import Run, export_average
from selfhvd_tta.lab.training.clip_files import make_pools
from selfhvd_tta.lab.training.config import MergeTrainingConfig
from selfhvd_tta.lab.training.loop import TrainingProgress, TrainingTask, train
from selfhvd_tta.lab.training.losses import psnr, restoration_loss
from selfhvd_tta.lab.training.merge_samples import CANDIDATES, MergeSample, SamplePool, gear_of
from selfhvd_tta.lab.training.optimisers import build_optimisers
from selfhvd_tta.method.composite import apply
from selfhvd_tta.method.merge_network import MergeNetwork, evidence
from selfhvd_tta.run.networks import MERGER, find_backbone

# Difference, as a share of white, below which the loss is quadratic.
SOFTNESS = 0.02
# Adam's learning rate over Muon's.
ADAM = 1 / 3
# Samples of one clip in a batch: a file is read for each clip.
TOGETHER = 2
# Pixels of blur from which on a frame counts as blurry, as in SimulatedClip.is_sharp.
BLURRY = 1.0


@dataclass(frozen=True)
class MergeValidation:
    """PSNR in dB on whole frames of held-out photographs, mean over frames; None where there is no such frame.

    Attributes:
        blurry: gain of the merged frame over the blend by weights, on frames with a pixel of blur or more.
        sharp: the same, on the others.
        blend_blurry, blend_sharp: of the blend.
    """

    blurry: float | None
    sharp: float | None
    blend_blurry: float | None
    blend_sharp: float | None


MergeProgress = TrainingProgress[MergeValidation]


def is_inner(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon takes it: a weight within the network, not a bias, a depth-wise filter or a layer at the pixels."""
    at_pixels = name.split(".")[0] in ("intro", "ending")
    depthwise = parameter.ndim == 4 and parameter.shape[1] == 1
    return parameter.ndim >= 2 and not at_pixels and not depthwise


def augmented(sample: MergeSample, recorded: float, generator: np.random.Generator) -> MergeSample:
    """Mirrored, transposed, its colours swapped, and now and then without a backbone."""
    mirror_x, mirror_y, transpose = generator.random(3) < 0.5
    colours = torch.from_numpy(generator.permutation(3)) if generator.random() < 0.5 else torch.arange(3)

    def change(pictures: Tensor) -> Tensor:
        if mirror_x:
            pictures = pictures.flip(-1)
        if mirror_y:
            pictures = pictures.flip(-2)
        if transpose:
            pictures = pictures.transpose(-1, -2)
        return pictures[:, colours] if pictures.shape[1] == 3 else pictures

    if generator.random() < recorded:
        sample = replace(sample, current=sample.observed)
    return sample.mapped(change)


def training_batch(pool: SamplePool, step: int, config: MergeTrainingConfig) -> tuple[Tensor, Tensor, Tensor]:
    """What a step learns from, by its number: what the network sees, the blend, and the truth, on the CPU."""
    generator = np.random.default_rng((pool.seed, 4, step))
    parts = []
    for first in range(0, config.batch, TOGETHER):
        samples = pool.of(int(generator.integers(pool.clips)))
        height, width = samples.observed.shape[-2:]
        for _ in range(min(TOGETHER, config.batch - first)):
            index = int(generator.integers(len(samples)))
            y, x = (int(generator.integers(size - config.crop + 1)) for size in (height, width))
            sample = augmented(samples.sample(index, y, x, config.crop), config.recorded, generator)
            seen, blend = evidence(sample.observed, sample.current, sample.composite, CANDIDATES)
            parts.append((seen, blend, sample.truth))
    seen, blend, truth = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return seen, blend, truth


def train_merge(
    config: MergeTrainingConfig,
    on_progress: Callable[[MergeProgress], None] | None = None,
    on_samples: Callable[[int, int], None] | None = None,
) -> MergeProgress:
    """Train, or continue the run in ``config.output``.

    Args:
        config: configuration of the run.
        on_progress: called with each report.
        on_samples: called while samples are made, with the clips done and their total.

    Returns:
        The last report, with a validation.

    Raises:
        UsageError: no photographs, no such backbone, or a checkpoint of another network.
        WeightsError: weights to start from, or the backbone's, cannot be read or do not fit.
        DeviceError: a worker was killed.
    """
    photos = config.photographs()
    backbone, variant = find_backbone(config.backbone)
    name = f"{backbone.id}:{variant.name}"
    gear_of(name)  # what is wrong with it is better said before the first clip
    device = torch.device(config.device)
    torch.manual_seed(config.seed)
    network = MergeNetwork(candidates=CANDIDATES).to(device)
    run = Run.fresh(network, build_optimisers(network, config.learning_rate, is_inner, ADAM))
    config.output.mkdir(parents=True, exist_ok=True)
    run.restore(config, "the merging network", MERGER)

    samples = partial(SamplePool, backbone=name)
    pool, held = make_pools(config, photos, samples, samples, on_samples)
    half = config.precision == "bf16"

    def losses(step: int) -> Iterator[Tensor]:
        seen, blend, truth = (tensor.to(device) for tensor in training_batch(pool, step, config))
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            correction = network.correction(seen)
        yield restoration_loss(blend + correction.float(), truth, SOFTNESS)

    average = run.average
    assert isinstance(average, MergeNetwork)

    def measure() -> dict[str, MergeValidation]:
        return {"held out": validate_merge(average, held, device)}

    return train(config, run, TrainingTask(losses, measure, on_progress))


@torch.no_grad()
def validate_merge(network: MergeNetwork, pool: SamplePool, device: torch.device) -> MergeValidation:
    """What a network gains on the samples of a pool, whole frames of 8 bits."""

    def score(picture: Tensor, truth: Tensor) -> float:
        return float(psnr((picture.clamp(0, 1) * 255).round(), (truth * 255).round()))

    blends: dict[bool, list[float]] = {True: [], False: []}
    gains: dict[bool, list[float]] = {True: [], False: []}
    for number in range(pool.clips):
        samples = pool.of(number)
        for index in range(len(samples)):
            sample = samples.sample(index).mapped(lambda tensor: tensor.to(device))
            blend = score(apply(sample.composite, sample.current), sample.truth)
            kind = sample.extent >= BLURRY
            blends[kind].append(blend)
            gains[kind].append(score(network(sample.observed, sample.current, sample.composite), sample.truth) - blend)
    means = [float(np.mean(part)) if part else None for part in (gains[True], gains[False], *blends.values())]
    return MergeValidation(*means)


def export_merge(config: MergeTrainingConfig, target: Path, description: Mapping[str, str]) -> str:
    """Write the moving average of a run as half-precision safetensors.

    Args:
        config: configuration of the run.
        target: the file.
        description: kept in the file: ``licence``, ``trained_on``...

    Returns:
        The file's SHA-256.
    """
    # Files of weights name their plug-in under ``backbone``, whatever its kind.
    about = {**description, "backbone": "merge", "variant": "w48", "outputs_of": config.backbone}
    return export_average(config.output, target, about)
