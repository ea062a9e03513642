"""``--budget``: what fits into a given time on this machine, for this video."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import av
import torch
from torch import Tensor

from selfhvd_tta.config import from_table, to_table
from selfhvd_tta.events import Listener, Note
from selfhvd_tta.method import transfer
from selfhvd_tta.method.composite import Composite, merge
from selfhvd_tta.method.losses import perceptual_loss, reconstruction_loss
from selfhvd_tta.method.restoration import Restorer
from selfhvd_tta.method.teachers import Teachers, most_alignments
from selfhvd_tta.run import feeds
from selfhvd_tta.run.equipment import Equipment
from selfhvd_tta.run.job import Job
from selfhvd_tta.run.scan import Inspection
from selfhvd_tta.settings import NO_BACKBONE, AdaptationSettings, Settings
from selfhvd_tta.video.encoding import choose_encoding
from selfhvd_tta.video.opening import Reader
from selfhvd_tta.wording import duration, plural

SAMPLE = 8  # frames that are decoded, restored and encoded to learn the speed
PAIRS = 3  # alignments timed
# What is left for restoring and writing, above its measured length: the machine may get busier.
CAUTION = 1.15
CLOSING_SECONDS = 1.0  # muxing, verifying
# Side of the crop and frames of the clip, dearest first; a smaller one is taken where the larger gives fewer steps than
# wanted. Below the last no adaptation is: 31 steps gained less than the teachers that they took the time from.
CLIPS = ((256, 10), (192, 8), (128, 6), (96, 6))
WANTED_STEPS = 150
FEWEST_STEPS = 100
# Share of the time for adaptation that renewing labels may take, and how often at most.
REFRESH_SHARE = 0.35
MOST_REFRESHES = 6


@dataclass(frozen=True)
class Speeds:
    """Seconds on this machine, for frames of this video.

    Attributes:
        pair: to align one sharp frame to a blurry one.
        write: to decode and encode a frame.
        frame: to run the network over a frame; 0 without one.
        step: of training, per pixel of all frames of the clip together.
        merge: to run the merging network over a frame and its teachers; 0 without one.
    """

    pair: float
    write: float
    frame: float = 0.0
    step: float = 0.0
    merge: float = 0.0


@dataclass(frozen=True)
class Load:
    """How much there is to do.

    Attributes:
        frames: of the video.
        blurry: of them, those that are no clues.
        working: frames that adaptation draws from.
        height, width: in pixels.
        labels_last: the flow's labels are made once and not at every refresh, which then needs no outputs in stage 1.
    """

    frames: int
    blurry: int
    working: int
    height: int
    width: int
    labels_last: bool = False


@dataclass(frozen=True)
class Choice:
    """What to do with the time.

    Attributes:
        settings: with steps, crop, clip length, refresh, teachers or method chosen.
        reserve: seconds for what comes after adaptation.
        text: one line for the user.
        fits: whether the budget is believed to suffice.
    """

    settings: Settings
    reserve: float
    text: str
    fits: bool


def choose(settings: Settings, left: float, speeds: Speeds, load: Load) -> Choice:
    """Spend ``left`` seconds well.

    Adaptation with all teachers comes first, then sharp-detail transfer with as many of them as there is time for,
    without the network if need be: what fewer teachers lose, neither makes up for. With fewer, adaptation is done only
    where transfer is not wanted: nothing shall be blended in, or the adapted weights are to be saved.

    Args:
        settings: what was asked for; crop and clip length are upper limits.
        left: seconds until the job has to be over.
        speeds: measured.
        load: of the video.
    """
    budget = duration(settings.runtime.budget or left)
    most = settings.alignment.teachers
    counts = [n for n in (most, 7, 5, 3, 1) if n <= most]
    if settings.adapts:
        only = not settings.blends or settings.save_adapted is not None
        for teachers in dict.fromkeys(counts if only else counts[:1]):
            choice = _adaptation(settings, left, speeds, load, teachers)
            if choice is not None:
                return choice
    if settings.learns and not settings.adaptation.iters:
        done, chosen = "the backbone as it is", settings
        seconds = _ending(settings, speeds, load, 0)
    else:
        chosen, seconds, done = _transfer(settings, left, speeds, load, counts)
        if settings.learns:
            done += ", for adaptation would take longer"
    fits = seconds <= left
    if fits:
        return Choice(chosen, seconds, f"budget of {budget}: {done}, about {duration(seconds)}", True)
    least = (settings.runtime.budget or left) - left + seconds
    text = f"the budget of {budget} is too short: the least for this video is about {duration(least)}; doing {done}"
    return Choice(chosen, seconds, text, False)


def _transfer(
    settings: Settings, left: float, speeds: Speeds, load: Load, counts: list[int]
) -> tuple[Settings, float, str]:
    """Settings, seconds and a description: with the most teachers that fit, then with the network if that fits too.

    On the clip "camera" ten teachers alone gave 38.48 dB, fewer with the network in equal time 38.27 dB.
    """
    plain = replace(settings, method="transfer", save_adapted=None)
    bare = replace(plain, backbone=NO_BACKBONE, weights=None, adapted=None)
    ways = [(way, teachers) for teachers in dict.fromkeys(counts) for way in dict.fromkeys((plain, bare))]
    for way, teachers in ways:
        seconds = _ending(way, speeds, load, teachers)
        if seconds <= left:
            break
    chosen = replace(way, alignment=replace(settings.alignment, teachers=teachers))
    done = f"sharp-detail transfer from {plural(teachers, 'frame')} each"
    if settings.networked and not way.networked:
        done += " into the frames as recorded"
    return chosen, seconds, done


def _ending(settings: Settings, speeds: Speeds, load: Load, teachers: int) -> float:
    """Seconds for restoring, blending in and writing."""
    network = speeds.frame if settings.networked else 0.0
    pairs = most_alignments(load.frames, load.blurry, teachers) * settings.alignment.rounds
    merging = speeds.merge if pairs else 0.0
    return CAUTION * (load.frames * (network + merging + speeds.write) + pairs * speeds.pair) + CLOSING_SECONDS


def _adaptation(settings: Settings, left: float, speeds: Speeds, load: Load, teachers: int) -> Choice | None:
    """Steps of the largest clip that allows enough of them; None if hardly any fit."""
    plan = settings.adaptation
    reserve = _ending(settings, speeds, load, teachers if settings.blends else 0)
    pairs = most_alignments(load.frames, load.blurry, teachers) * settings.alignment.rounds
    label = pairs * speeds.pair / max(1, load.frames)
    outputs = load.working * speeds.frame
    room = left - reserve
    refresh = outputs if load.labels_last else outputs + load.working * label
    refreshes = max(1, min(MOST_REFRESHES, int(REFRESH_SHARE * room / max(refresh, 1e-9))))
    restored = 1 + math.ceil(refreshes * (1 - plan.stage1)) if load.labels_last else refreshes
    every = load.working * (1 if load.labels_last else refreshes)
    best: tuple[int, int, int] | None = None
    for side, length in CLIPS:
        crop, frames = min(plan.crop or side, side), min(plan.clip_length or length, length)
        shown = frames * plan.batch
        step = speeds.step * min(crop, load.height) * min(crop, load.width) * shown
        time = room - restored * outputs
        # A label is made when a clip first shows its frame: there are no more of them than frames shown.
        steps = int(max((time - every * label) / step, time / (step + shown * label)))
        if steps >= FEWEST_STEPS and (best is None or best[0] < WANTED_STEPS):
            best = steps, crop, frames
    if best is None:
        return None
    steps, crop, frames = best
    adaptation: AdaptationSettings = replace(
        plan, iters=steps, crop=crop, clip_length=frames, label_refresh=math.ceil(steps / refreshes), teacher="bank"
    )
    chosen = replace(settings, adaptation=adaptation, alignment=replace(settings.alignment, teachers=teachers))
    text = (
        f"budget of {duration(settings.runtime.budget or left)}: about {steps} steps with crops of {crop} px and "
        f"{frames} frames, labels from {plural(teachers, 'sharp frame')} each made "
        f"{'once' if refreshes == 1 or load.labels_last else f'{refreshes} times'}, then {duration(reserve)} "
        "for restoring and writing"
    )
    return Choice(chosen, reserve, text, True)


@dataclass(frozen=True)
class Fit:
    """What a run is going to do.

    Attributes:
        settings: to run with.
        until: when the adaptation has to end, by ``time.monotonic``; None: after its steps.
    """

    settings: Settings
    until: float | None = None


def fit_once(
    reader: Reader, seen: Inspection, settings: Settings, gear: Equipment, working: int, job: Job, tell: Listener
) -> Fit:
    """What fits into the budget; measured by the first run, and the same for the runs that continue it.

    Args:
        reader: of the video.
        seen: scan of it.
        settings: what was asked for, with a budget.
        gear: device and networks.
        working: frames that adaptation draws from.
        job: knows when it began, and remembers the choice.
        tell: gets the choice as one line.
    """
    stored = job.recall("fit")
    if stored is not None:
        seconds = stored["seconds"]
        return Fit(from_table(stored["settings"]), None if seconds is None else time.monotonic() + seconds)
    assert settings.runtime.budget is not None
    deadline = job.started + settings.runtime.budget
    info, blurry = reader.info, int((~seen.clues.sharp).sum())
    load = Load(len(seen.pts), blurry, working, info.height, info.width, gear.flow.explains_blur)
    speeds = measure_speeds(reader, seen, settings, gear)
    choice = choose(settings, deadline - time.monotonic(), speeds, load)
    tell(Note(choice.text, "info" if choice.fits else "warning"))
    adapts = choice.settings.adapts
    until = deadline - choice.reserve if adapts else None
    left = None if until is None else until - time.monotonic()
    job.remember("fit", {"settings": to_table(choice.settings), "seconds": left})
    return Fit(choice.settings, until)


def measure_speeds(
    reader: Reader,
    seen: Inspection,
    settings: Settings,
    gear: Equipment,
) -> Speeds:
    """Time each part on a few frames of the video."""
    device, merger, network, count = gear.device, gear.merger, gear.network, len(seen.pts)
    blurry = int((~seen.clues.sharp).argmax())
    first = max(0, min(blurry - SAMPLE // 2, count - SAMPLE))
    numbers = list(range(first, min(first + SAMPLE, count)))
    begun = time.perf_counter()
    pictures = feeds.load_frames(reader, numbers)
    decode = (time.perf_counter() - begun) / len(numbers)
    encode = _encoding(reader, settings, pictures)
    frames = pictures.to(device).float() / 255
    source, others = frames[:1], [frames[i : i + 1] for i in range(1, min(1 + PAIRS, len(frames)))] or [frames[:1]]
    few = Teachers(0, tuple(range(1, 1 + len(others))), (1.0,) * len(others))
    candidates = merger.candidates if merger is not None else 0
    made: list[Composite] = []

    def compose() -> None:
        made.append(transfer.compose(source, source, others, few, gear.flow, settings.alignment, candidates=candidates))

    pair = _second(compose, device)
    merging = _second(lambda: merge(made[-1], source, source, merger), device) if merger is not None else 0.0
    speeds = Speeds(pair=pair / len(others), write=decode + encode, merge=merging)
    if network is None:
        return speeds
    restorer = Restorer(network, network.backbone, gear.compute, len(frames))
    frame = _second(lambda: list(restorer.restore(iter(frames))), device) / len(frames)
    speeds = replace(speeds, frame=frame)
    if not settings.adapts:
        return speeds
    return replace(speeds, step=_step(gear, frames, settings.adaptation))


def _step(gear: Equipment, frames: Tensor, plan: AdaptationSettings) -> float:
    """Seconds of a training step per pixel of its frames: forward and backward on a small crop; no weight changes."""
    side, length = CLIPS[-2]
    side = min(side, plan.crop or side)
    clip = frames[:length, :, :side, :side][None]
    mask, weight = torch.ones_like(clip[:, :, :1]), torch.ones_like(clip[:, :, 0, 0, 0])
    network, features = gear.network, gear.features
    assert network is not None

    def step() -> None:
        with gear.compute.context():
            output = network(clip).float()
        loss = reconstruction_loss(output, clip, mask, weight)
        if features is not None and plan.perceptual_weight:
            loss = loss + perceptual_loss(features, output, clip, mask, weight)
        loss.backward()

    network.train()
    seconds = _second(step, gear.device)
    network.zero_grad(set_to_none=True)
    network.eval()
    return seconds / (clip.shape[1] * clip.shape[3] * clip.shape[4])


def _encoding(reader: Reader, settings: Settings, pictures: Tensor) -> float:
    """Seconds to encode a frame, into memory."""
    try:
        encoding = choose_encoding(reader.info, settings.output)
        begun = time.perf_counter()
        with av.open(io.BytesIO(), "w", format="matroska") as container:
            stream = encoding.add_to(container)
            for picture in pictures.permute(0, 2, 3, 1).contiguous().numpy():
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=encoding.pix_fmt)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return (time.perf_counter() - begun) / len(pictures)
    except (av.error.FFmpegError, ValueError):
        return 0.0  # a folder of images, or a format that only the writer itself handles: not counted


def _second(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the second call: the first one may compile or allocate."""
    seconds = 0.0
    for _ in range(2):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        begun = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - begun
    return seconds
