"""Pretraining of a backbone on simulated shake or recorded pairs: what test-time adaptation starts from.

``pretrain`` can be stopped at any time and continues at the last checkpoint; on a CPU the result is that of the
uninterrupted run, to the bit. The weights to keep are those of the moving average (EMA); :func:`export_weights` writes
them.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from selfhvd_tta.errors import UsageError
from selfhvd_tta.lab.training.checkpoint import Run, export_average
from selfhvd_tta.lab.training.config import PretrainConfig
from selfhvd_tta.lab.training.distributed import process_group, ranks_of_environment, share_gradients
from selfhvd_tta.lab.training.loop import TrainingProgress, TrainingTask, train
from selfhvd_tta.lab.training.losses import restoration_loss
from selfhvd_tta.lab.training.network import Supervised, build_network, is_inner
from selfhvd_tta.lab.training.optimisers import build_optimisers
from selfhvd_tta.lab.training.pool import ClipPool, Maker
from selfhvd_tta.lab.training.sources import TrainingData, open_data
from selfhvd_tta.lab.training.validation import Validation, validate, validation_sets

RUN = "run.json"
PretrainProgress = TrainingProgress[Validation]


def pretrain(
    config: PretrainConfig,
    on_progress: Callable[[PretrainProgress], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> PretrainProgress:
    """Train, or continue the run in ``config.output``.

    Under ``torchrun`` each process calls this with the same arguments.

    Args:
        config: the run.
        on_progress: gets a report now and then, in the first process.
        tell: gets lines worth knowing, for example what the folders of data were taken for, in the first process.

    Returns:
        The last report, with a validation (in the first process).

    Raises:
        UsageError: no data that is understood, no such backbone, or a checkpoint of another network.
        WeightsError: the initial weights cannot be read or do not fit.
    """
    ranks = ranks_of_environment()
    device = ranks.device(config.device)
    config = replace(config, device=str(device))
    data = open_data(config.data, config.clip_size, config.clip_frames, gamma_blur=config.gamma_blur)
    with process_group(ranks, device):
        torch.manual_seed(config.seed)
        network = build_network(config.backbone, config.variant).to(device)
        if config.precision == "bf16" and "bfloat16" not in network.backbone.autocast:
            raise UsageError(f"{config.backbone} is not verified in bfloat16", "Use --precision fp32.")
        run = Run.fresh(network, build_optimisers(network, config.learning_rate, is_inner), ranks)
        config.output.mkdir(parents=True, exist_ok=True)
        name = f"{network.backbone.id}:{network.variant.name}"
        run.restore(config, name, next(iter(network.variant.weights), None))
        sets = validation_sets(data) if ranks.first else {}
        if ranks.first:
            _write_facts(config, ranks.count, data)
        if tell is not None and ranks.first:
            tell(f"training on {data.training}; measured on {data.validation}")
            if run.step:
                tell(f"continuing after step {run.step}")
            elif config.initial is not None:
                tell(f"starting from {config.initial}")
        model = share_gradients(Supervised(network), ranks, device)
        with _pool(config, ranks.rank, ranks.count, data) as pool:

            def losses(step: int) -> Iterator[Tensor]:
                clips = pool.batch(step, config.batch, config.crop, config.clip_length)
                for part, truth in zip(*(each.to(device).chunk(config.accumulate) for each in clips), strict=True):
                    with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                        output, own = model(part, truth)
                    loss = restoration_loss(output.float(), truth, config.softness, config.frequency) + own
                    yield loss / config.accumulate

            def measure() -> dict[str, Validation]:
                return {name: validate(run.average, clips) for name, clips in sets.items()}

            return train(config, run, TrainingTask(losses, measure, on_progress))


def _pool(config: PretrainConfig, rank: int, count: int, data: TrainingData) -> ClipPool:
    device = torch.device(config.device)
    in_memory = device.type == "cuda" if config.keep_in_memory is None else config.keep_in_memory
    return ClipPool(
        Maker(data.source, config.output / "pool", config.seed, device, config.pace),
        capacity=config.pool,
        renewal=config.renewal,
        keep_on=device if in_memory else None,
        workers=config.workers,
        share=(rank, count),
    )


def _write_facts(config: PretrainConfig, processes: int, data: TrainingData) -> None:
    """State in ``run.json`` what the run is, for the card of its weights."""
    device = torch.device(config.device)
    facts = {
        "config": {name: _plain(value) for name, value in asdict(config).items()},
        "processes": processes,
        "trained_on": data.training,
        "validated_on": data.validation,
        "hardware": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor(),
        "torch": torch.__version__,
    }
    (config.output / RUN).write_text(json.dumps(facts, indent=1) + "\n")


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def export_weights(config: PretrainConfig, target: Path, description: Mapping[str, str]) -> str:
    """Write the moving average of a run as half-precision safetensors that name their backbone and variant.

    Args:
        config: configuration of the run.
        target: the file.
        description: kept in the file next to the names: ``licence``, ``trained_on``...

    Returns:
        The file's SHA-256.
    """
    variant = build_network(config.backbone, config.variant).variant.name
    return export_average(config.output, target, {**description, "backbone": config.backbone, "variant": variant})
