"""Which videos there are, where their results go, and which of them are finished already."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from selfhvd_tta.batch.ledger import Ledger, Stamp, digest
from selfhvd_tta.config import override, to_table
from selfhvd_tta.errors import InputError, UsageError, WeightsError
from selfhvd_tta.events import Listener, Note, ignore
from selfhvd_tta.settings import Layout, Settings
from selfhvd_tta.wording import duration

MPEG_SUFFIXES = (".3g2", ".3gp", ".f4v", ".m2ts", ".m2v", ".m4v", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".qt", ".ts")
OTHER_SUFFIXES = (".asf", ".avi", ".divx", ".dv", ".flv", ".mkv", ".mxf", ".ogv", ".vob", ".webm", ".wmv", ".y4m")
VIDEO_SUFFIXES = frozenset(MPEG_SUFFIXES + OTHER_SUFFIXES)
WRITABLE = frozenset([".mp4", ".m4v", ".mov", ".mkv"])


@dataclass(frozen=True)
class Task:
    """One video of a batch.

    Attributes:
        name: path relative to the folder it was found in.
        source: the video.
        output: where its result goes.
        key: the output's path in the output folder.
        state: ``to do``, ``finished`` (by an earlier run, with these settings), or ``blocked`` by an existing file.
        why: one line about a blocked one.
    """

    name: str
    source: Path
    output: Path
    key: str
    state: Literal["to do", "finished", "blocked"]
    why: str = ""


@dataclass(frozen=True)
class BatchPlan:
    """All videos of a batch.

    Attributes:
        folder: of the results.
        tasks: in the order of their names.
        settings: for every one of them.
        notes: one line for each thing that was left out.
        report: write a page next to each result, ``a.mp4.html`` next to ``a.mp4``.
        compare: layout of a comparison video next to each result; None for none.
    """

    folder: Path
    tasks: tuple[Task, ...]
    settings: Settings
    notes: tuple[str, ...] = ()
    report: bool = False
    compare: Layout | None = None

    def request(self, task: Task) -> dict[str, object]:
        """The request to the process for one video."""
        report = f"{task.output}.html" if self.report else None
        return {
            "video": str(task.source),
            "output": str(task.output),
            "settings": to_table(self.settings),
            "report": report,
            "compare": self.compare,
        }


def make_plan(
    inputs: Sequence[str | Path],
    output: str | Path,
    settings: Settings,
    suffix: str = "",
    report: bool = False,
    compare: Layout | None = None,
) -> BatchPlan:
    """Find the videos and decide what to do; changes nothing.

    Args:
        inputs: folders (searched with all that is in them), video files, or patterns such as ``trip/**/*.mov``.
        output: folder of the results, which keeps the tree of each input folder.
        settings: for every video. ``output.overwrite`` replaces files that are in the way, but never finished ones.
        suffix: appended to the name of each result, for example ``_sharp``.
        report: write a page next to each result.
        compare: write a comparison video next to each result.

    Raises:
        InputError: an input does not exist or holds no video.
        UsageError: two results would have the same path, a result would replace its source, or a setting makes no
            sense for several videos.
    """
    folder = Path(output)
    if settings.save_adapted is not None:
        raise UsageError("--save-adapted names one file for many videos", "Leave it out, or run 'deblur' for each.")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is not a folder", "Give the folder that the results go to.")
    if os.sep in suffix or "/" in suffix:
        raise UsageError(f"--suffix {suffix}: is a part of a file name, not a path", "Use for example _sharp.")
    notes: list[str] = []
    found: dict[Path, str] = {}
    for item in inputs:
        before = len(found)
        matches = list(_videos(str(item), folder, notes))
        for path, root in matches:
            found.setdefault(path, path.relative_to(root).as_posix())
        if not matches:
            raise InputError(f"{item}: no video there", f"Known are: {' '.join(sorted(VIDEO_SUFFIXES))}")
        if len(found) - before < len(matches):
            notes.append(f"{item}: {len(matches) - len(found) + before} of its videos were named before")
    keys = _keys(found, suffix, settings.output.codec == "ffv1")
    mine = {os.path.realpath(folder / name) for key in keys.values() for name in (key, *_beside(key))}
    ledger = Ledger(folder)
    tasks = []
    for path, name in sorted(found.items(), key=lambda item: item[1]):
        target = folder / keys[path]
        if os.path.realpath(target) == os.path.realpath(path):
            raise UsageError(f"{path}: its result would replace it", "Choose another folder, or use --suffix _sharp.")
        if os.path.realpath(path) in mine and suffix:
            continue  # the result of another one, from an earlier run into the same folder
        tasks.append(_task(name, path, target, keys[path], ledger, settings))
    _refuse_clashes(tasks)
    return BatchPlan(folder, tuple(tasks), settings, tuple(notes), report, compare)


def describe(plan: BatchPlan, listen: Listener = ignore) -> tuple[list[tuple[str, str, str, str]], float]:
    """What ``--dry-run`` shows: opens each video, but does not scan it.

    Args:
        plan: of :func:`make_plan`.
        listen: hears which networks were chosen.

    Returns:
        Rows of the video, what it is, about how long it takes, what would be done; and the seconds of all work to do
        together, one after the other on this machine. Frames are those that the container states, 60 % of them taken
        for blurry. Nothing is downloaded: where weights are missing, the times are left out and a note says so.

    Raises:
        UsageError, DeviceError: the batch could not be run with these settings.
    """
    from selfhvd_tta.run.forecast import RoughForecast
    from selfhvd_tta.video.probe import probe

    rows, total = [], 0.0
    forecaster: RoughForecast | None = None
    if any(task.state == "to do" for task in plan.tasks):
        try:
            forecaster = RoughForecast(override(plan.settings, {"offline": True}), listen)
        except WeightsError as error:
            listen(Note(f"times are unknown: {error.message}", "warning"))
    for task in plan.tasks:
        about = ""
        try:
            info = probe(task.source)
        except InputError as error:
            what = f"unreadable: {error.message.removeprefix(f'{task.source}: ')}"
        else:
            length = "" if info.duration_s is None else f", {info.duration_s:.1f} s"
            what = f"{info.width}x{info.height}{length}"
            frames = info.frames or round((info.duration_s or 0) * float(info.average_rate or 30))
            if task.state == "to do" and frames and forecaster is not None:
                seconds = forecaster.seconds(info.height, info.width, frames)
                total += seconds
                about = duration(seconds)
        does = {"to do": f"write {task.output}", "finished": "finished already", "blocked": f"fail: {task.why}"}
        rows.append((task.name, what, about, does[task.state]))
    return rows, total


def _videos(item: str, output: Path, notes: list[str]) -> Iterator[tuple[Path, Path]]:
    """Videos of one input, each with the folder that its name is relative to."""
    path = Path(item)
    if path.is_dir():
        yield from ((p, path) for p in _walk(path, output, notes))
    elif path.exists():
        yield path, path.parent
    elif glob.has_magic(item):
        parts = path.parts
        magic = next(i for i, part in enumerate(parts) if glob.has_magic(part))
        root = Path(*parts[:magic])
        any_suffix = glob.has_magic(path.suffix) or not path.suffix
        for match in sorted(glob.glob(item, recursive=True)):
            each = Path(match)
            named = not any_suffix or each.suffix.lower() in VIDEO_SUFFIXES
            if named and each.is_file() and not _inside(each, output, root):
                yield each, root
    else:
        raise InputError(f"{item}: there is no such file or folder", "Check the path.")


def _walk(root: Path, output: Path, notes: list[str]) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        notes.append(f"{error.filename}: left out, {error.strerror}")

    for folder, folders, files in os.walk(root, onerror=unreadable):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(files):
            path = Path(folder, name)
            if path.suffix.lower() in VIDEO_SUFFIXES and not name.startswith(".") and not _inside(path, output, root):
                yield path


def _inside(path: Path, output: Path, root: Path) -> bool:
    """Whether a file lies in an output folder that is itself below the folder that is searched."""
    out, top = os.path.realpath(output), os.path.realpath(root)
    below = out != top and out.startswith(os.path.join(top, ""))
    return below and os.path.realpath(path).startswith(os.path.join(out, ""))


def _keys(found: dict[Path, str], suffix: str, matroska: bool) -> dict[Path, str]:
    """Output names: the container is kept where it can be written, else MP4's family becomes .mp4 and the rest .mkv."""
    names: dict[Path, tuple[str, str]] = {}
    for path, name in found.items():
        own = path.suffix.lower()
        new = path.suffix if own in WRITABLE else ".mp4" if own in (".3gp", ".3g2", ".f4v") else ".mkv"
        if matroska and own != ".mkv":
            new = ".mkv"
        names[path] = (name[: len(name) - len(path.suffix)] + suffix, new)
    count: dict[str, int] = {}
    for stem, new in names.values():
        count[(stem + new).lower()] = count.get((stem + new).lower(), 0) + 1
    keys = {}
    for path, (stem, new) in names.items():
        taken = count[(stem + new).lower()] > 1 and new.lower() != path.suffix.lower()
        keys[path] = f"{stem}{path.suffix}{new}" if taken else stem + new
    return keys


