"""State of an adaptation between two steps: what the loop and the supervision share and a checkpoint keeps."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, nn

from selfhvd_tta.method.record import Losses, Record
from selfhvd_tta.method.scscm import HistoryCheck

Weights = dict[str, Tensor]


@dataclass
class AdaptationState:
    """Everything that changes while an adaptation runs, apart from the network, its optimiser and the clock.

    Attributes:
        rng: source of all draws.
        record: what was done so far.
        losses: of steps that have not been read.
        step: number of the next step.
        stage2: the last step belonged to stage 2.
        draws: state of ``rng`` after the last step, from which an interrupted step draws the same clips again.
        good: weights to return to when losses are lost: those of the last refresh.
        history: weights of the historical model; empty before stage 2.
        refreshed: step before which labels were last renewed; -1: never.
        used: rows that were learned from since then.
        refresh_seconds: what that refresh has cost.
        best: weights with the lowest error on held-out frames (early stop); empty: none yet.
        bad_looks: checks of held-out frames since then.
    """

    rng: np.random.Generator
    record: Record = field(default_factory=Record)
    losses: Losses = field(default_factory=Losses)
    step: int = 0
    stage2: bool = False
    draws: dict[str, Any] = field(init=False)
    good: Weights = field(default_factory=dict)
    history: Weights = field(default_factory=dict)
    refreshed: int = -1
    used: set[int] = field(default_factory=set)
    refresh_seconds: float = 0.0
    best: Weights = field(default_factory=dict)
    bad_looks: int = 0

    def __post_init__(self) -> None:
        self.draws = dict(self.rng.bit_generator.state)

    def finish_step(self, stage2: bool) -> None:
        """Count a step that was taken."""
        self.step, self.stage2, self.draws = self.step + 1, stage2, dict(self.rng.bit_generator.state)

    def judge(self, check: HistoryCheck, renew: Callable[[], None]) -> None:
        """Record a comparison with the historical model, and renew the model if that pays."""
        self.record.checks.append((self.step, check))
        if check.renew:
            renew()
            self.record.renewals += 1

    def facts(self) -> dict[str, Any]:
        """Everything but tensors, as JSON can hold it."""
        return {
            "step": self.step,
            "record": asdict(self.record),
            "stage2": self.stage2,
            "lost": self.losses.lost,
            "refreshed": self.refreshed,
            "used": sorted(self.used),
            "draws": self.draws,
            "refresh_seconds": self.refresh_seconds,
            "bad": self.bad_looks,
        }

    def weights(self) -> dict[str, Weights]:
        """All the weights it holds, by the name of their part."""
        return {"good": self.good, "history": self.history, "best": self.best}

    def restore(self, facts: dict[str, Any], record: Record, weights: Callable[[str], Weights]) -> None:
        """Take over the state of another one.

        Args:
            facts: of :meth:`facts`.
            record: its record.
            weights: by the name of their part, as :meth:`weights` has them.
        """
        self.record, self.losses = record, Losses(int(facts["lost"]))
        self.step, self.stage2 = int(facts["step"]), bool(facts["stage2"])
        self.refreshed, self.used = int(facts["refreshed"]), set(facts["used"])
        self.refresh_seconds = float(facts["refresh_seconds"])
        self.bad_looks = int(facts.get("bad", 0))
        self.draws = facts["draws"]
        self.rng.bit_generator.state = self.draws
        self.good, self.history, self.best = (weights(part) for part in ("good", "history", "best"))


def snapshot(network: nn.Module) -> Weights:
    """A copy of a network's weights."""
    return copy.deepcopy(network.state_dict())
