"""Early stop: blurry frames kept out of the losses, compared with the sharp frames first aligned to them."""

from __future__ import annotations

from torch import Tensor, nn

from selfhvd_tta.method.labels import LabelBank
from selfhvd_tta.method.losses import masked_l1
from selfhvd_tta.method.state import AdaptationState, snapshot

ONE_IN = 8  # blurry frames are held out
PATIENCE = 2  # checks without improvement that end the adaptation
LEAST_GAIN = 0.002  # share by which the error has to fall to count as an improvement


class HeldOut:
    """Watches frames that are kept out of the losses.

    Their labels stay those of the first check, so that the error measures the network and not the alignment.

    Args:
        learning: (N,) bool, rows that have something to learn.
        state: keeps the errors, and the best weights.
    """

    def __init__(self, learning: Tensor, state: AdaptationState) -> None:
        self.rows: list[int] = learning.nonzero()[:, 0].tolist()[ONE_IN // 2 :: ONE_IN]
        self.state = state
        self._labels: tuple[Tensor, Tensor] | None = None

    @property
    def stalled(self) -> bool:
        """Whether the error has not fallen for too long."""
        return self.state.bad_looks >= PATIENCE

    def look(self, bank: LabelBank, network: nn.Module) -> None:
        """Measure the outputs in the bank, and remember the weights that made them if they are the best so far."""
        if not self.rows:
            return
        if self._labels is None:
            self.keep_labels(bank)
        assert self._labels is not None
        label, mask = (each.float() / 255 for each in self._labels)
        error = float(masked_l1(bank.teacher[self.rows].float(), label, mask).mean())
        errors = self.state.record.held_out
        if not errors or error < (1 - LEAST_GAIN) * min(errors):
            self.state.bad_looks = 0
            self.state.best = snapshot(network)
        else:
            self.state.bad_looks += 1
        errors.append(error)

    def keep_labels(self, bank: LabelBank) -> None:
        """Measure by the current labels of the bank."""
        if self.rows:
            bank.complete(self.rows)
            self._labels = bank.label[self.rows].clone(), bank.mask[self.rows].clone()

    def restore(self, network: nn.Module) -> None:
        """Load the best weights so far into the network."""
        if self.state.best:
            network.load_state_dict(self.state.best)
