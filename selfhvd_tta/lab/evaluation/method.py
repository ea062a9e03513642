"""The method on frames without any codec: what ``deblur()`` does between decoding and encoding."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfhvd_tta.backbones.wrapper import Network
from selfhvd_tta.errors import InputError, UsageError
from selfhvd_tta.events import Listener, Progress
from selfhvd_tta.lab.datasets.frames import Frames
from selfhvd_tta.method.adaptation import Adaptation
from selfhvd_tta.method.clues import Clues, laplacian_variance, local_contrast, select_clues
from selfhvd_tta.method.record import Record
from selfhvd_tta.method.restoration import Restorer
from selfhvd_tta.method.supervision import Inputs
from selfhvd_tta.method.working_set import WorkingSet, choose_frames, restrict
from selfhvd_tta.run import memory as resources
from selfhvd_tta.run.blur import Blur, measure_blur, settled
from selfhvd_tta.run.equipment import Equipment
from selfhvd_tta.run.frames import RestoredFrame, blending, run_frames
from selfhvd_tta.run.scan import judge
from selfhvd_tta.settings import BlurKind, ClueSettings, Method, Settings
from selfhvd_tta.video.reader import Frame
from selfhvd_tta.video.shots import ShotDetector

FloatImage = NDArray[np.float32]


@dataclass(frozen=True)
class Scanned:
    """A video whose clues are known.

    Attributes:
        frames: the video.
        clues: its sharp frames and shots.
        helpful: whether there is blur that sharp frames of the same shot could mend.
        verdict: why, one line.
    """

    frames: Frames
    clues: Clues
    helpful: bool
    verdict: str

    def read(self, indices: Sequence[int]) -> Iterator[Frame]:
        """Some frames, ascending, as a reader of a file gives them."""
        return (Frame(i, i, f) for i, f in zip(indices, self.frames.on_canvas(indices), strict=True))

    def blur(self, kind: BlurKind) -> Blur:
        """The blur of its frames, measured."""
        return measure_blur(self, self.clues, kind)


def scan(frames: Frames, settings: ClueSettings, listen: Listener) -> Scanned:
    """Select the clues of a video.

    Luma comes from RGB here, where ``deblur()`` takes the decoder's; the two agree to rounding.

    Raises:
        InputError: there is no frame, or one cannot be read.
    """
    values: list[float] = []
    contrast: list[float] = []
    detector = ShotDetector()
    for frame in frames.on_canvas(range(len(frames))):
        y = np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8)
        values.append(laplacian_variance(y))
        contrast.append(local_contrast(y))
        detector.add(y)
    if not values:
        raise InputError(f"{frames.name}: holds no frame", "Check the data set.")
    listen(Progress("scan", len(values), len(values)))
    clues = select_clues(np.asarray(values), detector.shots(), settings, np.asarray(contrast))
    return Scanned(frames, clues, *judge(clues, settings))


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
        if settings.method == "auto":
            settings = replace(settings, method="adapt")  # what is measured does not depend on the machine
        # Also where nothing is blended in at the end: the table shows both.
        self.gear = Equipment.load(replace(settings, detail=True), listen)
        self.settings = replace(settings, adaptation=settings.adaptation.on(self.gear.device.type))
        if self.gear.network is not None:
            self.pristine = {k: v.detach().clone() for k, v in self.gear.network.state_dict().items()}

    def by(self, method: Method) -> Subject:
        """The same networks, used by another method; only one that learns can become one that does."""
        other = copy.copy(self)
        other.settings = replace(self.settings, method=method)
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
            UsageError: several videos differ in size.
        """
        self.reset()
        working = self._working_set(videos)
        height, width = working.frames.shape[-2:]
        inputs = Inputs(
            self.network,
            self.network.backbone,
            working,
            self.gear.flow,
            self.gear.features,
            self.gear.compute,
            self.gear.window(height, width, self.settings),
        )
        return Adaptation(inputs, self.settings, self.listen).run()

    def _working_set(self, videos: list[Scanned]) -> WorkingSet:
        sizes = {video.frames.canvas for video in videos}
        if len(sizes) != 1:
            raise UsageError(
                f"--joint needs videos of one size, and there are {len(sizes)}", "Adapt per video (leave --joint out)."
            )
        height, width = sizes.pop()
        plan, segment = self.settings.adaptation, self.settings.clues.segment
        limit = max(segment, resources.working_set_limit(height, width, plan.working_set) // len(videos))
        chosen = [choose_frames(video.clues, limit, segment) for video in videos]
        total = sum(map(len, chosen))
        store = resources.bank_store(height, width, total, self.gear.device)
        stack = torch.empty((total, 3, height, width), dtype=torch.uint8)
        row = 0
        for video, numbers in zip(videos, chosen, strict=True):
            for frame in video.frames.on_canvas(numbers):
                stack[row] = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)
                row += 1
        clues, runs = merge([restrict(v.clues, n) for v, n in zip(videos, chosen, strict=True)])
        numbers_all = tuple(n for numbers in chosen for n in numbers)
        return WorkingSet(stack.to(store), numbers_all, clues, runs)

    def network_outputs(self, video: Scanned) -> Iterator[Tensor]:
        """The network's output for every frame, with the weights that it has now: (3, H, W) on the canvas."""
        for result in self._run(video, self._restorer(video)):
            yield result.network

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


def merge(parts: list[tuple[Clues, tuple[range, ...]]]) -> tuple[Clues, tuple[range, ...]]:
    """Clues and runs of several working sets, one after the other; no shot reaches from one into the next."""
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *(len(clues.sharp) for clues, _ in parts)])[:-1].tolist()
    weights = [len(clues.sharp) for clues, _ in parts]

    def moved(ranges: tuple[range, ...], start: int) -> list[range]:
        return [range(r.start + start, r.stop + start) for r in ranges]

    clues = Clues(
        sharpness=np.concatenate([c.sharpness for c, _ in parts]),
        sharp=np.concatenate([c.sharp for c, _ in parts]),
        nearest=np.concatenate([c.nearest + s for (c, _), s in zip(parts, starts, strict=True)]),
        shots=tuple(r for (c, _), s in zip(parts, starts, strict=True) for r in moved(c.shots, s)),
        thresholds=tuple(t for c, _ in parts for t in c.thresholds),
        separability=float(np.average([c.separability for c, _ in parts], weights=weights)),
        contrast=float(np.exp(np.average([np.log(c.contrast) for c, _ in parts], weights=weights))),
        soft=np.concatenate([c.soft for c, _ in parts]),
        score=np.concatenate([c.score for c, _ in parts]),
    )
    return clues, tuple(r for (_, runs), s in zip(parts, starts, strict=True) for r in moved(runs, s))
