"""The two-stage fine-tuning of a network on one video."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from selfhvd_tta.events import Listener, Note
from selfhvd_tta.method.bank import BankSupervision
from selfhvd_tta.method.literal import LiteralSupervision
from selfhvd_tta.method.live import LiveSupervision
from selfhvd_tta.method.optimiser import Adam, Group
from selfhvd_tta.method.pace import Pace
from selfhvd_tta.method.record import LOST_STEPS, Record
from selfhvd_tta.method.refit import ReblurredSupervision
from selfhvd_tta.method.state import AdaptationState, snapshot
from selfhvd_tta.method.supervision import Inputs
from selfhvd_tta.settings import Settings

REPORT_EVERY = 10  # steps on a GPU between two readings of their losses, each of which waits for the GPU
SLOW_SHARE = 0.25

AnySupervision = type[BankSupervision] | type[LiveSupervision] | type[ReblurredSupervision]


def supervision_of(settings: Settings) -> AnySupervision:
    """What supervises an adaptation with these settings."""
    if settings.method == "refit":
        return ReblurredSupervision
    if settings.literal:
        return LiteralSupervision
    return LiveSupervision if settings.adaptation.teacher == "live" else BankSupervision


class Adaptation:
    """Fine-tunes a network in place on one video: the loop, and the optimiser.

    Args:
        inputs: the network, the video, and what labels are made with.
        settings: all settings.
        listen: gets progress and notes.
        until: time by ``time.monotonic`` at which it has to end, after any number of steps; None: ``iters`` steps.
    """

    def __init__(self, inputs: Inputs, settings: Settings, listen: Listener, until: float | None = None) -> None:
        self.inputs = inputs
        self.network = inputs.network
        self.settings = settings = replace(settings, adaptation=settings.adaptation.on(inputs.compute.device.type))
        self.listen = listen
        kind = supervision_of(settings)
        self.state = AdaptationState(np.random.default_rng(settings.runtime.seed))
        self.pace = Pace(settings.adaptation.iters, settings.adaptation.stage1, until, phases=kind.phases)
        self.supervision = kind(inputs, settings, self.state, self.pace, listen)
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
        state, pace, supervision = self.state, self.pace, self.supervision
        if state.step == 0:
            state.good = snapshot(self.network)
            torch.manual_seed(self.settings.runtime.seed)
            pace.begin()
        while not pace.over(state.step) and not state.losses.hopeless:
            stage2 = state.stage2 or pace.second_stage(state.step)
            if not supervision.prepare(stage2):
                break
            self._set_rate()
            state.losses.add(state.step, stage2, *self.step(stage2))
            state.finish_step(stage2)
            supervision.after_step()
            refresh_is_next = supervision.renews(state.step)
            # A refresh has to wait for the GPU anyway.
            if self.inputs.compute.device.type != "cuda" or refresh_is_next or state.losses.waiting == REPORT_EVERY:
                self.read()
            after_step(refresh_is_next)
        supervision.finish()
        self.read()
        if state.losses.hopeless:
            self._return_to_good_weights()
        self.network.eval()
        return state.record

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


def cosine_rate(position: float, first: float, last: float) -> float:
    """Learning rate: ``first`` at position 0 (the first step), ``last`` at 1 (the last one)."""
    return last + 0.5 * (first - last) * (1 + math.cos(math.pi * position))
