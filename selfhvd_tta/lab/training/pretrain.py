"""Pretraining of a backbone on simulated shake or recorded pairs: what test-time adaptation starts from.

``pretrain`` can be stopped at any time and continues at the last checkpoint; on a CPU the result is that of the
uninterrupted run, to the bit. A time budget ends it cleanly with the learning rate annealed. The weights to keep are
those of the moving average (EMA); :func:`export_weights` writes them.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace

import torch
from torch import Tensor, nn

from selfhvd_tta.errors import UsageError
from selfhvd_tta.lab.datasets.photos import split_photos
from selfhvd_tta.lab.training.checkpoint import LOG, export_weights, restore, save_checkpoint, trim_log, write_run
from selfhvd_tta.lab.training.distributed import (
    Ranks,
    agreed,
    mean_over_ranks,
    process_group,
    ranks_of_environment,
    share_gradients,
)
from selfhvd_tta.lab.training.network import Optimisers, Supervised, build_network, build_optimisers, update_average
from selfhvd_tta.lab.training.pool import ClipPool, Maker
from selfhvd_tta.lab.training.recipe import PretrainConfig, learning_rate, restoration_loss
from selfhvd_tta.lab.training.sources import TrainingData, open_data
from selfhvd_tta.lab.training.validation import Validation, ValidationClip, validate, validation_sets

__all__ = [
    "PretrainConfig",
    "PretrainProgress",
    "Validation",
    "build_network",
    "export_weights",
    "learning_rate",
    "pretrain",
    "split_photos",
]
REPORT_EVERY = 50  # steps


@dataclass(frozen=True)
class PretrainProgress:
    """What ``on_progress`` receives, every 50 steps and after each validation.

    Attributes:
        step: steps done.
        seconds: training time so far.
        loss: mean since the last report.
        learning_rate: of the last step.
        validation: of the moving average on the main set (see ``validation_sets``), if one was just made.
        further: on the other sets, by name.
    """

    step: int
    seconds: float
    loss: float
    learning_rate: float
    validation: Validation | None = None
    further: dict[str, Validation] = field(default_factory=dict)

    def as_json(self) -> str:
        """One line for the log; what does not exist is null."""
        facts = asdict(self)
        for measured in (facts, facts["validation"] or {}, *facts["further"].values()):
            measured.update({k: None for k, v in measured.items() if isinstance(v, float) and math.isnan(v)})
        return json.dumps(facts)


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
    data = open_data(config.data, config.clip_size, config.clip_frames, gamma_blur=config.gamma_blur)
    with process_group(ranks, device):
        run = _Run(replace(config, device=str(device)), ranks, data, on_progress)
        if tell is not None and ranks.first:
            tell(f"training on {data.training}; measured on {data.validation}")
            if run.step:
                tell(f"continuing after step {run.step}")
            elif config.initial is not None:
                tell(f"starting from {config.initial}")
        with run.open_pool(data) as pool:
            return run.train(pool)


class _Run:
    """State of one process of a run."""

    def __init__(
        self,
        config: PretrainConfig,
        ranks: Ranks,
        data: TrainingData,
        on_progress: Callable[[PretrainProgress], None] | None,
    ) -> None:
        self.config, self.ranks, self.on_progress = config, ranks, on_progress
        self.device = torch.device(config.device)
        torch.manual_seed(config.seed)
        self.network = build_network(config.backbone, config.variant).to(self.device)
        if config.precision == "bf16" and "bfloat16" not in self.network.backbone.autocast:
            raise UsageError(f"{config.backbone} is not verified in bfloat16", "Use --precision fp32.")
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.optimisers = build_optimisers(self.network, config.learning_rate)
        config.output.mkdir(parents=True, exist_ok=True)
        self.step, self.before = restore(config, self.network, self.average, self.optimisers)
        self.seconds, self.rate = self.before, 0.0
        self.losses: list[Tensor] = []
        self.measured: PretrainProgress | None = None
        self.sets: dict[str, list[ValidationClip]] = {}
        if ranks.first:
            trim_log(config.output, self.step)
            write_run(config, ranks.count, data.training, data.validation)
            self.sets = validation_sets(data)

    def open_pool(self, data: TrainingData) -> ClipPool:
        config = self.config
        in_memory = self.device.type == "cuda" if config.keep_in_memory is None else config.keep_in_memory
        return ClipPool(
            Maker(data.source, config.output / "pool", config.seed, self.device, config.pace),
            capacity=config.pool,
            renewal=config.renewal,
            keep_on=self.device if in_memory else None,
            workers=config.workers,
            share=(self.ranks.rank, self.ranks.count),
        )

    def train(self, pool: ClipPool) -> PretrainProgress:
        config = self.config
        model = share_gradients(Supervised(self.network), self.ranks, self.device)
        started = saved = time.monotonic()
        while self.step < config.steps and (config.budget is None or self.seconds < config.budget):
            done = max(self.step / config.steps, self.seconds / config.budget if config.budget else 0.0)
            self.rate = learning_rate(config, self.step, done)
            for optimiser in self.optimisers:
                for group in optimiser.param_groups:
                    group["lr"] = self.rate
            blurry, sharp = pool.batch(self.step, config.batch, config.crop, config.clip_length)
            self.losses.append(
                _step(config, model, self.network, self.optimisers, blurry.to(self.device), sharp.to(self.device))
            )
            self.step += 1
            update_average(self.average, self.network, min(config.ema, self.step / (self.step + 20)))
            self.seconds = self.before + time.monotonic() - started
            if config.budget is not None:
                self.seconds = agreed(self.seconds, self.ranks, self.device)
            if config.validate_every and self.step % config.validate_every == 0:
                self.report(measure=True)
            elif self.step % REPORT_EVERY == 0:
                self.report()
            if self.ranks.first and time.monotonic() - saved > config.checkpoint_every:
                self.save()
                saved = time.monotonic()
        if self.ranks.first:
            self.save()
        if self.measured is not None and self.measured.step == self.step:
            return self.measured
        return self.report(measure=True)

    def report(self, measure: bool = False) -> PretrainProgress:
        """Tell and log how it goes; every process has to call it."""
        results = {}
        if measure and self.ranks.first:
            results = {name: validate(self.average, clips) for name, clips in self.sets.items()}
        main = results.pop(next(iter(results))) if results else None
        loss = torch.stack(self.losses).mean() if self.losses else torch.tensor(math.nan, device=self.device)
        self.losses.clear()
        loss = mean_over_ranks(loss, self.ranks)
        progress = PretrainProgress(self.step, self.seconds, float(loss), self.rate, main, results)
        if measure:
            self.measured = progress
        if self.ranks.first:
            with (self.config.output / LOG).open("a") as log:
                log.write(progress.as_json() + "\n")
            if self.on_progress is not None:
                self.on_progress(progress)
        return progress

    def save(self) -> None:
        save_checkpoint(self.config.output, self.network, self.average, self.optimisers, self.step, self.seconds)


def _step(
    config: PretrainConfig,
    model: nn.Module,
    network: nn.Module,
    optimisers: Optimisers,
    blurry: Tensor,
    sharp: Tensor,
) -> Tensor:
    """One update by the gradient of the whole batch; ``model`` is ``Supervised`` or what shares its gradients."""
    network.zero_grad(set_to_none=True)
    total = torch.zeros((), device=blurry.device)
    for part, truth in zip(blurry.chunk(config.accumulate), sharp.chunk(config.accumulate), strict=True):
        with torch.autocast(part.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            output, own = model(part, truth)
        loss = restoration_loss(output.float(), truth, config.softness, config.frequency) + own
        loss = loss / config.accumulate
        loss.backward()
        total += loss.detach()
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), config.gradient_clip)
    if torch.isfinite(norm):
        for optimiser in optimisers:
            optimiser.step()
    return total
