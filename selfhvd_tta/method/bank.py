"""Supervision by the label bank: labels, outputs and history of the last refresh, renewed every K steps."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from selfhvd_tta.events import Listener, Note, Progress
from selfhvd_tta.method.labels import LabelBank, stacked
from selfhvd_tta.method.objective import objective
from selfhvd_tta.method.pace import STAGES, Pace
from selfhvd_tta.method.restoration import Restorer
from selfhvd_tta.method.sampling import draw_clips
from selfhvd_tta.method.scscm import check_history, history_rows
from selfhvd_tta.method.state import AdaptationState, snapshot
from selfhvd_tta.method.supervision import Inputs, Lesson, own_labels
from selfhvd_tta.method.validation import HeldOut
from selfhvd_tta.method.working_set import on_device
from selfhvd_tta.settings import Settings

# The labels of the first step are merged from only this many teachers, so that progress shows early, if the run has
# enough steps for one of them not to matter. They are made again when a later clip shows their frames.
FIRST_TEACHERS = 2
MANY_STEPS = 50


class BankSupervision:
    """Labels made once per refresh on whole frames; a step only crops them. Arguments: see :class:`Supervision`."""

    phases: tuple[str, ...] = STAGES

    def __init__(
        self, inputs: Inputs, settings: Settings, state: AdaptationState, pace: Pace, listen: Listener
    ) -> None:
        self.inputs, self.settings, self.state, self.pace, self.listen = inputs, settings, state, pace, listen
        plan = settings.adaptation
        self.bank = LabelBank(
            inputs.working, inputs.compute.device, inputs.estimator, settings.alignment, plan.sis_threshold
        )
        self.own_label = own_labels(inputs, settings)
        # A sharp frame that is its own label pulls the network towards the identity: it is only an anchor.
        self.weight = torch.where(self.own_label, plan.sharp_weight, 1.0)
        self.held_out = HeldOut(~self.own_label, state) if plan.early_stop else None
        if self.held_out is not None:
            self.weight[self.held_out.rows] = 0.0
        self._coverage_known = True

    def renews(self, step: int) -> bool:
        """See :class:`Supervision`."""
        enters_stage2 = not self.state.stage2 and self.pace.second_stage(step)
        # Stage 2 begins with a refresh and counts from there, so that no other follows a few steps later.
        first = self.pace.stage1_steps if self.state.stage2 and self.pace.until is None else 0
        return enters_stage2 or (step - first) % self.settings.adaptation.refresh_every == 0

    def prepare(self, stage2: bool) -> bool:
        """Refresh the labels if it is due and there is time for it."""
        state, network = self.state, self.inputs.network
        if state.refreshed == state.step:
            return True  # resumed where the first step after a refresh was interrupted
        if state.step == 0 or (self.renews(state.step) and self._affords(stage2)):
            self.refresh(stage2)
            state.refreshed, state.used = state.step, set()
            if self.held_out is not None and self.held_out.stalled:
                self.held_out.restore(network)
                state.record.ended_early = state.step
                text = "the error on held-out frames no longer falls; best weights kept"
                self.listen(Note(f"early stop at step {state.step}: {text}"))
                return False
            state.good = snapshot(network)
        elif stage2 and not state.stage2 and self.settings.adaptation.scscm:
            self.bank.take_history()  # no time for a refresh: use the outputs of the last one
            state.history = dict(state.good)
        return True

    def refresh(self, stage2: bool) -> None:
        """Renew the labels from the current outputs, and in stage 2 take or check the historical ones."""
        plan, state = self.settings.adaptation, self.state
        begun = time.monotonic()
        self._relabel(stage2)
        state.refresh_seconds = time.monotonic() - begun
        if self.held_out is not None:
            self.held_out.look(self.bank, self.inputs.network)
        if not plan.scscm or not stage2:
            return
        if self.bank.historical is None:
            self._take_history()
        elif state.record.renewals < plan.history_updates:
            rows = history_rows(len(self.inputs.working))
            check = check_history(
                [self.bank.current(row) for row in rows],
                [self.bank.observed(row) for row in rows],
                [self.bank.historical[row : row + 1].to(self.bank.device).float() for row in rows],
                self.inputs.estimator,
            )
            state.judge(check, self._take_history)

    def lesson(self, stage2: bool) -> Lesson:
        """Clips, and the bank's rows of the frames that they show."""
        plan, state = self.settings.adaptation, self.state
        draws = draw_clips(self.inputs.working, plan, state.rng, degrade=stage2 and plan.rscr)
        shown = [row for d in draws for row in d.shown]
        if state.step == 0 and plan.iters >= MANY_STEPS:
            self._complete(shown, FIRST_TEACHERS)
        else:
            self._complete(shown)
            state.used.update(shown)
        rows = stacked([self.bank.rows(d.shown, d.box).turned(d) for d in draws])
        weight = self.weight[on_device([d.shown for d in draws], self.bank.device)]
        return Lesson(
            torch.stack([d.turned(self.bank.shown(d.shown, d.box)) for d in draws]),
            lambda output: objective(output, rows, weight, self.inputs.perceive, plan, stage2),
        )

    def to_host(self) -> bool:
        """See :class:`Supervision`."""
        found = self.inputs.in_host_memory()
        if found is not None:
            self.inputs = found
            self.bank.to_host(found.working)
        return found is not None

    def after_step(self) -> None:
        """Before labels are renewed, record what the current ones cover."""
        self._coverage_known = self.renews(self.state.step)
        if self._coverage_known:
            self._record_coverage()

    def finish(self) -> None:
        """See :class:`Supervision`."""
        if not self._coverage_known:
            self._record_coverage()

    def rebuild(self) -> None:
        """Labels, historical outputs, and the held-out frames' labels."""
        state, network = self.state, self.inputs.network
        if self.held_out is not None and state.record.held_out:
            self._relabel(state.stage2)
            self.held_out.keep_labels(self.bank)
        if state.history:
            network.load_state_dict(state.history)
            self.bank.take_outputs(self._outputs())
            self.bank.take_history()
        refresh_is_next = self.renews(state.step) and state.refreshed != state.step
        if self.pace.until is not None or not refresh_is_next:
            network.load_state_dict(state.good)
            # The step after a refresh may be the first one of stage 2.
            self._relabel(state.stage2 or state.refreshed == state.step)
            seconds = state.refresh_seconds
            self._complete(sorted(state.used))
            state.refresh_seconds = seconds

    def _affords(self, stage2: bool) -> bool:
        """Whether there is time for a refresh; stage 2 needs outputs."""
        return (stage2 and not self.bank.has_outputs) or self.pace.allows(self.state.refresh_seconds)

    def _record_coverage(self) -> None:
        blurry = sorted(row for row in self.state.used if not self.own_label[row])
        if blurry:
            self.state.record.coverage.append(float(self.bank.coverage[blurry].mean()))

    def _relabel(self, stage2: bool) -> None:
        """Base labels on the current outputs. They are made when a clip shows them, see :meth:`_complete`."""
        # What asks for R: labels of a flow that starts from it, stage 2, early stop.
        needs_outputs = stage2 or not self.bank.lasting or self.held_out is not None
        self.bank.renew(self._outputs() if needs_outputs else None)

    def _outputs(self) -> Iterator[tuple[int, Tensor]]:
        """Current outputs of the whole working set, row by row."""
        inputs = self.inputs
        restorer = Restorer(
            inputs.network, inputs.backbone, inputs.compute, inputs.window, lambda t: self.listen(Note(t, "warning"))
        )
        for run in inputs.working.runs:
            yield from zip(run, restorer.restore(self.bank.observed(row)[0] for row in run), strict=True)

    def _complete(self, rows: Sequence[int], teachers: int | None = None) -> None:
        """Make the labels that these rows lack, for now from at most ``teachers`` teachers."""
        begun, total = time.monotonic(), len(self.inputs.working)
        self.bank.complete(rows, lambda done: self.listen(Progress("labels", done, total)), teachers)
        if not self.bank.lasting:
            self.state.refresh_seconds += time.monotonic() - begun  # the next refresh will take the same time

    def _take_history(self) -> None:
        self.bank.take_history()
        self.state.history = snapshot(self.inputs.network)
