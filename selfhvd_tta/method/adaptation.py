"""The two-stage fine-tuning of a network on one video."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from selfhvd_tta.errors import DeviceError, is_out_of_memory
from selfhvd_tta.events import Listener, Note
from selfhvd_tta.flows import release
from selfhvd_tta.method.bank import BankSupervision
from selfhvd_tta.method.literal import LiteralSupervision
from selfhvd_tta.method.live import LiveSupervision
from selfhvd_tta.method.optimiser import Adam, Group
from selfhvd_tta.method.pace import Pace
from selfhvd_tta.method.record import LOST_STEPS, Record
from selfhvd_tta.method.refit import ReblurredSupervision
from selfhvd_tta.method.state import AdaptationState, snapshot
from selfhvd_tta.method.supervision import Inputs, Supervision
from selfhvd_tta.method.working_set import WorkingSet
from selfhvd_tta.settings import AdaptationSettings, Settings
from selfhvd_tta.wording import plural

REPORT_EVERY = 10  # steps on a GPU between two readings of their losses, each of which waits for the GPU
SLOW_SHARE = 0.25
# What a step is reduced to where memory is short: pixels, a multiple of pixels, frames.
SMALLEST_CROP, CROP_GRID, SHORTEST_CLIP = 96, 16, 4


def supervision_of(settings: Settings) -> type[Supervision]:
    """What supervises an adaptation with these settings."""
    if settings.method == "refit":
        return ReblurredSupervision
    if settings.literal:
        return LiteralSupervision
    return LiveSupervision if settings.adaptation.teacher == "live" else BankSupervision


class Adaptation:
    """Fine-tunes a network in place on one video, or on the frames of several: the loop, and the optimiser.

    Args:
        inputs: the network, the video, and what labels are made with.
        settings: all settings.
        listen: gets progress and notes.
        until: time by ``time.monotonic`` at which it has to end, after any number of steps; None: ``iters`` steps.
        kind: what supervises it; None: as the settings say.
    """

    def __init__(
        self,
        inputs: Inputs,
        settings: Settings,
        listen: Listener,
        until: float | None = None,
        kind: type[Supervision] | None = None,
    ) -> None:
        self.inputs = inputs
        self.network = inputs.network
        self.settings = settings = replace(settings, adaptation=settings.adaptation.on(inputs.compute.device.type))
        self.listen = listen
        self.kind = kind or supervision_of(settings)
        self.state = AdaptationState(np.random.default_rng(settings.runtime.seed))
        self.pace = Pace(settings.adaptation.iters, settings.adaptation.stage1, until, phases=self.kind.phases)
        self.supervision = self.kind(inputs, settings, self.state, self.pace, listen)
        self.trainable = [p for p in self.network.parameters() if p.requires_grad]
        self.optimiser = Adam(self._groups())

    def _groups(self) -> list[Group]:
        """Parameters by their share of the learning rate."""
        groups: dict[float, list[nn.Parameter]] = {1.0: [], SLOW_SHARE: []}
        slow = () if self.settings.literal else self.inputs.backbone.slow
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                is_slow = bool(slow) and name.removeprefix("raw.").startswith(slow)
                groups[SLOW_SHARE if is_slow else 1.0].append(parameter)
        return [Group(params, share) for share, params in groups.items() if params]

    def run(self, after_step: Callable[[bool], None] = lambda refresh_is_next: None) -> Record:
        """Do all remaining steps; the network then holds the adapted weights, in eval mode.

        Args:
            after_step: called between steps with whether the next one begins with a refresh of the labels.
        """
        state, pace = self.state, self.pace
        if state.step == 0:
            state.good = snapshot(self.network)
            torch.manual_seed(self.settings.runtime.seed)
            pace.begin()
        while not pace.over(state.step) and not state.losses.hopeless:
            stage2 = state.stage2 or pace.second_stage(state.step)
            if not self.supervision.prepare(stage2):
                break
            self._set_rate()
            state.losses.add(state.step, stage2, *self._step_within_memory(stage2))
            state.finish_step(stage2)
            self.supervision.after_step()
            refresh_is_next = self.supervision.renews(state.step)
            # A refresh has to wait for the GPU anyway.
            if self.inputs.compute.device.type != "cuda" or refresh_is_next or state.losses.waiting == REPORT_EVERY:
                self.read()
            after_step(refresh_is_next)
        self.supervision.finish()
        self.read()
        if state.losses.hopeless:
            self._return_to_good_weights()
        self.network.eval()
        return state.record

    def change(self, working: WorkingSet, window: int) -> None:
        """Learn from other frames from the next step on; weights, optimiser and historical model stay.

        Args:
            working: the frames.
            window: of them that are restored at once.
        """
        self.supervision.finish()
        weights = snapshot(self.network)
        self.inputs = replace(self.inputs, working=working, window=window)
        self.supervision = self.kind(self.inputs, self.settings, self.state, self.pace, self.listen)
        self.state.good, self.state.used, self.state.refreshed = weights, set(), -1
        self.supervision.rebuild()
        if not self.supervision.renews(self.state.step):
            self.state.refreshed = self.state.step
        self.network.load_state_dict(weights)

    def step(self, stage2: bool) -> tuple[tuple[str, ...], Tensor]:
        """One optimiser step: names of the loss terms, and on the device their values and whether the step was taken.

        It is skipped, without asking the host, if the loss or its gradient is not finite.
        """
        self.network.train()
        lesson = self.supervision.lesson(stage2)
        with self.inputs.compute.context():
            output = self.network(lesson.clip)
        terms = lesson.terms(output.float())
        self.optimiser.clear()
        terms["loss"].backward()
        norm = torch.nn.utils.clip_grad_norm_(self.trainable, self.settings.adaptation.gradient_clip or math.inf)
        done = torch.isfinite(terms["loss"].detach()) & torch.isfinite(norm)
        self.optimiser.step(bad=(~done).float())
        return tuple(terms), torch.stack([*(value.detach().float() for value in terms.values()), done.float()])

    def _step_within_memory(self, stage2: bool) -> tuple[tuple[str, ...], Tensor]:
        """A step; when memory runs out, the same one with less.

        Raises:
            DeviceError: memory does not even suffice for the least.
        """
        while True:
            try:
                return self.step(stage2)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                change = self._descend()
                if change is None:
                    raise DeviceError(
                        f"not enough memory on {self.inputs.compute.device} for one training step",
                        "Take a smaller backbone, close other programs, or use --method transfer.",
                    ) from error
            # Not before: the traceback of the error holds the tensors of what has failed.
            self.optimiser.clear()
            release(self.inputs.compute.device)
            self.state.rng.bit_generator.state = self.state.draws
            self.listen(Note(f"memory ran out in a training step: continuing with {change}", "warning"))

    def _descend(self) -> str | None:
        """Ask for less memory from the next step on; what changes, or None where nothing can."""
        if self.supervision.to_host():
            self.inputs = self.supervision.inputs
            return "the labels in host memory"
        plan = smaller(self.settings.adaptation)
        if plan is None:
            return None
        self.settings = self.supervision.settings = replace(self.settings, adaptation=plan)
        return f"{plural(plan.batch, 'clip')} of {plural(plan.length, 'frame')} and crops of {plan.side} pixels"

    def read(self, tell: bool = True) -> None:
        """Record and report the losses of the steps since the last call."""
        events = self.state.losses.read(self.state.record, self.pace)
        # Last: a listener may end the run, and the record has to be complete then.
        for event in events if tell else ():
            self.listen(event)

    def _set_rate(self) -> None:
        plan = self.settings.adaptation
        position = self.pace.position(self.state.step)
        rate = cosine_rate(position, plan.first_rate(self.inputs.backbone.haste), plan.final_learning_rate)
        for group in self.optimiser.groups:
            group.rate = group.share * rate

    def _return_to_good_weights(self) -> None:
        step = self.state.step - 1
        self.network.load_state_dict(self.state.good)
        self.state.record.stopped = step
        text = f"adaptation ends at step {step} with the last good weights"
        self.listen(Note(f"the loss was not finite in {LOST_STEPS} steps in a row: {text}", "warning"))


def smaller(plan: AdaptationSettings) -> AdaptationSettings | None:
    """The plan with fewer clips, then smaller crops, then shorter clips; None where it is as small as is useful."""
    if plan.batch > 1:
        return replace(plan, batch=plan.batch // 2)
    if plan.side > SMALLEST_CROP:
        return replace(plan, crop=max(SMALLEST_CROP, 3 * plan.side // 4 // CROP_GRID * CROP_GRID))
    if plan.length > SHORTEST_CLIP:
        return replace(plan, clip_length=max(SHORTEST_CLIP, plan.length // 2))
    return None


def cosine_rate(position: float, first: float, last: float) -> float:
    """Learning rate: ``first`` at position 0 (the first step), ``last`` at 1 (the last one)."""
    return last + 0.5 * (first - last) * (1 + math.cos(math.pi * position))
