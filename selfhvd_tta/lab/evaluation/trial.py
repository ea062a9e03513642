"""One video of a benchmark: adapt, restore, score."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import cv2
import numpy as np
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from selfhvd_tta.errors import InputError
from selfhvd_tta.events import Listener, Note
from selfhvd_tta.files import write_atomically
from selfhvd_tta.lab.datasets.frames import Frames, PictureFrames
from selfhvd_tta.lab.datasets.protocols import Pair, Windows
from selfhvd_tta.lab.evaluation import table
from selfhvd_tta.lab.evaluation.memory import PeakMemory
from selfhvd_tta.lab.evaluation.method import FloatImage, Subject
from selfhvd_tta.lab.evaluation.metrics.frames import quantise
from selfhvd_tta.lab.evaluation.rival import Rival
from selfhvd_tta.lab.evaluation.scanned import Scanned, scan
from selfhvd_tta.lab.evaluation.scoring import NoReference, Scorer, scored
from selfhvd_tta.method.record import Record
from selfhvd_tta.run import feeds
from selfhvd_tta.settings import Settings
from selfhvd_tta.video.target import disk_errors

Row = dict[str, Any]
Scores = dict[str, dict[str, float]]


@dataclass(frozen=True)
class TrialSettings:
    """How one video is run and scored.

    Attributes:
        method: settings of the method.
        skip: frames left out of the score at both ends.
        temporal: measure warping error, flicker and shift.
        no_reference: measures of single frames, by name.
        rival: score this instead of ``method``; None: ``method``.
        name: of the rival's row, or of one that is supervised otherwise; empty: by the settings.
        learned: the joint model was adapted on other videos: it is scored on every video, as ``learned``.
        windows: the frames that each output of the network is made of, as DADeblur does; None: all of the video.
    """

    method: Settings
    skip: tuple[int, int]
    temporal: bool
    no_reference: dict[str, NoReference]
    rival: Rival | None = None
    name: str = ""
    learned: bool = False
    windows: Callable[[Frames], Windows] | None = None


@dataclass(frozen=True)
class Joint:
    """One model adapted to a whole data set.

    Attributes:
        weights: its state dict.
        adaptation: what its adaptation did.
        seconds: that it took, for all videos together.
    """

    weights: dict[str, Tensor]
    adaptation: Row
    seconds: float


def run_video(
    subject: Subject,
    pair: Pair,
    settings: TrialSettings,
    joint: Joint | None,
    frames: Path | None,
    listen: Listener,
    known: Scores | None = None,
) -> Row:
    """Adapt to one video and score it.

    Args:
        subject: the method.
        pair: the video; its ground truth is opened when adaptation has ended.
        settings: of method and score.
        joint: weights to use instead of adapting to this video.
        frames: folder to write outputs to, or None.
        listen: gets progress and notes.
        known: scores of the input and of the backbone, where another method's run has them already.

    Returns:
        What the results file says of the video.

    Raises:
        InputError: a frame cannot be read, or the ground truth does not fit.
        ValueError: too few frames are left to score.
    """
    assert pair.blurry is not None
    method = settings.method
    listen(Note(f"{pair.name}: {len(pair.blurry)} frames"))
    peak = PeakMemory(subject.gear.device)
    seen = scan(pair.blurry, method.clues, listen)
    counted = scored(len(pair.blurry), settings.skip)
    # The data set knows better than the method that is measured.
    sharp = seen.clues.sharp.tolist() if pair.labels is None else list(pair.labels)
    known = known or {}
    names = _outputs_of(settings)
    # A rival does not ask whether there is anything to learn.
    helpful = seen.helpful or method.force or settings.rival is not None or settings.learned
    row: Row = {
        "video": pair.name,
        "frames": len(pair.blurry),
        "scored": len(counted),
        "size": list(pair.blurry.canvas),
        "sharp_frames": int(seen.clues.sharp.sum()),
        "soft_frames": int(seen.clues.soft.sum()),
        "verdict": seen.verdict,
        "action": (settings.name or method.method) if helpful else "passed through",
    }
    score = _Scoring(
        pair, seen, lambda: Scorer(counted, sharp, settings.temporal, settings.no_reference), _sink(frames)
    )
    methods: Scores = {name: known[name] for name in ("input", "backbone") if name in known}
    if settings.rival is not None:
        made = settings.rival.frames(pair.name, pair.blurry, listen)
        methods |= score.rival(settings.name, made, settings.rival.timed)
    elif helpful and method.method == "transfer":
        methods |= score.run(names, ((out,) for out in subject.transferred(seen)))
    elif helpful and names:
        row |= _adapt(subject, seen, joint)
        methods |= score.run(names, subject.with_details(seen) if method.blends else _plain(subject, seen, settings))
    if method.learns and settings.rival is None and "backbone" not in methods:
        # Last, as it needs the pretrained weights again: from here on the adapted ones are gone.
        subject.reset()
        methods |= score.run(("backbone",), _plain(subject, seen, settings))
    if "input" not in methods:
        methods |= score.inputs()
    if not helpful:
        methods |= {name: dict(methods["input"]) for name in names}
    memory = peak.read()
    row["methods"] = table.in_order(methods)
    return row | {"peak_memory": memory.size, "peak_memory_of": memory.of}


def _plain(subject: Subject, seen: Scanned, settings: TrialSettings) -> Iterator[tuple[Tensor]]:
    """The network's outputs with the weights that it has now."""
    if settings.windows is None:
        return ((out,) for out in subject.network_outputs(seen))
    return ((out,) for out in subject.windowed_outputs(seen, settings.windows(seen.frames)))


