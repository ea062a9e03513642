"""How long each part of the work takes on this machine, next to the least that its hardware allows."""

from __future__ import annotations

import copy
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from selfhvd_tta.backbones.wrapper import Network
from selfhvd_tta.errors import WeightsError
from selfhvd_tta.events import Listener, Note, Progress, ignore
from selfhvd_tta.lab.evaluation.memory import PeakMemory
from selfhvd_tta.lab.speed.end_to_end import break_down
from selfhvd_tta.lab.speed.floors import Work, count_operations, measure_rates
from selfhvd_tta.lab.speed.machine import describe
from selfhvd_tta.lab.speed.report import time_text
from selfhvd_tta.lab.speed.results import SpeedReport, SpeedSettings, TimingRow
from selfhvd_tta.lab.speed.sample import Frames, shaky_frames, write_video
from selfhvd_tta.lab.speed.timing import Timing, measure, synchronise
from selfhvd_tta.method.adaptation import Adaptation
from selfhvd_tta.method.bank import BankSupervision
from selfhvd_tta.method.composite import Merger, to_time_on
from selfhvd_tta.method.labels import LabelBank
from selfhvd_tta.method.live import LiveSupervision
from selfhvd_tta.method.merge_network import MergeNetwork
from selfhvd_tta.method.supervision import Inputs
from selfhvd_tta.method.teachers import choose_teachers
from selfhvd_tta.method.working_set import WorkingSet, restrict
from selfhvd_tta.run import feeds
from selfhvd_tta.run import memory as resources
from selfhvd_tta.run.device import choose_device
from selfhvd_tta.run.equipment import Equipment, alignment_only
from selfhvd_tta.run.frames import run_frames
from selfhvd_tta.run.networks import find_backbone, load_backbone, load_features
from selfhvd_tta.run.scan import Inspection, scan
from selfhvd_tta.settings import OutputSettings, Settings
from selfhvd_tta.video.opening import open_reader, open_writer

# Bytes of a bank row's pixel that a step reads: input 3, label 3, mask 1, teacher and historical outputs 6 + 6.
STEP_BYTES_PER_PIXEL = 19
# Read: parameter, gradient, two moments; written: gradient, parameter, two moments; float32.
OPTIMISER_BYTES = 32
# Frames of the clip that memory is measured on at another size.
LARGE_FRAMES = 12


@dataclass(frozen=True)
class _Case:
    task: str
    per: str
    work: Callable[[], object]
    count: int  # how many of ``per`` one call does
    least: Work
    dtype: str


