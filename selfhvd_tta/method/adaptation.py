"""The two-stage fine-tuning of a network on one video."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from selfhvd_tta.backbones import Backbone
from selfhvd_tta.events import Listener, Note, Progress
from selfhvd_tta.flows import FlowEstimator
from selfhvd_tta.method.labels import LabelBank, on_device
from selfhvd_tta.method.literal import LiveTeacher
from selfhvd_tta.method.objective import objective
from selfhvd_tta.method.optimiser import Adam, Group
from selfhvd_tta.method.pace import Pace
from selfhvd_tta.method.record import LOST_STEPS, Losses, Record
from selfhvd_tta.method.restoration import Compute, Restorer
from selfhvd_tta.method.sampling import draw_clips
from selfhvd_tta.method.scscm import HistoryCheck, check_history
from selfhvd_tta.method.teachers import choose_teachers
from selfhvd_tta.method.validation import HeldOut
from selfhvd_tta.method.working_set import WorkingSet
from selfhvd_tta.settings import Settings

HISTORY_FRAMES = 6
REPORT_EVERY = 10  # steps of a GPU between two looks at their losses, for which it has to be waited for
SLOW_SHARE = 0.25
# So that a run is seen to move soon, the labels of its first step are merged from so few teachers, where there are so
# many steps that one of them does not matter. They are made anew when a later clip shows their frames.
FIRST_TEACHERS = 2
MANY_STEPS = 50


class Adaptation:
    """Fine-tunes ``network`` in place on one video.

    Args:
        network: wrapped network, (B, T, 3, H, W) in [0, 1] to the same shape.
        backbone: its descriptor.
        working: frames to learn from.
        estimator: optical flow for the labels.
        features: perceptual features, or None.
        compute: device and precision.
        settings: all settings.
        listen: gets progress and notes.
        window: frames restored at once when labels are refreshed.
        until: time by ``time.monotonic`` at which it has to be over, after however many steps; None: ``iters`` steps.
    """

    def __init__(
        self,
        network: nn.Module,
        backbone: Backbone,
        working: WorkingSet,
        estimator: FlowEstimator,
        features: nn.Module | None,
        compute: Compute,
        settings: Settings,
        listen: Listener,
        window: int,
        until: float | None = None,
    ) -> None:
        self.network = network
        self.backbone = backbone
        self.working = working
        self.estimator = estimator
        self.features = features
        self.compute = compute
        self.settings = settings = replace(settings, adaptation=settings.adaptation.on(compute.device.type))
        self.listen = listen
        self.window = window
        self.rng = np.random.default_rng(settings.runtime.seed)
        self.bank = LabelBank(
            working,
            compute.device,
            working.frames.device,
            estimator,
            settings.alignment,
            settings.adaptation.sis_threshold,
        )
        self.literal = LiveTeacher(network, backbone, self.bank, compute, window)
        self.record, self.losses = Record(), Losses()
        self.own_label = torch.tensor(
            [choose_teachers(row, working.clues, settings.alignment).equal for row in range(len(working))],
            device=compute.device,
        )
        plan = settings.adaptation
        self.pace = Pace(plan.iters, plan.stage1, until)
        self.held_out = HeldOut(~self.own_label) if plan.early_stop and plan.teacher == "bank" else None
        # A sharp frame that is its own label pulls the network to the identity: it only anchors it.
        self.weight = torch.where(self.own_label, plan.sharp_weight, 1.0)
        if self.held_out is not None:
            self.weight[self.held_out.rows] = 0.0
        self.refresh_seconds = 0.0
        # Where the adaptation is, so that it can be taken up again (checkpoint.py): steps done, the step before which
        # labels were last renewed and the rows shown since, the draws after the last step (one may be interrupted), the
        # stage of that step, and the weights at the last refresh and of the historical model (empty: none yet).
        self.next_step = 0
        self.refreshed = -1
        self.used: set[int] = set()
        self.drawn = self.rng.bit_generator.state
        self.stage2 = False
        self.good: dict[str, Tensor] = {}
        self.history: dict[str, Tensor] = {}
        self.refresh_every = plan.label_refresh or max(100, math.ceil(plan.iters / 6))
        self.trainable = [p for p in network.parameters() if p.requires_grad]
        self.optimiser = Adam(self._groups())

    def _groups(self) -> list[Group]:
        """Parameters by their share of the learning rate."""
        groups: dict[float, list[nn.Parameter]] = {1.0: [], SLOW_SHARE: []}
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                slow = name.removeprefix("raw.").startswith(self.backbone.slow) if self.backbone.slow else False
                groups[SLOW_SHARE if slow else 1.0].append(parameter)
        return [Group(params, share) for share, params in groups.items() if params]

    def run(self, after_step: Callable[[bool], None] = lambda refresh_is_next: None) -> Record:
        """Do all steps that are left; the network holds the adapted weights afterwards, in eval mode.

        Args:
            after_step: called between steps; told whether the next one begins with a refresh of the labels.
        """
        plan = self.settings.adaptation
        live = plan.teacher == "live"
        if self.next_step == 0:
            self.good = copy.deepcopy(self.network.state_dict())
            torch.manual_seed(self.settings.runtime.seed)
            self.pace.begin()
        reckoned = True
        while not self.pace.over(self.next_step) and not self.losses.hopeless:
            step = self.next_step
            enters_stage2 = not self.stage2 and self.pace.second_stage(step)
            stage2 = self.stage2 or enters_stage2
            if live:
                if stage2 and plan.scscm and (enters_stage2 or step % max(1, plan.iters // 10) == 0):
                    self._consider_live_history(step, enters_stage2)
            elif self.refreshed == step:
                pass  # taken up where the first step after a refresh was interrupted
            elif step == 0 or (self._refreshes(step) and self._affords(stage2)):
                self.refresh(step, stage2)
                self.refreshed, self.used = step, set()
                if self.held_out is not None and self.held_out.tired:
                    self._end_early(step)
                    break
                self.good = copy.deepcopy(self.network.state_dict())
            elif enters_stage2 and plan.scscm:
                self.bank.take_history()  # no time for a refresh: the outputs of the last one
                self.history = copy.deepcopy(self.good)
            rate = cosine_rate(self.pace.position(step), plan.first_rate(self.backbone.haste), plan.final_learning_rate)
            for group in self.optimiser.groups:
                group.rate = group.share * rate
            self.losses.add(step, stage2, *self.step(stage2, live))
            self.next_step, self.stage2, self.drawn = step + 1, stage2, self.rng.bit_generator.state
            reckoned = not live and self._refreshes(self.next_step)
            if reckoned:
                self._reckon()
            if self.compute.device.type != "cuda" or self.losses.waiting == REPORT_EVERY:
                self.read()
            after_step(not live and self._refreshes(self.next_step))
        if not reckoned:
            self._reckon()
        self.read()
        if self.losses.hopeless:
            step = self.next_step - 1
            self.network.load_state_dict(self.good)
            self.record.stopped = step
            text = f"adaptation ends at step {step} with the last good weights"
            self.listen(Note(f"the loss was not finite in {LOST_STEPS} steps in a row: {text}", "warning"))
        self.network.eval()
        return self.record

    def _refreshes(self, step: int) -> bool:
        """Whether labels are to be renewed before a step that is not the first."""
        enters_stage2 = not self.stage2 and self.pace.second_stage(step)
        # Stage 2 begins with a refresh and counts from there, lest another one follow a few steps later.
        first = self.pace.stage1_steps if self.stage2 and self.pace.until is None else 0
        return enters_stage2 or (step - first) % self.refresh_every == 0

    def _affords(self, stage2: bool) -> bool:
        """Whether there is time for a refresh; stage 2 cannot do without outputs."""
        return (stage2 and not self.bank.has_outputs) or self.pace.allows(self.refresh_seconds)

    def _needs_outputs(self, stage2: bool) -> bool:
        """Whether anything looks at R: labels of a flow that starts from it, stage 2, early stop."""
        return stage2 or not self.bank.lasting or self.held_out is not None

    def _reckon(self) -> None:
        """Record how much of the blurry frames the labels in use cover."""
        blurry = sorted(row for row in self.used if not self.own_label[row])
        if blurry:
            self.record.coverage.append(float(self.bank.coverage[blurry].mean()))

    def rebuild(self) -> None:
        """Compute again what is determined by weights: labels, historical outputs, and the held-out frames' labels.

        The network comes with the weights it had before the first step, and may have any others afterwards.
        """
        live = self.settings.adaptation.teacher == "live"
        if self.held_out is not None and self.held_out.errors:
            self._relabel(self.stage2)
            self.held_out.keep_labels(self.bank)
        if self.history:
            self.network.load_state_dict(self.history)
            if live:
                self.literal.take_history()
            else:
                self.bank.take_outputs(self._outputs())
                self.bank.take_history()
        refresh_is_next = self._refreshes(self.next_step) and self.refreshed != self.next_step
        if not live and not (self.pace.until is None and refresh_is_next):
            self.network.load_state_dict(self.good)
            # The step after a refresh may be the first one of stage 2.
            self._relabel(self.stage2 or self.refreshed == self.next_step)
            self._complete(sorted(self.used))

    def _end_early(self, step: int) -> None:
        assert self.held_out is not None
        self.read()
        self.held_out.restore(self.network)
        self.record.ended_early = step
        self.listen(Note(f"early stop at step {step}: the error on held-out frames no longer falls; best weights kept"))

    def read(self, tell: bool = True) -> None:
        """Losses of the steps since the last time, recorded and told."""
        events = self.losses.read(self.record, self.pace)
        # Last: whoever listens may end the run, and the record has to be complete then.
        for event in events if tell else ():
            self.listen(event)

    def _outputs(self) -> Iterator[tuple[int, Tensor]]:
        """Present outputs of the whole working set, row by row."""
        restorer = Restorer(
            self.network, self.backbone, self.compute, self.window, lambda text: self.listen(Note(text, "warning"))
        )
        for run in self.working.runs:
            yield from zip(run, restorer.restore(self.bank.observed(row)[0] for row in run), strict=True)

    def refresh(self, step: int, stage2: bool) -> None:
        """Renew the labels by the present outputs, and in stage 2 take or look at the historical ones."""
        plan = self.settings.adaptation
        begun = time.monotonic()
        self._relabel(stage2)
        self.refresh_seconds = time.monotonic() - begun
        if self.held_out is not None:
            self.held_out.look(self.bank, self.network)
            self.record.held_out = self.held_out.errors
        if not plan.scscm or not stage2:
            return
        if self.bank.historical is None:
            self._take_history()
        elif self.record.renewals < plan.history_updates:
            rows = self._history_rows()
            check = check_history(
                [self.bank.current(row) for row in rows],
                [self.bank.observed(row) for row in rows],
                [self.bank.historical[row : row + 1].to(self.compute.device).float() for row in rows],
                self.estimator,
            )
            self._judge(step, check, self._take_history)

    def _relabel(self, stage2: bool) -> None:
        """Let labels be those of the present outputs. They are made when a clip shows them, see :meth:`_complete`."""
        self.bank.renew(self._outputs() if self._needs_outputs(stage2) else None)

    def _complete(self, rows: Sequence[int], teachers: int | None = None) -> None:
        """Make the labels that these rows lack, for now of no more than so many teachers."""
        begun, total = time.monotonic(), len(self.working)
        self.bank.complete(rows, lambda done: self.listen(Progress("labels", done, total)), teachers)
        if not self.bank.lasting:
            self.refresh_seconds += time.monotonic() - begun  # the next refresh will cost as much again

    def _take_history(self) -> None:
        self.bank.take_history()
        self.history = copy.deepcopy(self.network.state_dict())

    def _judge(self, step: int, check: HistoryCheck, renew: Callable[[], None]) -> None:
        self.record.checks.append((step, check))
        if check.renew:
            renew()
            self.record.renewals += 1

    def _history_rows(self) -> list[int]:
        return np.unique(np.linspace(0, len(self.working) - 1, HISTORY_FRAMES).round().astype(int)).tolist()

    def _consider_live_history(self, step: int, enters_stage2: bool) -> None:
        """Literal mode: the historical *model* is kept, and its outputs are computed in every step."""

        def take() -> None:
            self.literal.take_history()
            self.history = copy.deepcopy(self.network.state_dict())

        if enters_stage2:
            take()
        elif self.record.renewals < self.settings.adaptation.history_updates:
            self._judge(step, self.literal.check_history(self._history_rows(), self._outputs()), take)

    def step(self, stage2: bool, live: bool) -> tuple[tuple[str, ...], Tensor]:
        """One optimiser step: names of the loss terms, and on the device their values and whether it was done.

        It is left out, without the host being asked, where the loss or its gradient is not finite.
        """
        plan = self.settings.adaptation
        draws = draw_clips(self.working, plan, self.rng, degrade=stage2 and plan.rscr)
        if not live:
            shown = [row for d in draws for row in d.shown]
            if self.next_step == 0 and plan.iters >= MANY_STEPS:
                self._complete(shown, FIRST_TEACHERS)
            else:
                self._complete(shown)
                self.used.update(shown)
        self.network.train()
        clip = torch.stack([d.turned(self.bank.shown(d.shown, d.box)) for d in draws])
        supervision = [self.literal.rows(d, stage2) if live else self.bank.rows(d.shown, d.box) for d in draws]
        with self.compute.context():
            output = self.network(clip)
        weight = self.weight[on_device([d.shown for d in draws], output.device)]
        return self._descend(objective(output.float(), draws, supervision, weight, self.features, plan, stage2))

    def _descend(self, terms: dict[str, Tensor]) -> tuple[tuple[str, ...], Tensor]:
        self.optimiser.clear()
        terms["loss"].backward()
        norm = torch.nn.utils.clip_grad_norm_(self.trainable, self.settings.adaptation.gradient_clip)
        done = torch.isfinite(terms["loss"].detach()) & torch.isfinite(norm)
        self.optimiser.step(bad=(~done).float())
        return tuple(terms), torch.stack([*(value.detach().float() for value in terms.values()), done.float()])


def cosine_rate(position: float, first: float, last: float) -> float:
    """Learning rate: ``first`` at position 0 (the first step), ``last`` at 1 (the last one)."""
    return last + 0.5 * (first - last) * (1 + math.cos(math.pi * position))