def _outputs_of(settings: TrialSettings) -> tuple[str, ...]:
    method = settings.method
    if settings.rival is not None:
        return (settings.name,)
    if not method.learns:
        return (method.method,)
    if method.adaptation.iters == 0:
        return ()
    name = settings.name or ("adapted" if method.method == "adapt" else method.method)
    if settings.learned:
        name = "learned"
    return (name, f"{name}+detail") if method.blends else (name,)


def _adapt(subject: Subject, seen: Scanned, joint: Joint | None) -> Row:
    """Put adapted weights into the network."""
    if joint is not None:
        subject.network.load_state_dict(joint.weights)
        return {"adaptation": joint.adaptation, "seconds_adaptation": joint.seconds}
    started = time.monotonic()
    record = subject.adapt([seen])
    return {"adaptation": _summary(record), "seconds_adaptation": time.monotonic() - started}


def adapt_jointly(
    subject: Subject, pairs: list[Pair], settings: TrialSettings, path: Path, fingerprint: str, listen: Listener
) -> Joint:
    """Adapt one model to all videos together, or take it from an earlier run of the same benchmark.

    Raises:
        UsageError: there is no video.
        DiskError: the weights cannot be kept.
    """
    if path.exists():
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            if about.get("fingerprint") == fingerprint:
                listen(Note("the joint model was adapted before"))
                weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                return Joint(weights, json.loads(about["adaptation"]), float(about["seconds"]))
    started = time.monotonic()
    videos = [scan(p.blurry, settings.method.clues, listen) for p in pairs if p.blurry is not None]
    record = subject.adapt(videos)
    weights = {k: v.detach().cpu().contiguous().clone() for k, v in subject.network.state_dict().items()}
    joint = Joint(weights, _summary(record), time.monotonic() - started)
    about = {"fingerprint": fingerprint, "adaptation": json.dumps(joint.adaptation), "seconds": str(joint.seconds)}
    with disk_errors(path), write_atomically(path) as part:
        save_file(weights, part, metadata=about)
    return joint


def files_of(pair: Pair, *more: Frames) -> list[list[tuple[str, int, int]]]:
    """Name, size and time of all files that decide a video's row."""
    return [_identity(frames) for frames in (pair.blurry, pair.sharp, *more) if frames is not None]


