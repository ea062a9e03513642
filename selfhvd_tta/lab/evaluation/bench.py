"""``bench``: test-time adaptation over a data set, scored against its ground truth.

For every video: scan, restore with the pretrained backbone, adapt from the pretrained weights, restore again with the
weights of the *last* step. A video's ground truth is opened for scoring only, when its outputs are being made by
weights that no longer change; no step, no checkpoint and no setting is chosen by it.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import cv2

from selfhvd_tta import __version__
from selfhvd_tta.errors import InputError, Interrupted, SelfHVDError, UsageError
from selfhvd_tta.events import Listener, Note, Progress, ignore
from selfhvd_tta.files import write_atomically
from selfhvd_tta.lab.datasets.protocols import Pair, Protocol, discover
from selfhvd_tta.lab.evaluation import table, trial
from selfhvd_tta.lab.evaluation.method import Subject
from selfhvd_tta.lab.evaluation.metrics.niqe import NIQE
from selfhvd_tta.lab.evaluation.metrics.no_reference import LICENCE, load_measures
from selfhvd_tta.lab.evaluation.outputs import Outputs
from selfhvd_tta.lab.evaluation.reblur import RelativelySharp
from selfhvd_tta.lab.evaluation.rival import Delivered, Masked
from selfhvd_tta.lab.evaluation.scoring import NoReference
from selfhvd_tta.lab.evaluation.unsharp import Unsharp
from selfhvd_tta.settings import Method, Settings
from selfhvd_tta.video.target import disk_errors

RESULTS, TABLE, VIDEOS, FRAMES, JOINT = "results.json", "results.md", "videos", "frames", "joint"
UNSHARP, REBLUR = "unsharp", "reblur"
# The quick ones first: an interrupted run has them.
METHODS = (UNSHARP, "transfer", "refit", REBLUR, "adapt")
NOT_OF_THE_METHOD = ("output", "save_adapted")
# What can go wrong with one video and leaves the others alone.
VIDEO_ERRORS = (SelfHVDError, ValueError, RuntimeError, OSError, cv2.error)
Row = dict[str, Any]


@dataclass(frozen=True)
class BenchSettings:
    """How a benchmark is run.

    Attributes:
        protocol: id of a protocol plug-in.
        joint: adapt one model to all videos together, as DADeblur does; else each video gets its own.
        train: data set, in the same layout, that one model is adapted to; the videos are only tested on (Table 1).
        skip: frames left out of the score at both ends; None: as the protocol's published figures do.
        as_dadeblur: evaluate as DADeblur's code does: each output of the network from five frames alone, nothing
            blended in, means over all frames, and on RealBlur four outputs per scene next to another frame's truth.
        temporal: measure warping error, flicker and shift as well.
        niqe: parameter file of NIQE (``.npz``); None leaves NIQE out.
        metrics: measures of single frames without ground truth by pyiqa, which has to be installed (``musiq``, ...).
        videos: only videos whose name contains one of these; all if empty.
        save_frames: write the outputs as PNG.
        methods: of ``METHODS``, to be compared, or ``all``; none: the one of the settings.
        unsharp: how the baseline ``unsharp`` masks.
        outputs: of other programs, scored next to ``methods``; without those, alone.
    """

    protocol: str
    joint: bool = False
    train: Path | None = None
    as_dadeblur: bool = False
    skip: tuple[int, int] | None = None
    temporal: bool = True
    niqe: Path | None = None
    metrics: tuple[str, ...] = ()
    videos: tuple[str, ...] = ()
    save_frames: bool = False
    methods: tuple[str, ...] = ()
    unsharp: Unsharp = field(default_factory=Unsharp)
    outputs: tuple[Outputs, ...] = ()

    def __post_init__(self) -> None:
        unknown = [name for name in self.methods if name not in (*METHODS, "all")]
        if unknown:
            raise UsageError(f"--method is '{unknown[0]}', but it must be one of {', '.join(METHODS)}, all")
        names = [one.name for one in self.outputs]
        taken = next((n for n in names if n in (*table.METHODS, *METHODS) or names.count(n) > 1), None)
        if taken is not None:
            raise UsageError(f"--outputs: the name '{taken}' is taken", "Choose another one.")

    def chosen(self, settings: Settings) -> tuple[str, ...]:
        """Names of what is run, the quick ones first."""
        if self.outputs and not self.methods:
            return ()
        wanted = self.methods or ("adapt" if settings.method == "auto" else settings.method,)
        return tuple(name for name in METHODS if name in wanted or "all" in wanted)


@dataclass(frozen=True)
class BenchResult:
    """What came out.

    Attributes:
        folder: where ``results.json`` and ``results.md`` are.
        videos: one row per finished video, in order.
        mean: mean over videos, by method and measure.
        failed: name and reason of each video that could not be run.
        markdown: the table.
    """

    folder: Path
    videos: list[Row]
    mean: dict[str, dict[str, float]]
    failed: dict[str, str]
    markdown: str


def find_pairs(root: Path, bench: BenchSettings, listen: Listener) -> tuple[Protocol, list[Pair]]:
    """The videos of a data set.

    Raises:
        UsageError: no such protocol.
        InputError: no video was found, or none of the names that were asked for.
    """
    known = discover()
    if bench.protocol not in known:
        raise UsageError(f"unknown protocol '{bench.protocol}'", f"Known are: {', '.join(known)}.")
    protocol = known[bench.protocol]
    if not root.is_dir():
        raise InputError(f"{root}: no such folder", "Give the folder that holds the data set.")
    pairs = protocol.find(root, lambda text: listen(Note(text, "warning")))
    layouts = "; ".join(protocol.layout)
    if not pairs:
        raise InputError(f"{root}: no videos in the layout of '{protocol.id}'", f"It knows: {layouts}")
    if bench.videos:
        pairs = [p for p in pairs if any(part in p.name for part in bench.videos)]
        if not pairs:
            raise InputError(f"{root}: no video is named {' or '.join(bench.videos)}", "Check --video.")
    return protocol, pairs


def run_bench(
    root: Path,
    out: Path,
    bench: BenchSettings,
    settings: Settings | None = None,
    listen: Listener = ignore,
    no_reference: dict[str, NoReference] | None = None,
) -> BenchResult:
    """Run the method over a data set and save the table.

    Videos that were finished under the same settings before are not run again. A video that fails is reported and the
    others continue.

    Args:
        root: the data set.
        out: results go to ``results.json`` and ``results.md`` in it, and one JSON per video.
        bench: protocol and what to measure.
        settings: of the method; None for the defaults.
        listen: gets progress and notes.
        no_reference: measures of single frames without ground truth, by name.

    Raises:
        InputError, UsageError: as :func:`find_pairs`.
        DeviceError, WeightsError: the method cannot start at all.
        DiskError: results cannot be written.
    """
    settings = settings or Settings()
    protocol, pairs = find_pairs(root, bench, listen)
    chosen = bench.chosen(settings)
    if bench.as_dadeblur:
        settings = replace(settings, detail=False)
    learners = [name for name in chosen if name not in ("transfer", UNSHARP)]
    if not chosen:
        settings = replace(settings, method="transfer", backbone="none")  # no network is run
    if bench.joint and len(learners) < len(chosen):
        without = next(name for name in chosen if name not in learners)
        raise UsageError(f"--joint adapts a network, and --method {without} has none", "Leave one of them out.")
    train: list[Pair] = []
    if bench.train is not None:
        if bench.joint or set(chosen) != {"adapt"}:
            raise UsageError("--train adapts one network to its videos", "Use it with --method adapt, without --joint.")
        _, found = find_pairs(bench.train, replace(bench, videos=()), listen)
        train = [pair for pair in found if not pair.problem]
    first: Method = "transfer" if not learners else "refit" if "adapt" not in learners else "adapt"
    subject = Subject(replace(settings, method=first), listen)
    measures = dict(no_reference or {}) | load_measures(bench.metrics, subject.gear.device)
    if bench.metrics:
        listen(Note(f"--metric: {LICENCE}"))
    if bench.niqe is not None:
        measures["niqe"] = NIQE.load(bench.niqe)
    skip = protocol.skip if bench.skip is None else bench.skip
    common: Row = {
        "protocol": protocol.id,
        "root": root.name,
        "joint": bench.joint,
        "as_dadeblur": bench.as_dadeblur,
        "train": None if bench.train is None else bench.train.name,
        "skipped_ends": list(skip),
        "temporal": bench.temporal,
        "measures": sorted(measures),
        "version": __version__,
    }
    parts = []
    for name in chosen:
        user = subject.by(next((m for m in get_args(Method) if m == name), "transfer"))
        about: Row = {"subject": user.names, "settings": _of_the_method(user.settings)}
        how = trial.TrialSettings(user.settings, skip, bench.temporal, measures, learned=bool(train))
        if bench.as_dadeblur:
            how = replace(how, windows=protocol.windows)
        if name == REBLUR:
            user = subject.by("refit", RelativelySharp)
            about = {"subject": user.names | {"method": REBLUR}, "settings": _of_the_method(user.settings)}
            how = replace(how, method=user.settings, name=REBLUR)
        if name == UNSHARP:
            about |= {"subject": {"method": UNSHARP}, UNSHARP: asdict(bench.unsharp)}
            how = replace(how, rival=Masked(bench.unsharp), name=UNSHARP)
        parts.append(_Part(name, how, user, common | about))
    for outputs in bench.outputs:
        user, alone = subject.by("transfer"), len(pairs) == 1
        about = {"subject": {"method": outputs.name}, "settings": _of_the_method(user.settings)}
        how = trial.TrialSettings(
            user.settings, skip, bench.temporal, measures, Delivered(outputs, alone), outputs.name
        )
        parts.insert(0, _Part(outputs.name, how, user, common | about))
    return _Run(out, bench, parts, listen, train).all(pairs)


def _of_the_method(settings: Settings) -> Row:
    return {k: v for k, v in asdict(settings).items() if k not in NOT_OF_THE_METHOD}


@dataclass(frozen=True)
class _Part:
    """One of the methods: its name, how it is run and scored, its networks, and what its rows depend on."""

    name: str
    settings: trial.TrialSettings
    subject: Subject
    head: Row


@dataclass
class _Run:
    out: Path
    bench: BenchSettings
    parts: list[_Part]
    listen: Listener
    train: list[Pair]

    @property
    def head(self) -> Row:
        """What the table says of the whole: the methods together, the networks of the last one."""
        last = self.parts[-1].head
        if len(self.parts) == 1:
            return last
        extra = {k: v for part in self.parts for k, v in part.head.items() if k == UNSHARP}
        return last | extra | {"subject": last["subject"] | {"method": " + ".join(p.name for p in self.parts)}}

    def all(self, pairs: list[Pair]) -> BenchResult:
        failed = {p.name: p.problem for p in pairs if p.problem}
        sound = [p for p in pairs if not p.problem]
        done = {pair.name: self._finished(pair) for pair in sound}
        before = sum(len(rows) == len(self.parts) for rows in done.values())
        if before:
            self.listen(Note(f"{before} of {len(pairs)} videos were finished before"))
        joint = {part.name: self._joint(part, sound, done) for part in self.parts if self.bench.joint or self.train}
        for position, pair in enumerate(pairs):
            if pair.name not in failed:
                problems = self._video(pair, done[pair.name], joint)
                if problems:
                    failed[pair.name] = _told(problems)
            if pair.name in failed:
                self.listen(Note(f"{pair.name}: {failed[pair.name]}", "warning"))
            # After every video: an interrupted run leaves the table of what it has finished.
            rows = [table.merged(done[p.name]) for p in sound if done[p.name]]
            result = self._save(rows, failed)
            self.listen(Progress("bench", position + 1, len(pairs), "videos"))
        return result

    def _video(self, pair: Pair, done: dict[str, Row], joint: dict[str, trial.Joint | None]) -> dict[str, str]:
        """Run what is not done yet; rows are added to ``done``. Gives the reasons of what failed, by method."""
        problems: dict[str, str] = {}
        for part in self.parts:
            if part.name in done:
                continue
            known = {name: one for row in done.values() for name, one in row["methods"].items()}
            frames, model = self._frames(pair), joint.get(part.name)
            try:
                row = trial.run_video(part.subject, pair, part.settings, model, frames, self.listen, known)
            except Interrupted:
                raise
            except VIDEO_ERRORS as error:
                problems[part.name] = str(error) or type(error).__name__
                continue
            done[part.name] = row
            stored = self._stored(pair.name) | {part.name: {"fingerprint": self._fingerprint(part, [pair]), "row": row}}
            self._write(self._row_path(pair.name), stored)
            for name, scores in row["methods"].items():
                if name not in known:
                    self.listen(Note(f"{pair.name}, {name}: {table.in_words(scores)}"))
        # In the order of the methods, also if an earlier run had done some of them.
        ordered = {part.name: done[part.name] for part in self.parts if part.name in done}
        done.clear()
        done.update(ordered)
        return problems

    def _joint(self, part: _Part, sound: list[Pair], done: dict[str, dict[str, Row]]) -> trial.Joint | None:
        if part.settings.rival is not None or all(part.name in rows for rows in done.values()):
            return None
        path = self.out / f"{JOINT}{'' if part.name == 'adapt' else '-' + part.name}.safetensors"
        videos = self.train or sound
        mark = self._fingerprint(part, videos)
        return trial.adapt_jointly(part.subject, videos, part.settings, path, mark, self.listen)

    def _frames(self, pair: Pair) -> Path | None:
        return self.out / FRAMES / _safe(pair.name) if self.bench.save_frames else None

    def _row_path(self, name: str) -> Path:
        return self.out / VIDEOS / f"{_safe(name)}.json"

    def _fingerprint(self, part: _Part, pairs: list[Pair]) -> str:
        """Hash of everything that decides a video's row."""
        theirs = part.settings.rival
        files = []
        for pair in [*pairs, *self.train]:
            more = []
            if isinstance(theirs, Delivered):
                with suppress(InputError):  # said when they are to be scored
                    more.append(theirs.outputs.of(pair.name, theirs.alone))
            files.append((pair.name, trial.files_of(pair, *more), pair.labels))
        return hashlib.sha256(json.dumps([part.head, files], sort_keys=True).encode()).hexdigest()

    def _stored(self, name: str) -> Row:
        """What earlier runs left of a video, by method."""
        path = self._row_path(name)
        if not path.exists():
            return {}
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            self.listen(Note(f"{path} is damaged: the video is run again", "warning"))
            return {}
        return saved if isinstance(saved, dict) else {}

    def _finished(self, pair: Pair) -> dict[str, Row]:
        """Rows of earlier runs under the same settings, by method."""
        stored = self._stored(pair.name)
        rows = {}
        for part in self.parts:
            one = stored.get(part.name, {})
            if one.get("fingerprint") == self._fingerprint(part, [pair]):
                rows[part.name] = one["row"]
        return rows

    def _write(self, path: Path, content: Row | str) -> None:
        write_whole(
            path, content if isinstance(content, str) else json.dumps(content, indent=1, allow_nan=False) + "\n"
        )

    def _save(self, rows: list[Row], failed: dict[str, str]) -> BenchResult:
        mean = table.mean_of(rows, self.bench.as_dadeblur)
        markdown = table.markdown(self.head, rows, mean, failed)
        self._write(self.out / RESULTS, {**self.head, "videos": rows, "mean": mean, "failed": failed})
        self._write(self.out / TABLE, markdown)
        return BenchResult(self.out, rows, mean, failed, markdown)


def _told(problems: dict[str, str]) -> str:
    """Reasons of one video as one line: those that all methods share without their names."""
    if len(set(problems.values())) == 1:
        return next(iter(problems.values()))
    return "; ".join(f"{name}: {reason}" for name, reason in problems.items())


def write_whole(path: Path, text: str) -> None:
    """Write a file that is complete, or as it was before.

    Raises:
        DiskError: it cannot be written.
    """
    with disk_errors(path), write_atomically(path) as part:
        part.write_text(text, encoding="utf-8")


def _safe(name: str) -> str:
    """A file name for a video's name; different names stay different."""
    plain = "".join(c if c.isalnum() or c in "-._" else "_" for c in name)
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
