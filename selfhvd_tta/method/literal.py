"""The literal paper: outputs, flows and masks of every crop in every step, and a historical model instead of a bank."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from selfhvd_tta.backbones import Backbone
from selfhvd_tta.method.labels import LabelBank, Rows, make_rows
from selfhvd_tta.method.restoration import Compute, Restorer
from selfhvd_tta.method.sampling import Draw
from selfhvd_tta.method.scscm import HistoryCheck, check_history


class LiveTeacher:
    """Supervises by the present model (``--teacher live``).

    Args:
        network: the one that learns.
        backbone: its descriptor.
        bank: gives the recorded frames, and how labels are made of them.
        compute: device and precision.
        window: frames restored at once.

    Attributes:
        historical: a copy of the network whose outputs are R^e; None before stage 2.
    """

    def __init__(self, network: nn.Module, backbone: Backbone, bank: LabelBank, compute: Compute, window: int) -> None:
        self.network = network
        self.backbone = backbone
        self.bank = bank
        self.compute = compute
        self.window = window
        self.historical: nn.Module | None = None

    def take_history(self) -> None:
        """Let the present model become the historical one."""
        self.historical = copy.deepcopy(self.network).eval().requires_grad_(False)

    def check_history(self, rows: Sequence[int], outputs: Iterable[tuple[int, Tensor]]) -> HistoryCheck:
        """Compare the present model with the historical one.

        Args:
            rows: of the frames that are looked at.
            outputs: row and R of every frame, (3, H, W) in [0, 1].
        """
        assert self.historical is not None
        before = Restorer(self.historical, self.backbone, self.compute, self.window)
        old: dict[int, Tensor] = {}
        for run in self.bank.working.runs:
            frames = (self.bank.observed(row)[0] for row in run)
            old |= {r: out[None] for r, out in zip(run, before.restore(frames), strict=True) if r in rows}
        new = {row: out[None] for row, out in outputs if row in rows}
        observed = [self.bank.observed(r) for r in rows]
        return check_history([new[r] for r in rows], observed, [old[r] for r in rows], self.bank.estimator)

    @torch.no_grad()
    def rows(self, draw: Draw, stage2: bool) -> Rows:
        """Outputs, flows and masks of this very crop, by the present model."""
        clip = self.bank.shown(draw.rows, draw.box)
        with self.compute.context():
            out = self.network(clip[None])[0].float().clamp(0, 1)
            old = None
            if stage2 and self.historical is not None:
                old = self.historical(clip[None])[0].float().clamp(0, 1)
        place = {row: p for p, row in enumerate(draw.rows)}
        made = list(
            make_rows(
                draw.shown,
                self.bank.working,
                lambda row: self.bank.shown([row], draw.box),
                lambda row: out[place[row]][None],
                self.bank.estimator,
                self.bank.settings,
                self.bank.sis_threshold,
            )
        )
        index = [place[row] for row in draw.shown]
        return Rows(
            label=torch.cat([m.label for m in made]),
            mask=torch.cat([m.mask for m in made]),
            teacher=out[index],
            choice=torch.cat([m.choice for m in made]),
            visible=torch.cat([m.visible for m in made]),
            historical=None if old is None else old[index],
        )
