"""Early stop: blurry frames that no loss sees, compared with the sharp frames that were aligned to them at first."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from selfhvd_tta.method.labels import LabelBank
from selfhvd_tta.method.losses import masked_l1

ONE_IN = 8  # blurry frames are held out
PATIENCE = 2  # looks without improvement that end the adaptation
LEAST_GAIN = 0.002  # share by which the error has to fall to count as an improvement


class HeldOut:
    """Watches frames that are kept out of the losses.

    Their labels stay those of the first look, so that the error measures the network and not the alignment.

    Args:
        learning: (N,) bool, rows that have something to learn.
    """

    def __init__(self, learning: Tensor) -> None:
        self.rows: list[int] = learning.nonzero()[:, 0].tolist()[ONE_IN // 2 :: ONE_IN]
        self.errors: list[float] = []
        self.bad = 0
        self.best: dict[str, Any] = {}
        self._labels: tuple[Tensor, Tensor] | None = None

    @property
    def tired(self) -> bool:
        """No improvement for so long that going on is not worth it."""
        return self.bad >= PATIENCE

    def look(self, bank: LabelBank, network: nn.Module) -> None:
        """Measure the outputs in the bank, and remember the weights that made them if they are the best so far."""
        if not self.rows:
            return
        if self._labels is None:
            self.keep_labels(bank)
        assert self._labels is not None
        label, mask = (each.float() / 255 for each in self._labels)
        error = float(masked_l1(bank.teacher[self.rows].float(), label, mask).mean())
        if not self.errors or error < (1 - LEAST_GAIN) * min(self.errors):
            self.bad = 0
            self.best = copy.deepcopy(network.state_dict())
        else:
            self.bad += 1
        self.errors.append(error)

    def keep_labels(self, bank: LabelBank) -> None:
        """Measure by the labels that the bank has now."""
        if self.rows:
            bank.complete(self.rows)
            self._labels = bank.label[self.rows].clone(), bank.mask[self.rows].clone()

    def restore(self, network: nn.Module) -> None:
        """Give the network the best weights seen."""
        if self.best:
            with torch.no_grad():
                network.load_state_dict(self.best)
