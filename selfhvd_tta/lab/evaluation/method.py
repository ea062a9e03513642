"""The method on frames without any codec: what ``deblur()`` does between decoding and encoding."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfhvd_tta.backbones.wrapper import Network
from selfhvd_tta.errors import UsageError
from selfhvd_tta.events import Listener
from selfhvd_tta.lab.evaluation.course import Course
from selfhvd_tta.lab.evaluation.scanned import Scanned
from selfhvd_tta.method.adaptation import Adaptation
from selfhvd_tta.method.record import Record
from selfhvd_tta.method.restoration import Restorer
from selfhvd_tta.method.supervision import Inputs, Supervision
from selfhvd_tta.run.blur import Blur, settled
from selfhvd_tta.run.equipment import Equipment
from selfhvd_tta.run.frames import RestoredFrame, blending, run_frames
from selfhvd_tta.settings import Method, Settings

FloatImage = NDArray[np.float32]


class Subject:
    """The method under test, with its networks loaded once.

    Args:
        settings: all settings; ``output`` does not matter.
        listen: gets progress and notes.

    Raises:
        DeviceError, UsageError, WeightsError: as :mod:`selfhvd_tta.run.equipment`.
    """

    def __init__(self, settings: Settings, listen: Listener) -> None:
        self.listen = listen
        self.kind: type[Supervision] | None = None
        if settings.method == "auto":
            settings = replace(settings, method="adapt")  # what is measured does not depend on the machine
        # Also where nothing is blended in at the end: the table shows both.
        self.gear = Equipment.load(replace(settings, detail=True), listen)
        self.settings = replace(settings, adaptation=settings.adaptation.on(self.gear.device.type))
        if self.gear.network is not None:
            self.pristine = {k: v.detach().clone() for k, v in self.gear.network.state_dict().items()}

    def by(self, method: Method, kind: type[Supervision] | None = None) -> Subject:
        """The same networks, used by another method; only one that learns can become one that does.

        Args:
            method: one of the program's.
            kind: what supervises its adaptation instead.
        """
        other = copy.copy(self)
        other.settings, other.kind = replace(self.settings, method=method), kind
        return other

    @property
    def names(self) -> dict[str, str]:
        """The networks in use, for the table."""
        names = {"method": self.settings.method, "flow": self.gear.flow.name, "device": str(self.gear.device)}
        network = self.gear.network
        if network is not None:
            names |= {"backbone": network.name, "weights": network.weights}
            names["perceptual"] = self.settings.adaptation.vgg_layer if self.gear.features is not None else "off"
            names["precision"] = str(self.gear.compute.autocast or torch.float32).removeprefix("torch.")
        return names

    @property
    def network(self) -> Network:
        """The backbone; only where there is one."""
        assert self.gear.network is not None
        return self.gear.network

    def reset(self) -> None:
        """Put the pretrained weights back."""
        self.network.load_state_dict(self.pristine)
        self.network.eval()

    def adapt(self, videos: list[Scanned]) -> Record:
        """Adapt the pretrained network to one video, or to several together (``--joint``, as DADeblur does).

        Raises:
            UsageError: there is no video.
        """
        course = Course(videos, self.settings, self.gear)
        return follow(course, self.adaptation(course))

    def adaptation(self, course: Course, turn: int = 0) -> Adaptation:
        """An adaptation of the pretrained network that begins with the working set number ``turn``."""
        self.reset()
        working, gear = course.working(turn), self.gear
        inputs = Inputs(
            self.network,
            self.network.backbone,
            working,
            gear.flow,
            gear.features,
            gear.compute,
            course.window(working),
        )
        return Adaptation(inputs, self.settings, self.listen, kind=self.kind)

    def network_outputs(self, video: Scanned) -> Iterator[Tensor]:
        """The network's output for every frame, with the weights that it has now: (3, H, W) on the canvas."""
        for result in self._run(video, self._restorer(video)):
            yield result.network

    def windowed_outputs(self, video: Scanned, windows: Sequence[tuple[int, ...]]) -> Iterator[Tensor]:
        """For every window the network's output for its middle frame, from nothing but the window: (3, H, W).

        Raises:
            UsageError: the network cannot do that.
        """
        for window in windows:
            numbers = sorted(window)
            read = dict(zip(numbers, video.frames.on_canvas(numbers), strict=True))
            clip = torch.from_numpy(np.stack([read[i] for i in window])).permute(0, 3, 1, 2)[None]
            try:
                with self.gear.compute.context():
                    output = self.network.middle(clip.to(self.gear.device).float() / 255)
            except ValueError as error:
                raise UsageError(f"--as-dadeblur: {error}", "Choose another --backbone.") from error
            yield output[0].float()

    def with_details(self, video: Scanned) -> Iterator[tuple[Tensor, Tensor]]:
        """The network's output for every frame as it is, and with sharp details blended in."""
        for result in self._run(video, self._restorer(video), video.blur(self.settings.alignment.blur)):
            yield result.network, result.blended

    def transferred(self, video: Scanned) -> Iterator[Tensor]:
        """Sharp-detail transfer into the output of the pretrained network, or into the input without one."""
        restorer, blur = None, video.blur(self.settings.alignment.blur)
        if self.gear.network is not None and settled(replace(self.settings, method="transfer"), blur).networked:
            self.reset()
            restorer = self._restorer(video)
        for result in self._run(video, restorer, blur):
            yield result.blended

    def _restorer(self, video: Scanned) -> Restorer | None:
        return self.gear.restorer(*video.frames.canvas, self.settings, self.listen)

    def _run(self, video: Scanned, restorer: Restorer | None, blur: Blur | None = None) -> Iterator[RestoredFrame]:
        """Frames through the network and, where the blur is given, with sharp details blended in."""
        count = len(video.frames)
        gear = self.gear if restorer is not None else replace(self.gear, network=None)
        way = blending(blur, gear, self.settings) if blur is not None else None
        return run_frames(lambda first: video.read(range(first, count)), video.clues, self.gear.device, restorer, way)


def follow(course: Course, adaptation: Adaptation, after_step: Callable[[bool], None] = lambda _: None) -> Record:
    """Run an adaptation to its end, taking working set after working set.

    Args:
        course: the working sets.
        adaptation: with the one of its next step.
        after_step: as for :meth:`Adaptation.run`, when the next working set has been taken.
    """
    total = adaptation.settings.adaptation.iters

    def step_done(refresh_is_next: bool) -> None:
        step = adaptation.state.step
        if step % course.steps == 0 and step < total:
            working = course.working(step // course.steps)
            adaptation.change(working, course.window(working))
        after_step(refresh_is_next)

    return adaptation.run(step_done)
