"""Supervision by the current model: outputs, flows and masks of every crop in every step, and a historical model."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from selfhvd_tta.events import Listener, Note
from selfhvd_tta.method.labels import Rows, make_rows, stacked
from selfhvd_tta.method.objective import objective
from selfhvd_tta.method.pace import STAGES, Pace
from selfhvd_tta.method.restoration import Restorer
from selfhvd_tta.method.sampling import Draw, draw_clips
from selfhvd_tta.method.scscm import HistoryCheck, check_history, history_rows
from selfhvd_tta.method.state import AdaptationState, snapshot
from selfhvd_tta.method.supervision import Inputs, Lesson, own_labels
from selfhvd_tta.method.working_set import on_device
from selfhvd_tta.settings import Settings

HISTORY_LOOKS = 10  # comparisons with the historical model over all steps


class LiveSupervision:
    """Only the historical model is kept from one step to the next. Arguments: see :class:`Supervision`.

    Attributes:
        historical: a copy of the network whose outputs are R^e (Eq. 9); None before stage 2.
    """

    phases: tuple[str, ...] = STAGES

    def __init__(
        self, inputs: Inputs, settings: Settings, state: AdaptationState, pace: Pace, listen: Listener
    ) -> None:
        self.inputs, self.settings, self.state, self.pace, self.listen = inputs, settings, state, pace, listen
        self.historical: nn.Module | None = None
        self.weight = torch.where(own_labels(inputs, settings), settings.adaptation.sharp_weight, 1.0)

    def renews(self, step: int) -> bool:
        """Never: all steps cost the same."""
        return False

    def prepare(self, stage2: bool) -> bool:
        """Take the historical model when stage 2 begins, and compare with it now and then."""
        plan, state = self.settings.adaptation, self.state
        if not stage2 or not plan.scscm:
            return True
        if not state.stage2:
            self.take_history()
        elif state.step % max(1, plan.iters // HISTORY_LOOKS) == 0 and state.record.renewals < plan.history_updates:
            state.judge(self._check_history(), self.take_history)
        return True

    def take_history(self) -> None:
        """Make the current model the historical one."""
        self.historical = copy.deepcopy(self.inputs.network).eval().requires_grad_(False)
        self.state.history = snapshot(self.inputs.network)

    def lesson(self, stage2: bool) -> Lesson:
        """Clips, and labels from the current model's outputs for the same crops."""
        plan, inputs = self.settings.adaptation, self.inputs
        draws = draw_clips(inputs.working, plan, self.state.rng, degrade=stage2 and plan.rscr)
        rows = stacked([self.rows(d, stage2).turned(d) for d in draws])
        weight = self.weight[on_device([d.shown for d in draws], inputs.compute.device)]
        return Lesson(
            self.clip(draws),
            lambda output: objective(output, rows, weight, inputs.perceive, plan, stage2),
        )

    def to_host(self) -> bool:
        """See :class:`Supervision`."""
        found = self.inputs.in_host_memory()
        self.inputs = found or self.inputs
        return found is not None

    def after_step(self) -> None:
        """Nothing to do."""

    def finish(self) -> None:
        """Nothing to do."""

    def rebuild(self) -> None:
        """The historical model."""
        if self.state.history:
            self.inputs.network.load_state_dict(self.state.history)
            self.take_history()

    def clip(self, draws: list[Draw]) -> Tensor:
        """What the network is shown, (B, T, 3, h, w)."""
        working, device = self.inputs.working, self.inputs.compute.device
        return torch.stack([d.turned(working.shown(d.shown, d.box, device)) for d in draws])

    @torch.no_grad()
    def outputs(self, clip: Tensor, stage2: bool) -> tuple[Tensor, Tensor | None]:
        """R of a clip (B, T, 3, h, w), and R^e in stage 2 where there is a historical model; both in [0, 1]."""
        with self.inputs.compute.context():
            out = self.inputs.network(clip).float().clamp(0, 1)
            if not stage2 or self.historical is None:
                return out, None
            return out, self.historical(clip).float().clamp(0, 1)

    @torch.no_grad()
    def rows(self, draw: Draw, stage2: bool) -> Rows:
        """Outputs, flows and masks of this crop, by the current model."""
        working, device = self.inputs.working, self.inputs.compute.device
        outputs, historical = self.outputs(working.shown(draw.rows, draw.box, device)[None], stage2)
        place = {row: p for p, row in enumerate(draw.rows)}
        made = list(
            make_rows(
                draw.shown,
                working,
                lambda row: working.shown([row], draw.box, device),
                lambda row: outputs[:, place[row]],
                self.inputs.estimator,
                self.settings.alignment,
                self.settings.adaptation.sis_threshold,
            )
        )
        index = [place[row] for row in draw.shown]
        return Rows(
            label=torch.cat([m.label for m in made]),
            mask=torch.cat([m.mask for m in made]),
            teacher=outputs[0, index],
            choice=torch.cat([m.choice for m in made]),
            visible=torch.cat([m.visible for m in made]),
            historical=None if historical is None else historical[0, index],
        )

    def _check_history(self) -> HistoryCheck:
        """Compare the current model with the historical one on some frames."""
        assert self.historical is not None
        rows = history_rows(len(self.inputs.working))
        new, old = self._restored(self.inputs.network, rows), self._restored(self.historical, rows)
        observed = [self._observed(row) for row in rows]
        return check_history(new, observed, old, self.inputs.estimator)

    def _restored(self, network: nn.Module, rows: list[int]) -> list[Tensor]:
        """A network's outputs (1, 3, H, W) for some rows; all frames are restored, for context."""
        inputs = self.inputs
        restorer = Restorer(
            network, inputs.backbone, inputs.compute, inputs.window, lambda t: self.listen(Note(t, "warning"))
        )
        found: dict[int, Tensor] = {}
        for run in inputs.working.runs:
            frames = (self._observed(row)[0] for row in run)
            found |= {r: out[None] for r, out in zip(run, restorer.restore(frames), strict=True) if r in rows}
        return [found[row] for row in rows]

    def _observed(self, row: int) -> Tensor:
        return self.inputs.working.observed(row, self.inputs.compute.device)
