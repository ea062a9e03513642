"""Training of the flow network behind a global motion, on pairs that the simulator makes.

``train_flow`` can be stopped at any time and continues at the last checkpoint; a time budget ends it cleanly with the
learning rate annealed. Data order follows from the seed and the step alone. The weights to keep are those of the moving
average; :func:`export_flow` writes them.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import multiprocessing
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from selfhvd_tta.errors import UsageError
from selfhvd_tta.training.checkpoint import CHECKPOINT, save_checkpoint
from selfhvd_tta.training.flow_batches import FlowBatch, training_batch
from selfhvd_tta.training.flow_pairs import PairPool
from selfhvd_tta.training.flow_structures import Structure, build_optimisers, build_structure, flow_loss
from selfhvd_tta.training.flow_validation import FlowValidation, validate_flow
from selfhvd_tta.training.photos import list_photos, split_photos
from selfhvd_tta.weights.tensors import read_safetensors, save


@dataclass(frozen=True)
class FlowTrainingConfig:
    """One training run.

    Attributes:
        photos: folders of photographs.
        output: folder of the run: ``checkpoint.pt``, ``log.jsonl`` and ``pool/``.
        structure: ``proofreader`` (:class:`ShakeNetwork`), or torchvision's RAFT-small on the same pairs, to compare.
        steps: optimiser steps at most.
        budget: seconds of training at most, all resumed parts together, without the making of pairs; None: no limit.
        clips: simulated clips that pairs are made of.
        pairs: tried per clip.
        width, height: of simulated clips.
        frames: length of simulated clips.
        crop: side of the training crops in pixels, a multiple of 16.
        batch: pairs per step; each is learned in both directions.
        learning_rate: of Muon and Adam, after the warm-up.
        final_learning_rate: rate that the cosine ends at.
        warmup: steps of linear warm-up.
        gradient_clip: largest norm of the gradient.
        ema: decay of the moving average per step.
        seed: of weights and data.
        precision: of the convolutions.
        device: torch device.
        workers: processes that make pairs before the training starts.
        validation_pairs: per held-out photograph.
        validate_every: steps between two validations; 0: only at the end.
        checkpoint_every: seconds between two checkpoints.
        initial: ``checkpoint.pt`` or exported weights of another run to start from.
    """

    photos: tuple[Path, ...]
    output: Path
    structure: Structure = "proofreader"
    steps: int = 100_000
    budget: float | None = None
    clips: int = 360
    pairs: int = 12
    width: int = 256
    height: int = 192
    frames: int = 14
    crop: int = 128
    batch: int = 4
    learning_rate: float = 2e-3
    final_learning_rate: float = 1e-5
    warmup: int = 50
    gradient_clip: float = 1.0
    ema: float = 0.998
    seed: int = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    device: str = "cpu"
    workers: int = 1
    validation_pairs: int = 6
    validate_every: int = 500
    checkpoint_every: float = 120.0
    initial: Path | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "clips", "pairs", "crop", "batch", "learning_rate", "gradient_clip", "workers"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} is {getattr(self, name)!r}, but it must be positive")
        if self.crop % 16 or self.crop > min(self.width, self.height):
            raise UsageError(
                f"crops of {self.crop} px have to be a multiple of 16 and fit into clips of {self.width}x{self.height}"
            )


@dataclass(frozen=True)
class FlowProgress:
    """What ``on_progress`` receives, every 50 steps and after each validation; loss is the mean since the last one."""

    step: int
    seconds: float
    loss: float
    learning_rate: float
    validation: FlowValidation | None = None


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
    try:
        photos = list_photos(config.photos)
    except (ValueError, OSError) as error:
        raise UsageError(str(error), "Give a folder of photographs.") from error
    trainable, held_out = split_photos(photos)
    device = torch.device(config.device)
    torch.manual_seed(config.seed)
    network = build_structure(config.structure).to(device)
    average = copy.deepcopy(network).eval().requires_grad_(False)
    optimisers = build_optimisers(network, config.learning_rate)
    config.output.mkdir(parents=True, exist_ok=True)
    checkpoint = config.output / CHECKPOINT
    step, before = _restore(config, checkpoint, network, average, optimisers)
    pool = _pool(config, trainable, "pool", config.clips, config.pairs, config.seed)
    held = _pool(config, held_out, "held_out", len(held_out), config.validation_pairs, config.seed + 1000)
    _make_all(pool, config.workers, on_pairs)
    _make_all(held, config.workers, None)

    started = saved = time.monotonic()
    losses: list[Tensor] = []
    seconds, rate = before, 0.0

    def report(validation: FlowValidation | None = None) -> FlowProgress:
        loss = float(torch.stack(losses).mean()) if losses else math.nan
        progress = FlowProgress(step, seconds, loss, rate, validation)
        with (config.output / "log.jsonl").open("a") as log:
            log.write(json.dumps(asdict(progress)) + "\n")
        if on_progress is not None:
            on_progress(progress)
        losses.clear()
        return progress

    while step < config.steps and (config.budget is None or seconds < config.budget):
        done = max(step / config.steps, seconds / config.budget if config.budget else 0.0)
        rate = learning_rate(config, step, done)
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
        batch = training_batch(pool, step, config.batch, config.crop).to(device)
        losses.append(_step(config, network, optimisers, batch))
        step += 1
        _update_average(average, network, min(config.ema, step / (step + 20)))
        seconds = before + time.monotonic() - started
        if config.validate_every and step % config.validate_every == 0:
            report(validate_flow(average, held, device))
        elif step % 50 == 0:
            report()
        if time.monotonic() - saved > config.checkpoint_every:
            save_checkpoint(config.output, network, average, optimisers, step, seconds, structure=config.structure)
            saved = time.monotonic()
    save_checkpoint(config.output, network, average, optimisers, step, seconds, structure=config.structure)
    return report(validate_flow(average, held, device))


def learning_rate(config: FlowTrainingConfig, step: int, done: float) -> float:
    """Linear warm-up, then a cosine over the share of the run that is done (of its steps or of its time)."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    span = config.learning_rate - config.final_learning_rate
    return (config.final_learning_rate + span * cosine) * min(1.0, (step + 1) / max(config.warmup, 1))


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