def _beside(key: str) -> list[str]:
    """Comparison videos of a result, which the next batch does not take as input."""
    stem, suffix = os.path.splitext(key)
    return [f"{stem}-{layout}{suffix}" for layout in get_args(Layout)]


def _refuse_clashes(tasks: list[Task]) -> None:
    owners: dict[str, Task] = {}
    for task in tasks:
        other = owners.setdefault(task.key.lower(), task)
        if other is not task:
            raise UsageError(
                f"{other.source} and {task.source} would both become {task.output}",
                "Give the folder above both, or run them into different folders.",
            )


def _task(name: str, source: Path, output: Path, key: str, ledger: Ledger, settings: Settings) -> Task:
    entry, there = ledger.entries.get(key), Stamp.of(output)
    if there is None:
        return Task(name, source, output, key, "to do")
    ours = entry is not None and entry.output == there
    if (
        entry is not None
        and ours
        and entry.source == Stamp.of(source)
        and entry.settings == digest(settings, entry.outcome.action)
    ):
        return Task(name, source, output, key, "finished")
    if settings.output.overwrite:
        return Task(name, source, output, key, "to do")
    if entry is None or not ours:
        why = "the output exists, and was not made by this batch or changed since"
    elif entry.source != Stamp.of(source):
        why = "the output exists, made from another version of the video"
    else:
        why = "the output exists, made with other settings"
    return Task(name, source, output, key, "blocked", why)
