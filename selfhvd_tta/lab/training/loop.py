"""The training loop: steps, moving average, log, checkpoints, an end by the clock.

A run can be stopped at any time and continues at its last checkpoint; a budget ends it cleanly with the learning rate
annealed. The weights to keep are those of the moving average.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Generic, TypeVar

import torch
from torch import Tensor

from selfhvd_tta.files import write_atomically
from selfhvd_tta.lab.training.checkpoint import Run
from selfhvd_tta.lab.training.config import RunConfig
from selfhvd_tta.lab.training.distributed import agreed, mean_over_ranks
from selfhvd_tta.lab.training.optimisers import update_average

Validation = TypeVar("Validation")
LOG = "log.jsonl"
REPORT_EVERY = 50  # steps


@dataclass(frozen=True)
class TrainingProgress(Generic[Validation]):
    """What ``on_progress`` receives, every 50 steps and after each validation.

    Attributes:
        step: steps done.
        seconds: training time so far.
        loss: mean since the last report.
        learning_rate: of the last step.
        validation: of the moving average on the main set, if one was just made.
        further: on the other sets, by name.
    """

    step: int
    seconds: float
    loss: float
    learning_rate: float
    validation: Validation | None = None
    further: dict[str, Validation] = field(default_factory=dict)

    def as_json(self) -> str:
        """One line for the log; what does not exist is null, and further sets are left out where there are none."""
        facts = asdict(self)
        for measured in (facts, facts["validation"] or {}, *facts["further"].values()):
            measured.update({k: None for k, v in measured.items() if isinstance(v, float) and math.isnan(v)})
        if not self.further:
            del facts["further"]
        return json.dumps(facts)


@dataclass(frozen=True)
class TrainingTask(Generic[Validation]):
    """What is trained for.

    Attributes:
        losses: parts of the loss of a step, by its number; each is differentiated before the next is asked for.
        validate: measures the moving average: results by name of the set, the main one first.
        on_progress: called with each report, in the first process only.
    """

    losses: Callable[[int], Iterable[Tensor]]
    validate: Callable[[], Mapping[str, Validation]]
    on_progress: Callable[[TrainingProgress[Validation]], None] | None = None


def train(config: RunConfig, run: Run, task: TrainingTask[Validation]) -> TrainingProgress[Validation]:
    """Take the steps that a run has left. Every process calls it; only the first one measures, logs and saves.

    Args:
        config: configuration of the run.
        run: state to continue from.
        task: what it learns.

    Returns:
        The last report, with a validation (in the first process).
    """
    device, first = torch.device(config.device), run.ranks.first
    if first:
        trim_log(config, run.step)
    started = saved = time.monotonic()
    before = run.seconds
    losses: list[Tensor] = []
    rate = 0.0
    measured: TrainingProgress[Validation] | None = None

    def report(measure: bool) -> TrainingProgress[Validation]:
        """Every process has to call it."""
        results = dict(task.validate()) if measure and first else {}
        main = results.pop(next(iter(results))) if results else None
        loss = torch.stack(losses).mean() if losses else torch.tensor(math.nan, device=device)
        losses.clear()
        loss = mean_over_ranks(loss, run.ranks)
        progress = TrainingProgress(run.step, run.seconds, float(loss), rate, main, results)
        if first:
            with (config.output / LOG).open("a") as log:
                log.write(progress.as_json() + "\n")
            if task.on_progress is not None:
                task.on_progress(progress)
        return progress

    while run.step < config.steps and (config.budget is None or run.seconds < config.budget):
        done = max(run.step / config.steps, run.seconds / config.budget if config.budget else 0.0)
        rate = learning_rate(config, run.step, done)
        for optimiser in run.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate * group.get("share", 1.0)
        losses.append(_step(run, task.losses(run.step), config.gradient_clip, device))
        run.step += 1
        update_average(run.average, run.network, min(config.ema, run.step / (run.step + 20)))
        run.seconds = before + time.monotonic() - started
        if config.budget is not None:
            run.seconds = agreed(run.seconds, run.ranks, device)
        if config.validate_every and run.step % config.validate_every == 0:
            measured = report(measure=True)
        elif run.step % REPORT_EVERY == 0:
            report(measure=False)
        if first and time.monotonic() - saved > config.checkpoint_every:
            run.save(config.output)
            saved = time.monotonic()
    if first:
        run.save(config.output)
    return measured if measured is not None and measured.step == run.step else report(measure=True)


def learning_rate(config: RunConfig, step: int, done: float) -> float:
    """Linear warm-up, then a cosine over the share of the run that is done (of its steps or of its time)."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    span = config.learning_rate - config.final_learning_rate
    return (config.final_learning_rate + span * cosine) * min(1.0, (step + 1) / max(config.warmup, 1))


def trim_log(config: RunConfig, step: int) -> None:
    """Take back what was logged after the checkpoint that a run continues from."""
    path = config.output / LOG
    if not path.exists():
        return
    lines = path.read_text().splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    if len(kept) < len(lines):
        with write_atomically(path) as part:
            part.write_text("".join(kept))


def _step(run: Run, parts: Iterable[Tensor], gradient_clip: float, device: torch.device) -> Tensor:
    """One update by the gradient of all parts of the loss; left out where it is not finite."""
    run.network.zero_grad(set_to_none=True)
    total = torch.zeros((), device=device)
    for loss in parts:
        loss.backward()
        total += loss.detach()
    norm = torch.nn.utils.clip_grad_norm_(run.network.parameters(), gradient_clip)
    if torch.isfinite(norm):
        for optimiser in run.optimisers:
            optimiser.step()
    return total