def _make_all(pool: PairPool, workers: int, tell: Callable[[int, int], None] | None) -> None:
    """Make every clip's pairs; the fit of the homography takes most of it, and runs on CPU cores."""

    def follow(made: Iterable[Path]) -> None:
        for done, _ in enumerate(made, 1):
            if tell is not None:
                tell(done, pool.clips)

    if workers == 1:
        follow(map(pool.make, range(pool.clips)))
        return
    # Forked children would inherit the threads of torch, which do not survive it.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,)) as executor:
        follow(executor.map(pool.make, range(pool.clips)))


def _step(
    config: FlowTrainingConfig, network: nn.Module, optimisers: tuple[torch.optim.Optimizer, ...], batch: FlowBatch
) -> Tensor:
    half = torch.bfloat16 if config.precision == "bf16" else None
    readings = network(batch.source, batch.target, batch.guess, batch.gap, half)
    loss = flow_loss(readings, batch.truth, batch.visible)
    network.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), config.gradient_clip)
    if torch.isfinite(norm):
        for optimiser in optimisers:
            optimiser.step()
    return loss.detach()


@torch.no_grad()
def _update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    kept, current = average.state_dict(), network.state_dict()
    for name, tensor in kept.items():
        if tensor.is_floating_point():
            tensor.lerp_(current[name], 1 - decay)
        else:
            tensor.copy_(current[name])


def _restore(
    config: FlowTrainingConfig,
    path: Path,
    network: nn.Module,
    average: nn.Module,
    optimisers: tuple[torch.optim.Optimizer, ...],
) -> tuple[int, float]:
    """Load the run's checkpoint or the initial weights; step and seconds done so far."""
    source = path if path.exists() else config.initial
    if source is None:
        return 0, 0.0
    if source.suffix == ".safetensors":
        tensors, about = read_safetensors(source)
        prefix = "network." if config.structure == "raft-small" else ""
        weights = {prefix + name: tensor for name, tensor in tensors.items()}
        state: dict[str, Any] = {"structure": about.get("structure"), "network": weights, "average": weights}
    else:
        state = torch.load(source, map_location=config.device, weights_only=True)
    if state.get("structure") != config.structure:
        raise UsageError(f"{source} is no checkpoint of a {config.structure}", "Choose another output folder.")
    network.load_state_dict(state["network"])
    average.load_state_dict(state["average"])
    if source != path:
        return 0, 0.0
    for optimiser, kept in zip(optimisers, state["optimisers"], strict=True):
        optimiser.load_state_dict(kept)
    return int(state["step"]), float(state["seconds"])


def export_flow(config: FlowTrainingConfig, target: Path, description: Mapping[str, str]) -> str:
    """Write the moving average of a run as half-precision safetensors.

    Args:
        config: of the run.
        target: the file.
        description: kept in the file: ``licence``, ``trained_on``...

    Returns:
        The file's SHA-256.
    """
    state: dict[str, Any] = torch.load(config.output / CHECKPOINT, map_location="cpu", weights_only=True)
    tensors = {
        name.removeprefix("network."): tensor.half().contiguous() if tensor.is_floating_point() else tensor
        for name, tensor in state["average"].items()
    }
    flow, variant = {"proofreader": ("shake", "dis"), "raft-small": ("raft", "small")}[config.structure]
    # Files of weights name their plug-in under ``backbone``, whatever its kind.
    about = {"backbone": flow, "variant": variant, "structure": config.structure, "step": state["step"]}
    save(target, tensors, {**description, **about})
    return hashlib.sha256(target.read_bytes()).hexdigest()