class _Bench:
    def __init__(self, settings: SpeedSettings, listen: Listener) -> None:
        self.settings = settings
        self.listen = listen
        self.notes: list[str] = []
        self.device = choose_device(settings.run.runtime.device, self._tell)
        self.rows: list[TimingRow] = []
        self.dtype: dict[str, str] = {}
        self.until = math.inf if settings.minutes is None else time.monotonic() + 60 * settings.minutes

    def _tell(self, event: object) -> None:
        if isinstance(event, Note):
            self.notes.append(event.text)
        self.listen(event)  # type: ignore[arg-type]

    def run(self) -> SpeedReport:
        s = self.settings
        machine = describe(self.device)
        self.listen(Progress("rates", 0, None, "tasks"))
        self.rates = measure_rates(self.device, (torch.float32, torch.bfloat16), size=128 if s.width < 128 else 0)
        breakdown = None
        with tempfile.TemporaryDirectory(prefix="selfhvd-tta-bench-") as folder:
            clip = Path(folder) / "shaky.mp4"
            frames, seen, working = self._clip(clip, s.width, s.height, s.frames)
            shared = Equipment.load(replace(alignment_only(s.run), detail=True), self._tell)
            for name in s.backbones:
                if self._late(name):
                    continue
                network = self._load(name)
                gear = shared.with_network(network, s.run)
                self.dtype[network.name] = str(gear.compute.autocast or torch.float32).removeprefix("torch.")
                cases = self._network(gear, working)
                cases.insert(1, self._overlapped(gear, clip, seen))
                self._measure(network.name, cases)
                if breakdown is None and s.end_to_end and network.weights != "random":
                    self.listen(Progress("end to end", 0, None, "jobs"))
                    breakdown = break_down(clip, Path(folder) / "sharp.mp4", replace(s.run, backbone=name), self.device)
                del network, gear, cases
            if s.large and not self._late(f"{s.large[0]}x{s.large[1]}"):
                self._measure_large(Path(folder) / "large.mp4", s.large, shared)
            if not self._late("what all networks share"):
                self._measure("shared", self._shared(clip, frames, shared, working, Path(folder)))
        if s.end_to_end and breakdown is None:
            self.notes.append("no whole job: the weights of none of these backbones are on this machine")
        return SpeedReport(machine, s, self.dtype, self.rates, tuple(self.rows), breakdown, tuple(self.notes))

    def _late(self, what: str) -> bool:
        """Whether the time is over; then it is noted that this was left out."""
        late = time.monotonic() >= self.until
        if late:
            self._tell(Note(f"no time for {what}"))
        return late

    def _clip(self, path: Path, width: int, height: int, count: int) -> tuple[Frames, Inspection, WorkingSet]:
        """A clip made on the spot: written to ``path``, looked through, and held in memory as for an adaptation."""
        frames = shaky_frames(width, height, count, self.device)
        write_video(path, frames)
        seen = scan(open_reader(path), self.settings.run.clues, ignore)
        return frames, seen, self._working_set(frames, seen)

    def _measure_large(self, path: Path, size: tuple[int, int], shared: Equipment) -> None:
        """Restoration, a label and steps with the bank at another size, for every network."""
        _, _, working = self._clip(path, *size, LARGE_FRAMES)
        for name in self.settings.backbones:
            if self._late(f"{name} at {size[0]}x{size[1]}"):
                continue
            gear = shared.with_network(self._load(name), self.settings.run)
            cases = self._network(gear, working, bank_only=True)
            self._measure(f"{name} at {size[0]}x{size[1]}", cases)

    def _working_set(self, frames: Frames, seen: Inspection) -> WorkingSet:
        clues, runs = restrict(seen.clues, list(range(len(frames))))
        stack = torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()
        store = resources.bank_store(frames.shape[1], frames.shape[2], len(frames), self.device)
        return WorkingSet(stack.to(store), tuple(range(len(frames))), clues, runs)

    def _load(self, name: str) -> Network:
        """The network, with random weights where its own are not on this machine."""
        run = self.settings.run
        try:
            offline = replace(run, backbone=name, runtime=replace(run.runtime, offline=True))
            return load_backbone(offline, self.device, ignore)
        except WeightsError:
            backbone, variant = find_backbone(name)
            torch.manual_seed(0)
            return Network(backbone.build(**variant.config), backbone, variant).to(self.device).eval()

    def _measure(self, group: str, cases: list[_Case]) -> None:
        done = [0]
        total = len(cases) * (1 + self.settings.repeats)

        def tick(name: str) -> None:
            self.listen(Progress(group, done[0], total, "runs"))
            done[0] += 1

        works = {case.task: case.work for case in cases}
        times = measure(works, self.device, self.settings.repeats, 1, tick)
        for case in cases:
            host, device = PeakMemory(torch.device("cpu")), PeakMemory(self.device)
            case.work()
            synchronise(self.device)
            t = times[case.task]
            each = Timing(t.median / case.count, t.best / case.count, t.cpu / case.count, t.repeats)
            floor = case.least.floor(self.rates, case.dtype) / case.count
            on_gpu = device.read().size if self.device.type == "cuda" else None
            self.rows.append(TimingRow(group, case.task, case.per, each, floor or None, host.read().size, on_gpu))
            # At once: whoever ends a long measurement keeps what it has found.
            self.listen(Note(f"{group}: {case.task}: {time_text(each.median)} per {case.per}"))
        self.listen(Progress(group, total, total, "runs"))

    def _shared(self, clip: Path, frames: Frames, gear: Equipment, working: WorkingSet, folder: Path) -> list[_Case]:
        s, count, size = self.settings, len(frames), frames[0].size
        floats = [frame.astype(np.float32) / 255 for frame in frames]
        blurry, sharp = (torch.from_numpy(floats[i]).permute(2, 0, 1)[None].to(self.device) for i in (0, count // 2))

        def decode() -> None:
            for _ in open_reader(clip):
                pass

        def encode() -> None:
            reader = open_reader(clip)
            with open_writer(folder / "encoded.mp4", reader, OutputSettings(overwrite=True)) as writer:
                for frame, pts in zip(floats, [f.pts for f in reader.luma()], strict=True):
                    writer.write(frame, pts)

        bank = LabelBank(working, self.device, gear.flow, s.run.alignment, s.run.adaptation.sis_threshold)
        pair = Work(bytes=2 * size * 4 + 2 * 3 * size / 3 * 4)

        cases = [
            _Case("decode", "frame", decode, count, Work(bytes=count * size * 1.5), "float32"),
            _Case(
                "clue selection",
                "frame",
                lambda: scan(open_reader(clip), s.run.clues, ignore),
                count,
                Work(bytes=count * size / 3),
                "float32",
            ),
            _Case(
                f"flow, both ways ({gear.flow.name})", "pair", lambda: gear.flow.both(blurry, sharp), 1, pair, "float32"
            ),
            _Case(
                f"label refresh: alignment, {s.run.alignment.teachers} teachers",
                "frame",
                lambda: _fill(bank),
                count,
                Work(bytes=count * size * 3.0),
                "float32",
            ),
            _Case("encode and verify", "frame", encode, count, Work(bytes=count * size * 4), "float32"),
        ]
        return cases if gear.merger is None else [*cases, self._merging(gear.merger, s.height, s.width)]

    def _merging(self, merger: Merger, height: int, width: int) -> _Case:
        """One frame joined with its aligned sharp frames, once they are aligned."""
        frame, composite = to_time_on(height, width, merger.candidates, self.device)
        half = isinstance(merger, MergeNetwork) and merger.autocast is not None

        def join() -> object:
            return merger(frame, frame, composite)

        work = Work(count_operations(join), 4.0 * (9 + 5 * merger.candidates) * height * width)
        return _Case("merging by the network", "frame", join, 1, work, "bfloat16" if half else "float32")

    def _overlapped(self, gear: Equipment, clip: Path, seen: Inspection) -> _Case:
        """A whole video through the network: what a job does once the network has its weights, nothing blended in."""
        s, count, size = self.settings, self.settings.frames, self.settings.width * self.settings.height
        assert gear.network is not None

        def through() -> None:
            reader = open_reader(clip)
            restorer = gear.restorer(s.height, s.width, s.run)
            with open_writer(clip.with_name("restored.mp4"), reader, OutputSettings(overwrite=True)) as writer:
                for result in run_frames(feeds.opener(reader), seen.clues, self.device, restorer, None):
                    writer.write(feeds.to_array(result.blended), result.pts)

        least = Work(count_operations(through), count * size * 3.0)
        return _Case(
            "decode, restore, encode and verify", "frame", through, count, least, self.dtype[gear.network.name]
        )

    def _network(self, gear: Equipment, working: WorkingSet, bank_only: bool = False) -> list[_Case]:
        """What depends on the network; ``bank_only``: only a label and the steps with the bank."""
        network = gear.network
        assert network is not None
        s, dtype = self.settings, self.dtype[network.name]
        count, _, height, width = working.frames.shape
        side = min(s.run.adaptation.side, height) * min(s.run.adaptation.side, width)
        parameters = sum(p.numel() for p in network.parameters())
        clip_pixels = side * s.run.adaptation.length * s.run.adaptation.batch
        restorer = gear.restorer(height, width, s.run)
        assert restorer is not None
        clip = working.frames.to(self.device).float() / 255

        def restore() -> None:
            for _ in restorer.restore(iter(clip)):
                pass

        cases = [
            _Case(
                "restoration",
                "frame",
                restore,
                count,
                Work(count_operations(restore), count * (24.0 * height * width) + 4.0 * parameters),
                dtype,
            )
        ]
        modes = {
            "bank": s.run,
            "live": replace(s.run, adaptation=replace(s.run.adaptation, teacher="live", label_refresh=1)),
            "literal": replace(s.run, literal=True),
        }
        operations: dict[bool, float] = {}
        for mode, settings in modes.items():
            if bank_only and mode != "bank":
                continue
            # Each steps a copy: the other's labels and the restoration must see the same network throughout.
            adaptation = self._adaptation(replace(gear, network=copy.deepcopy(network)), working, settings)
            supervision = adaptation.supervision
            if isinstance(supervision, LiveSupervision):
                supervision.take_history()
            elif isinstance(supervision, BankSupervision):
                _fill(supervision.bank)
                supervision.bank.take_history()
                if bank_only:
                    cases.append(_label(supervision.bank))
            for stage2 in (False, True):

                def step(a: Adaptation = adaptation, stage2: bool = stage2) -> object:
                    return a.step(stage2)

                # The others' floor is the same: what they do beyond could have been kept.
                if mode == "bank":
                    operations[stage2] = count_operations(step)
                work = Work(
                    operations[stage2],
                    clip_pixels * STEP_BYTES_PER_PIXEL + OPTIMISER_BYTES * parameters,
                )
                cases.append(_Case(f"stage-{1 + stage2} step, {mode}", "step", step, 1, work, dtype))
        return cases

    def _adaptation(self, gear: Equipment, working: WorkingSet, settings: Settings) -> Adaptation:
        network = gear.network
        assert network is not None
        run = self.settings.run
        features = load_features(replace(run, runtime=replace(run.runtime, offline=True)), self.device, self._once)
        inputs = Inputs(network, network.backbone, working, gear.flow, features, gear.compute, 40)
        return Adaptation(inputs, settings, ignore)

    def _once(self, event: object) -> None:
        if isinstance(event, Note) and event.text not in self.notes:
            self._tell(event)


def _fill(bank: LabelBank) -> None:
    """Labels for the whole clip, as if the network had returned its input: its own time is another row."""
    outputs = ((row, bank.observed(row)[0]) for row in range(len(bank.working)))
    bank.made = [False] * len(bank.made)
    bank.renew(outputs)
    bank.complete(range(len(bank.made)))


def _label(bank: LabelBank) -> _Case:
    """The label of the frame that most teachers are aligned to."""
    teachers = [choose_teachers(row, bank.working.clues, bank.settings).others for row in range(len(bank.made))]
    row = max(range(len(teachers)), key=lambda row: len(teachers[row]))

    def make() -> None:
        bank.made[row] = False
        bank.complete([row])

    task = f"label: alignment, {len(teachers[row])} teachers"
    return _Case(task, "frame", make, 1, Work(bytes=bank.working.frames[0].numel() * 3.0), "float32")


def run_speed(settings: SpeedSettings, listen: Listener = ignore) -> SpeedReport:
    """Measure.

    Args:
        settings: what.
        listen: gets progress and notes.

    Raises:
        UsageError: unknown backbone, flow or device, or a size that makes no sense.
        DeviceError, WeightsError: as :mod:`selfhvd_tta.run.equipment`.
    """
    for name in settings.backbones:
        find_backbone(name)
    return _Bench(settings, listen).run()
