"""How long a run takes on this machine: measured once on frames of the video, used by plan, budget and preview."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import av
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from selfhvd_tta.events import Listener, ignore
from selfhvd_tta.method.clues import Clues, select_clues
from selfhvd_tta.method.explaining import Explainer
from selfhvd_tta.method.exposure import Exposure
from selfhvd_tta.method.losses import perceptual_loss, reconstruction_loss
from selfhvd_tta.method.restoration import Restorer
from selfhvd_tta.method.teachers import choose_teachers, most_alignments
from selfhvd_tta.run import feeds
from selfhvd_tta.run.choice import choose_method
from selfhvd_tta.run.device import CPU
from selfhvd_tta.run.equipment import Equipment
from selfhvd_tta.run.frames import Details
from selfhvd_tta.run.memory import within_memory, working_set_limit
from selfhvd_tta.run.scan import Inspection
from selfhvd_tta.settings import AdaptationSettings, ClueSettings, OutputSettings, Settings
from selfhvd_tta.video.encoding import choose_encoding
from selfhvd_tta.video.opening import Reader
from selfhvd_tta.video.probe import VideoInfo
from selfhvd_tta.video.reader import Frame

SAMPLE = 8  # frames that are decoded, encoded and restored
# A network is timed on a part of the frame of at most this many pixels: its time grows with the area.
NETWORK_PIXELS = 640 * 360
NETWORK_FRAMES = 4
# Sharp frames that the slower measurement of blending aligns, unless that takes longer than this many seconds.
FEW, PATIENCE_S = 3, 4.0
QUICK_S = 1.0  # anything shorter is timed again: the first call may compile or allocate
STEP_SIDE, STEP_FRAMES = 128, 6  # of the clip that a step is timed on
# A training step over a forward pass: the backward pass costs about twice as much.
STEP_OVER_FORWARD = 3.2
REFRESHES = 6
CLOSING_SECONDS = 1.0  # muxing, verifying


@dataclass(frozen=True)
class Speeds:
    """Seconds on this machine, for frames of one size.

    Attributes:
        pair: to align one sharp frame to another frame and weigh it.
        write: to decode and encode a frame.
        frame: to run the backbone over a frame; 0 without one.
        step: of training, per pixel of all frames of the clip together; 0 without a backbone.
        merge: to blend a frame and its aligned sharp frames, whatever their number.
    """

    pair: float
    write: float
    frame: float = 0.0
    step: float = 0.0
    merge: float = 0.0

    def scaled(self, ratio: float) -> Speeds:
        """For frames of ``ratio`` times the area."""
        return replace(self.slowed(ratio), step=self.step)

    def slowed(self, factor: float) -> Speeds:
        """On a machine that takes ``factor`` times as long."""
        return Speeds(*(factor * value for value in (self.pair, self.write, self.frame, self.step, self.merge)))


@dataclass(frozen=True)
class Load:
    """How much there is to do.

    Attributes:
        frames: of the video.
        blurry: of them, those that are not sharp.
        working: frames that adaptation draws from.
        height, width: in pixels.
        labels_last: the flow's labels are made once and not at every refresh, which then needs no outputs in stage 1.
        density: alignments of this video, over those of one whose frames all find as many sharp frames as they may.
    """

    frames: int
    blurry: int
    working: int
    height: int
    width: int
    labels_last: bool = False
    density: float = 1.0

    @classmethod
    def of(cls, seen: Inspection, settings: Settings, gear: Equipment, working: int) -> Load:
        """The load of a scanned video."""
        clues, align, count = seen.clues, settings.alignment, len(seen.pts)
        blurry = int((~clues.sharp).sum())
        found = sum(len(choose_teachers(index, clues, align).others) for index in range(count))
        density = found / max(1, most_alignments(count, blurry, align.teachers))
        return cls(count, blurry, working, seen.info.height, seen.info.width, gear.flow.explains_blur, density)

    def pairs(self, settings: Settings) -> float:
        """Alignments when every frame is blended with its sharp frames once."""
        align = settings.alignment
        return self.density * most_alignments(self.frames, self.blurry, align.teachers) * align.rounds


@dataclass(frozen=True)
class Forecast:
    """What a run costs.

    Attributes:
        speeds: of this machine for this video, if it had nothing else to do.
        load: of the video.
        busy: how many times longer everything takes because the machine is doing other work.
    """

    speeds: Speeds
    load: Load
    busy: float = 1.0

    @classmethod
    @within_memory("timing this machine for the plan")
    def measure(cls, reader: Reader, seen: Inspection, settings: Settings, gear: Equipment, working: int) -> Forecast:
        """Time every part of the run on a few frames of the video, around its first blurry one.

        Args:
            reader: of the video.
            seen: scan of it.
            settings: all settings.
            gear: device and networks.
            working: frames that adaptation draws from.
        """
        count, blurry = len(seen.pts), int((~seen.clues.sharp).argmax())
        first = max(0, min(blurry - SAMPLE // 2, count - SAMPLE))
        numbers = list(range(first, min(first + SAMPLE, count)))
        pictures: list[Tensor] = []
        coding, computing = Stopwatch(CPU), Stopwatch(gear.device)
        decode = coding.once(lambda: pictures.append(feeds.load_frames(reader, numbers)))
        encode = coding.once(lambda: _encode(reader.info, settings.output, pictures[0]))
        speeds = measure_speeds(pictures[0], settings, gear, computing)
        speeds = replace(speeds, write=(decode + encode) / len(numbers))
        return cls(speeds, Load.of(seen, settings, gear, working), computing.busy)

    def seconds(self, settings: Settings) -> float:
        """Estimated duration of a run after the scan."""
        return adapting(settings, self.speeds, self.load) + ending(settings, self.speeds, self.load) + CLOSING_SECONDS


def ending(settings: Settings, speeds: Speeds, load: Load) -> float:
    """Seconds for restoring, blending in and writing."""
    network = speeds.frame if settings.networked else 0.0
    pairs = load.pairs(settings) if settings.transfers else 0.0
    if settings.alignment.blur == "local" and settings.transfers:
        # Sharp frames are left as they are; flows between neighbors serve several frames.
        return load.frames * (network + speeds.write) + load.blurry * speeds.merge
    merging = speeds.merge if pairs else 0.0
    return load.frames * (network + merging + speeds.write) + pairs * speeds.pair


def adapting(settings: Settings, speeds: Speeds, load: Load) -> float:
    """Seconds for the adaptation."""
    if not settings.adapts:
        return 0.0
    plan = settings.adaptation
    shown = plan.length * plan.batch
    crop = min(plan.side, load.height) * min(plan.side, load.width)
    seconds = plan.iters * speeds.step * crop * shown
    if settings.method == "refit":
        return seconds
    label = load.pairs(settings) * speeds.pair / max(1, load.frames)
    if plan.teacher == "live":  # outputs and labels of the clip in every step
        return seconds + plan.iters * shown * (speeds.frame + label)
    every = plan.label_refresh or max(100, math.ceil(plan.iters / REFRESHES))
    refreshes = math.ceil(plan.iters / every)
    # Labels that stay ask for no outputs in stage 1, and labels are made when a clip first shows their frame.
    restored = 1 + math.ceil(refreshes * (1 - plan.stage1)) if load.labels_last else refreshes
    labels = min((1 if load.labels_last else refreshes) * load.working, plan.iters * shown)
    return seconds + restored * load.working * speeds.frame + labels * label


def measure_speeds(pictures: Tensor, settings: Settings, gear: Equipment, watch: Stopwatch) -> Speeds:
    """Time alignment, blending, backbone and training step.

    Args:
        pictures: (N, 3, H, W) uint8, consecutive frames; N >= 1.
        settings: all settings.
        gear: device and networks.
        watch: times each part.

    Returns:
        Speeds, without decoding and encoding.
    """
    frames = pictures.to(gear.device).float() / 255
    if settings.alignment.blur == "local":
        speeds = _explaining(frames, watch)
    else:
        speeds = _blending(frames, settings, gear, watch)
    if gear.network is None:
        return speeds
    part = _part(frames[:NETWORK_FRAMES])
    restorer = Restorer(gear.network, gear.network.backbone, gear.compute, len(part))
    per_pixel = watch.steady(lambda: list(restorer.restore(iter(part)))) / part[:, 0].numel()
    step = _step(gear, frames, settings.adaptation, watch) if settings.adapts else STEP_OVER_FORWARD * per_pixel
    return replace(speeds, frame=per_pixel * frames[0, 0].numel(), step=step)


def _blending(frames: Tensor, settings: Settings, gear: Equipment, watch: Stopwatch) -> Speeds:
    """Blend the first frame with one other as if that were sharp, and with several: a line through both times."""

    arrays = [(feeds.to_array(frame) * 255).round().astype(np.uint8) for frame in frames]

    def seconds(teachers: int) -> float:
        align = replace(settings.alignment, teachers=teachers)
        details = Details.of(gear.flow, gear.merger, replace(settings, alignment=align))
        clues = _one_blurry(teachers, settings.clues)

        def blend() -> None:
            shot = (Frame(i, i, arrays[i % len(arrays)]) for i in range(1 + teachers))
            details.blend(0, frames[0], frames[0], clues, feeds.SharpFeed(shot, clues, details.behind))

        return watch.steady(blend)

    rounds, most = settings.alignment.rounds, settings.alignment.teachers
    one = seconds(1)
    # As many at once as in the run, if that uses several threads.
    several = most if one * most < PATIENCE_S else min(most, max(FEW, torch.get_num_threads()))
    if several == 1:
        return Speeds(one / rounds, 0.0)
    pair = max(0.0, seconds(several) - one) / (several - 1)
    return Speeds(pair / rounds, 0.0, merge=max(0.0, one - pair))


def _explaining(frames: Tensor, watch: Stopwatch) -> Speeds:
    """Restore a frame in the middle by its local blur, with the others as what explains it."""
    arrays = [(feeds.to_array(frame) * 255).round().astype(np.uint8) for frame in frames]
    if len(arrays) < 3:
        return Speeds(0.0, 0.0)
    values = np.full(len(arrays), 100.0)
    values[len(arrays) // 2] = 1.0
    clues = select_clues(values, [range(len(arrays))], ClueSettings(normalise=False))
    exposure = Exposure(share=1.0, length=1e3, known=1.0)
    return Speeds(0.0, 0.0, merge=watch.steady(lambda: _explain(arrays, clues, exposure)))


def _explain(arrays: list[np.ndarray], clues: Clues, exposure: Exposure) -> None:
    Explainer(lambda index: arrays[index], clues, exposure).explain(len(arrays) // 2)


def _one_blurry(sharp: int, settings: ClueSettings) -> Clues:
    """Clues of a shot whose first frame is the only blurry one."""
    values = np.array([1.0, *[100.0] * sharp])
    return select_clues(values, [range(1 + sharp)], settings, np.ones_like(values))


def _part(frames: Tensor) -> Tensor:
    """The middle of frames that are larger than what a network is timed on."""
    height, width = frames.shape[-2:]
    scale = min(1.0, math.sqrt(NETWORK_PIXELS / (height * width)))
    high, wide = max(1, round(scale * height)), max(1, round(scale * width))
    top, left = (height - high) // 2, (width - wide) // 2
    return frames[..., top : top + high, left : left + wide]


def _step(gear: Equipment, frames: Tensor, plan: AdaptationSettings, watch: Stopwatch) -> float:
    """Seconds of a training step per pixel of its frames: forward and backward on a small crop; no weight changes."""
    side = min(STEP_SIDE, plan.crop or STEP_SIDE)
    clip = frames[:STEP_FRAMES, :, :side, :side][None]
    mask, weight = torch.ones_like(clip[:, :, :1]), torch.ones_like(clip[:, :, 0, 0, 0])
    network, features = gear.network, gear.features
    assert network is not None

    def perceive(frames: Tensor) -> Tensor:
        assert features is not None
        with gear.compute.context():
            return features(frames).float()

    def step() -> None:
        with gear.compute.context():
            output = network(clip).float()
        loss = reconstruction_loss(output, clip, mask, weight)
        if features is not None and plan.perceptual_weight:
            loss = loss + perceptual_loss(perceive, output, clip, mask, weight)
        loss.backward()

    network.train()
    seconds = watch.steady(step)
    network.zero_grad(set_to_none=True)
    network.eval()
    return seconds / (clip.shape[1] * clip.shape[3] * clip.shape[4])


def _encode(info: VideoInfo, settings: OutputSettings, pictures: Tensor) -> None:
    """Encode frames (N, 3, H, W) uint8 as the output will be, into memory."""
    # A folder of images, or a format that only the writer itself handles, is not counted.
    with suppress(av.error.FFmpegError, ValueError):
        encoding = choose_encoding(info, settings)
        with av.open(io.BytesIO(), "w", format="matroska") as container:
            stream = encoding.add_to(container)
            for picture in pictures.permute(0, 2, 3, 1).contiguous().numpy():
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=encoding.pix_fmt)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))


class Stopwatch:
    """Times work as it would take if the machine had nothing else to do.

    On a CPU the processor time counts where it is less than the wall clock's: the rest of the time went to others.

    Args:
        device: that works.

    Attributes:
        wall: seconds by the wall clock, of everything that was timed.
        own: seconds of the same, as they count.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.wall = self.own = 0.0

    @property
    def busy(self) -> float:
        """How many times as long things take as they would on an idle machine; 1 or more."""
        return self.wall / self.own if self.own > 0 else 1.0

    def once(self, work: Callable[[], object]) -> float:
        """Seconds of one call."""
        self._synchronise()
        wall, processor = time.perf_counter(), time.process_time()
        work()
        self._synchronise()
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        seconds = min(wall, processor) if self.device.type == "cpu" else wall
        self.wall, self.own = self.wall + wall, self.own + seconds
        return seconds

    def steady(self, work: Callable[[], object]) -> float:
        """Seconds of a call; of the second one where the first was short, as it may have compiled or allocated."""
        seconds = self.once(work)
        return self.once(work) if seconds < QUICK_S else seconds

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class RoughForecast:
    """Estimates for videos of which only size and length are known: networks are loaded and timed once.

    Args:
        settings: of all of them.
        listen: hears which networks were chosen.

    Raises:
        UsageError, WeightsError, DeviceError: as for a run with these settings.
    """

    SIZE = (360, 640)
    BLURRY = 0.6  # share of the frames that are not sharp: assumed for videos that were not scanned

    def __init__(self, settings: Settings, listen: Listener = ignore) -> None:
        settings = choose_method(settings, listen)
        self.gear = Equipment.load(settings, listen)
        self.settings = replace(settings, adaptation=settings.adaptation.on(self.gear.device.type))
        self.speeds = measure_speeds(_moving_texture(*self.SIZE), self.settings, self.gear, Stopwatch(self.gear.device))

    def seconds(self, height: int, width: int, count: int) -> float:
        """Rough duration of the work on one video, without reading and writing it."""
        working = working_set_limit(height, width, min(count, self.settings.adaptation.working_set))
        blurry = round(self.BLURRY * count)
        load = Load(count, blurry, min(count, working), height, width, self.gear.flow.explains_blur)
        ratio = height * width / (self.SIZE[0] * self.SIZE[1])
        return Forecast(self.speeds.scaled(ratio), load).seconds(self.settings)


def _moving_texture(height: int, width: int) -> Tensor:
    """(N, 3, H, W) uint8: a texture that moves by two pixels from frame to frame."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(1, 3, height // 8 + 1, width // 8 + 1, generator=generator)
    picture = F.interpolate(noise, size=(height, width), mode="bicubic").clamp(0, 1)
    return torch.cat([(255 * picture.roll((2 * n, n), (2, 3))).round().to(torch.uint8) for n in range(NETWORK_FRAMES)])