def _identity(frames: Frames) -> list[tuple[str, int, int]]:
    paths = frames.paths if isinstance(frames, PictureFrames) else [Path(frames.name)]
    return [(p.name, (stat := p.stat()).st_size, stat.st_mtime_ns) for p in paths]


def _summary(record: Record) -> Row:
    about = asdict(record)
    return {
        "steps": len(record.steps),
        **{key: about[key] for key in ("renewals", "skipped", "stopped", "coverage")},
    }


def _sink(folder: Path | None) -> Callable[[str, int, FloatImage], None] | None:
    if folder is None:
        return None

    def save(method: str, index: int, frame: FloatImage) -> None:
        path = folder / method / f"{index:08d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        done, data = cv2.imencode(".png", np.ascontiguousarray(quantise(frame)[..., ::-1]))
        if not done:
            raise RuntimeError(f"frame {index} could not be encoded as PNG")
        path.write_bytes(data.tobytes())

    return save


@dataclass
class _Scoring:
    """Scores outputs as they are made; opens the ground truth at the first of them."""

    pair: Pair
    seen: Scanned
    scorer: Callable[[], Scorer]
    save: Callable[[str, int, FloatImage], None] | None

    def run(self, names: tuple[str, ...], outputs: Iterable[tuple[Tensor, ...]]) -> dict[str, dict[str, float]]:
        """Scores by method name; the k-th name is that of the k-th output of every frame."""
        scorers = [self.scorer() for _ in names]
        clock: _Clock[tuple[Tensor, ...]] = _Clock(iter(outputs))
        pictures = zip(self.seen.frames, self._truth(), strict=True)
        for index, (tensors, (observed, truth)) in enumerate(zip(clock, pictures, strict=True)):
            height, width = observed.shape[:2]
            for name, scorer, tensor in zip(names, scorers, tensors, strict=True):
                array = feeds.to_array(tensor)[:height, :width]
                scorer.add(index, array, observed, truth)
                if self.save is not None:
                    self.save(name, index, array)
        results = {n: s.result() for n, s in zip(names, scorers, strict=True)}
        # The pass makes them all at once: its duration is that of the last one, which needs the others.
        results[names[-1]]["seconds"] = clock.seconds
        return results

    def rival(self, name: str, outputs: Iterator[tuple[int, FloatImage]], timed: bool) -> dict[str, dict[str, float]]:
        """Scores of frames by number, ascending; frames without an output do not count."""
        scorer = self.scorer()
        clock: _Clock[tuple[int, FloatImage]] = _Clock(outputs)
        pictures = enumerate(zip(self.seen.frames, self._truth(), strict=True))
        for wanted, array in clock:
            observed, truth = next((o, t) for index, (o, t) in pictures if index == wanted)
            scorer.add(wanted, array, observed, truth)
            if self.save is not None:
                self.save(name, wanted, array)
        return {name: scorer.result() | ({"seconds": clock.seconds} if timed else {})}

    def inputs(self) -> dict[str, dict[str, float]]:
        """Scores of the blurry input itself."""
        scorer = self.scorer()
        for index, (observed, truth) in enumerate(zip(self.seen.frames, self._truth(), strict=True)):
            scorer.add(index, (observed / np.float32(255)).astype(np.float32), observed, truth)
        return {"input": scorer.result()}

    def _truth(self) -> Iterator[Any]:
        if self.pair.sharp is None:
            return iter([None] * len(self.seen.frames))
        if len(self.pair.sharp) != len(self.seen.frames):
            raise InputError(
                f"{len(self.seen.frames)} blurry frames, {len(self.pair.sharp)} sharp ones", "Check the data set."
            )
        return iter(self.pair.sharp)


T = TypeVar("T")


class _Clock(Generic[T]):
    """Iterates, and counts the seconds that the items took to be made."""

    def __init__(self, items: Iterator[T]) -> None:
        self.items = items
        self.seconds = 0.0

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        started = time.monotonic()
        try:
            return next(self.items)
        finally:
            self.seconds += time.monotonic() - started
