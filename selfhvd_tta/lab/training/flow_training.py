"""Training of the flow network behind a global motion, on pairs that the simulator makes.

``train_flow`` can be stopped at any time and continues at the last checkpoint; a time budget ends it cleanly with the
learning rate annealed. Data order follows from the seed and the step alone. The weights to keep are those of the moving
average; :func:`export_flow` writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selfhvd_tta.errors import UsageError
from selfhvd_tta.lab.training.checkpoint import CHECKPOINT, export_average
from selfhvd_tta.lab.training.clip_files import make_all
from selfhvd_tta.lab.training.flow_batches import training_batch
from selfhvd_tta.lab.training.flow_pairs import PairPool
from selfhvd_tta.lab.training.flow_structures import Structure, build_optimisers, build_structure, flow_loss
from selfhvd_tta.lab.training.flow_validation import FlowValidation, validate_flow
from selfhvd_tta.lab.training.loop import Run, TrainingConfig, TrainingProgress, train
from selfhvd_tta.weights.tensors import read_safetensors


@dataclass(frozen=True)
class FlowTrainingConfig(TrainingConfig):
    """One training run.

    Attributes:
        structure: ``proofreader`` (:class:`ShakeNetwork`), or torchvision's RAFT-small on the same pairs, to compare.
        pairs: tried per clip; each is learned in both directions.
        validation_pairs: per held-out photograph.
    """

    structure: Structure = "proofreader"
    pairs: int = 12
    validation_pairs: int = 6

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pairs <= 0:
            raise UsageError(f"pairs is {self.pairs!r}, but it must be positive")
        if self.crop % 16:
            raise UsageError(f"crops of {self.crop} px: they have to be a multiple of 16")


FlowProgress = TrainingProgress[FlowValidation]


def train_flow(
    config: FlowTrainingConfig,
    on_progress: Callable[[FlowProgress], None] | None = None,
    on_pairs: Callable[[int, int], None] | None = None,
) -> FlowProgress:
    """Train, or continue the run in ``config.output``.

    Args:
        config: of the run.
        on_progress: hears of the training.
        on_pairs: hears of the making of pairs before it: clips done, clips in all.

    Returns:
        The last report, with a validation.

    Raises:
        UsageError: no photographs, or a checkpoint of another structure.
    """
    trainable, held_out = config.photographs()
    device = torch.device(config.device)
    torch.manual_seed(config.seed)
    network = build_structure(config.structure).to(device)
    run = Run.fresh(network, build_optimisers(network, config.learning_rate))
    config.output.mkdir(parents=True, exist_ok=True)
    _restore(config, config.output / CHECKPOINT, run)
    pool = _pool(config, trainable, "pool", config.clips, config.pairs, config.seed)
    held = _pool(config, held_out, "held_out", len(held_out), config.validation_pairs, config.seed + 1000)
    make_all(pool, config.workers, on_pairs)
    make_all(held, config.workers, None)
    half = torch.bfloat16 if config.precision == "bf16" else None

    def loss_of(step: int) -> Tensor:
        batch = training_batch(pool, step, config.batch, config.crop).to(device)
        readings = network(batch.source, batch.target, batch.guess, batch.gap, half)
        return flow_loss(readings, batch.truth, batch.visible)

    return train(
        config,
        run,
        loss_of,
        lambda: validate_flow(run.average, held, device),
        on_progress,
        structure=config.structure,
    )


def _pool(config: FlowTrainingConfig, photos: list[Path], folder: str, clips: int, pairs: int, seed: int) -> PairPool:
    return PairPool(
        photos,
        config.output / folder,
        clips=clips,
        width=config.width,
        height=config.height,
        frames=config.frames,
        pairs=pairs,
        seed=seed,
        device=torch.device("cpu"),
    )


def _restore(config: FlowTrainingConfig, path: Path, run: Run) -> None:
    """Load the run's checkpoint or the initial weights."""
    source = path if path.exists() else config.initial
    if source is None:
        return
    if source.suffix == ".safetensors":
        tensors, about = read_safetensors(source)
        prefix = "network." if config.structure == "raft-small" else ""
        weights = {prefix + name: tensor for name, tensor in tensors.items()}
        state: dict[str, Any] = {"structure": about.get("structure"), "network": weights, "average": weights}
    else:
        state = torch.load(source, map_location=config.device, weights_only=True)
    if state.get("structure") != config.structure:
        raise UsageError(f"{source} is no checkpoint of a {config.structure}", "Choose another output folder.")
    run.network.load_state_dict(state["network"])
    run.average.load_state_dict(state["average"])
    if source == path:
        for optimiser, kept in zip(run.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        run.step, run.seconds = int(state["step"]), float(state["seconds"])


def export_flow(config: FlowTrainingConfig, target: Path, description: Mapping[str, str]) -> str:
    """Write the moving average of a run as half-precision safetensors.

    Args:
        config: of the run.
        target: the file.
        description: kept in the file: ``licence``, ``trained_on``...

    Returns:
        The file's SHA-256.
    """
    flow, variant = {"proofreader": ("shake", "dis"), "raft-small": ("raft", "small")}[config.structure]
    # Files of weights name their plug-in under ``backbone``, whatever its kind.
    about = {**description, "backbone": flow, "variant": variant, "structure": config.structure}
    return export_average(config.output, target, about, prefix="network.")
