"""Training of the flow network behind a global motion, on pairs that the simulator makes.

``train_flow`` can be stopped at any time and continues at the last checkpoint; a time budget ends it cleanly with the
learning rate annealed. Data order follows from the seed and the step alone. The weights to keep are those of the moving
average; :func:`export_flow` writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from selfhvd_tta.lab.training.checkpoint import Run, export_average
from selfhvd_tta.lab.training.clip_files import make_pools
from selfhvd_tta.lab.training.config import FlowTrainingConfig
from selfhvd_tta.lab.training.flow_batches import training_batch
from selfhvd_tta.lab.training.flow_pairs import PairPool
from selfhvd_tta.lab.training.flow_structures import build_structure, flow_loss, is_inner
from selfhvd_tta.lab.training.flow_validation import FlowValidation, validate_flow
from selfhvd_tta.lab.training.loop import TrainingProgress, TrainingTask, train
from selfhvd_tta.lab.training.optimisers import build_optimisers

FlowProgress = TrainingProgress[FlowValidation]


def train_flow(
    config: FlowTrainingConfig,
    on_progress: Callable[[FlowProgress], None] | None = None,
    on_pairs: Callable[[int, int], None] | None = None,
) -> FlowProgress:
    """Train, or continue the run in ``config.output``.

    Args:
        config: configuration of the run.
        on_progress: called with each report.
        on_pairs: called while pairs are made, with the clips done and their total.

    Returns:
        The last report, with a validation.

    Raises:
        UsageError: no photographs, or a checkpoint of another structure.
    """
    photos = config.photographs()
    device = torch.device(config.device)
    torch.manual_seed(config.seed)
    network = build_structure(config.structure).to(device)
    inner = partial(is_inner, config.structure)
    run = Run.fresh(network, build_optimisers(network, config.learning_rate, inner), structure=config.structure)
    config.output.mkdir(parents=True, exist_ok=True)
    run.restore(config, config.structure, prefix="network." if config.structure == "raft-small" else "")
    pairs, validation = (partial(PairPool, pairs=count) for count in (config.pairs, config.validation_pairs))
    pool, held = make_pools(config, photos, pairs, validation, on_pairs)
    half = torch.bfloat16 if config.precision == "bf16" else None

    def losses(step: int) -> Iterator[Tensor]:
        batch = training_batch(pool, step, config.batch, config.crop).to(device)
        readings = network(batch.source, batch.target, batch.guess, batch.gap, half)
        yield flow_loss(readings, batch.truth, batch.visible)

    def measure() -> dict[str, FlowValidation]:
        return {"held out": validate_flow(run.average, held, device)}

    return train(config, run, TrainingTask(losses, measure, on_progress))


def export_flow(config: FlowTrainingConfig, target: Path, description: Mapping[str, str]) -> str:
    """Write the moving average of a run as half-precision safetensors.

    Args:
        config: configuration of the run.
        target: the file.
        description: kept in the file: ``licence``, ``trained_on``...

    Returns:
        The file's SHA-256.
    """
    flow, variant = {"proofreader": ("shake", "dis"), "raft-small": ("raft", "small")}[config.structure]
    # Files of weights name their plug-in under ``backbone``, whatever its kind.
    about = {**description, "backbone": flow, "variant": variant, "structure": config.structure}
    return export_average(config.output, target, about, prefix="network.")
