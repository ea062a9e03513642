"""The loop that trainings on files of clips share: steps, moving average, log, checkpoints, an end by the clock.

A run can be stopped at any time and continues at its last checkpoint; a budget ends it cleanly with the learning rate
annealed. The weights to keep are those of the moving average.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

from selfhvd_tta.errors import UsageError
from selfhvd_tta.lab.datasets.photos import list_photos, split_photos
from selfhvd_tta.lab.training.checkpoint import LOG, save_checkpoint, trim_log
from selfhvd_tta.lab.training.network import Optimisers, update_average
from selfhvd_tta.lab.training.recipe import learning_rate

Validation = TypeVar("Validation")
REPORT_EVERY = 50  # steps


@dataclass(frozen=True)
class TrainingConfig:
    """What such runs have in common.

    Attributes:
        photos: folders of photographs.
        output: folder of the run: ``checkpoint.pt``, ``log.jsonl`` and ``pool/``.
        steps: optimiser steps at most.
        budget: seconds of training at most, all resumed parts together, without the making of data; None: no limit.
        clips: simulated clips that the data is made of.
        width, height: of simulated clips.
        frames: length of simulated clips.
        crop: side of the training crops in pixels.
        batch: examples per step.
        learning_rate: after the warm-up.
        final_learning_rate: rate that the cosine ends at.
        warmup: steps of linear warm-up.
        gradient_clip: largest norm of the gradient.
        ema: decay of the moving average per step.
        seed: of weights and data.
        precision: of the convolutions.
        device: torch device.
        workers: processes that make data before the training starts.
        validate_every: steps between two validations; 0: only at the end.
        checkpoint_every: seconds between two checkpoints.
        initial: ``checkpoint.pt`` or exported weights of another run to start from.
    """

    photos: tuple[Path, ...]
    output: Path
    steps: int = 100_000
    budget: float | None = None
    clips: int = 360
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
    validate_every: int = 500
    checkpoint_every: float = 120.0
    initial: Path | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "clips", "crop", "batch", "learning_rate", "gradient_clip", "workers"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} is {getattr(self, name)!r}, but it must be positive")
        if self.crop > min(self.width, self.height):
            raise UsageError(f"crops of {self.crop} px have to fit into clips of {self.width}x{self.height}")

    def photographs(self) -> tuple[list[Path], list[Path]]:
        """For training, and held out.

        Raises:
            UsageError: there are none.
        """
        try:
            return split_photos(list_photos(self.photos))
        except (ValueError, OSError) as error:
            raise UsageError(str(error), "Give a folder of photographs.") from error


@dataclass(frozen=True)
class TrainingProgress(Generic[Validation]):
    """What ``on_progress`` receives, every 50 steps and after each validation; loss is the mean since the last one."""

    step: int
    seconds: float
    loss: float
    learning_rate: float
    validation: Validation | None = None


@dataclass
class Run:
    """A run's state: the network, its moving average, the optimisers, and how far it is.

    The learning rate of a parameter group is the run's, times the group's ``share`` where it has one.
    """

    network: nn.Module
    average: nn.Module
    optimisers: Optimisers
    step: int = 0
    seconds: float = 0.0

    @classmethod
    def fresh(cls, network: nn.Module, optimisers: Optimisers) -> Run:
        """At its beginning."""
        return cls(network, copy.deepcopy(network).eval().requires_grad_(False), optimisers)


def train(
    config: TrainingConfig,
    run: Run,
    loss_of: Callable[[int], Tensor],
    validate: Callable[[], Validation],
    on_progress: Callable[[TrainingProgress[Validation]], None] | None = None,
    **about: str,
) -> TrainingProgress[Validation]:
    """Take the steps that a run has left.

    Args:
        config: of the run.
        run: from where it goes on.
        loss_of: of a step, by its number.
        validate: of the moving average.
        on_progress: hears of it.
        about: kept in the checkpoint.

    Returns:
        The last report, with a validation.
    """
    trim_log(config.output, run.step)
    started = saved = time.monotonic()
    before = run.seconds
    losses: list[Tensor] = []
    rate = 0.0

    def report(validation: Validation | None = None) -> TrainingProgress[Validation]:
        loss = float(torch.stack(losses).mean()) if losses else math.nan
        progress = TrainingProgress(run.step, run.seconds, loss, rate, validation)
        with (config.output / LOG).open("a") as log:
            log.write(json.dumps(asdict(progress)) + "\n")
        if on_progress is not None:
            on_progress(progress)
        losses.clear()
        return progress

    def save() -> None:
        save_checkpoint(config.output, run.network, run.average, run.optimisers, run.step, run.seconds, **about)

    while run.step < config.steps and (config.budget is None or run.seconds < config.budget):
        done = max(run.step / config.steps, run.seconds / config.budget if config.budget else 0.0)
        rate = learning_rate(config, run.step, done)
        for optimiser in run.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate * group.get("share", 1.0)
        losses.append(_step(run, loss_of(run.step), config.gradient_clip))
        run.step += 1
        update_average(run.average, run.network, min(config.ema, run.step / (run.step + 20)))
        run.seconds = before + time.monotonic() - started
        if config.validate_every and run.step % config.validate_every == 0 and run.step < config.steps:
            report(validate())
        elif run.step % REPORT_EVERY == 0:
            report()
        if time.monotonic() - saved > config.checkpoint_every:
            save()
            saved = time.monotonic()
    save()
    return report(validate())


def _step(run: Run, loss: Tensor, gradient_clip: float) -> Tensor:
    run.network.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(run.network.parameters(), gradient_clip)
    if torch.isfinite(norm):
        for optimiser in run.optimisers:
            optimiser.step()
    return loss.detach()
