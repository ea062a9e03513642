"""The page itself: collects everything and fills the template."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from selfhvd_tta.errors import UsageError
from selfhvd_tta.extras.report.log import RunLog
from selfhvd_tta.files import write_atomically
from selfhvd_tta.method.clues import Clues
from selfhvd_tta.run.checks import NewFile, check_file
from selfhvd_tta.settings import Settings
from selfhvd_tta.video.target import disk_errors
from selfhvd_tta.wording import clock, duration, plural

MOMENTS, STRIP, LABELLED = 4, 24, 3
MOMENT_SIZE, STRIP_SIZE, LABEL_SIZE = 1600, 640, 560
EXTRA = "pip install '.[report]'"


def need_extra(flag: str) -> None:
    """Raise a :class:`UsageError` if the extra ``report`` is not installed."""
    for module in ("matplotlib", "jinja2"):
        try:
            import_module(module)
        except ImportError as error:
            raise UsageError(f"{flag} needs {module}, which is not installed", f"Install it: {EXTRA}") from error


def report_file(out: str | Path) -> NewFile:
    """The page as a file that is checked before any work.

    Raises:
        UsageError: the extra ``report`` is not installed.
    """
    need_extra("--report")
    return NewFile("--report", Path(out), (".html", ".htm"))


def write_report(
    out: str | Path, source: str | Path, result: Any, settings: Settings, log: RunLog, overwrite: bool = False
) -> Path:
    """Read input and output once more and write the page.

    Memory does not depend on the length of the video; the time is that of decoding both, and of aligning a few frames.

    Args:
        out: an ``.html`` file.
        source: the input of the run.
        result: what :func:`selfhvd_tta.deblur` returned.
        settings: of the run.
        log: of a :class:`Recorder` that listened to the run.
        overwrite: an existing file may be replaced.

    Returns:
        The path of the page.

    Raises:
        UsageError, DiskError: it cannot be written.
        InputError: input or output cannot be read any more.
    """
    file = report_file(out)
    check_file(file, overwrite)
    path = file.path
    page = render(collect(Path(source), result, settings, log))
    with disk_errors(path), write_atomically(path) as part:
        part.write_bytes(page.encode(errors="backslashreplace"))  # names of files need not be UTF-8
    return path


def collect(source: Path, result: Any, settings: Settings, log: RunLog) -> dict[str, Any]:
    """What the template shows."""
    from selfhvd_tta.extras.report import facts, plots
    from selfhvd_tta.extras.report.pictures import VideoPair, evenly, jpeg, most_changed
    from selfhvd_tta.video.orientation import picture

    pair = VideoPair(source, result.output, settings.part)
    change = pair.measure()
    clues, info = result.clues, pair.info
    forced = clues.forced
    moments = most_changed(change.difference, MOMENTS)
    strip = evenly(len(change.seconds), STRIP)

    def shown(frame: Any, longest: int, quality: int = 88) -> str:
        return jpeg(picture(frame, info, longest), quality)

    large, small = [], []
    aspect = 1.0
    for index, before, after in pair.frames(sorted({*moments, *strip})):
        about = {
            "index": index,
            "time": clock(change.seconds[index], 2),
            "kind": "" if not clues.sharp[index] else plots.FORCED if forced[index] else "a sharp frame",
            "gain": change.sharpness[index] / max(float(clues.sharpness[index]), 1e-6),
        }
        if index in moments:
            height, width = picture(before, info, MOMENT_SIZE).shape[:2]
            aspect = width / height
            large.append(about | {"before": shown(before, MOMENT_SIZE), "after": shown(after, MOMENT_SIZE)})
        if index in strip:
            small.append(about | {"before": shown(before, STRIP_SIZE, 80), "after": shown(after, STRIP_SIZE, 80)})
    soft = np.asarray(clues.soft)
    gain = float(np.median(change.sharpness[soft] / np.maximum(clues.sharpness[soft], 1e-6))) if soft.any() else None
    return {
        "name": source.name,
        "output": result.output.name,
        "result": result,
        "info": info,
        "aspect": aspect,
        "seconds": float(change.seconds[-1]),
        "tiles": _tiles(result, gain, log),
        "moments": large,
        "strip": small,
        "scale": 1 if max(info.width, info.height) <= MOMENT_SIZE else MOMENT_SIZE / max(info.width, info.height),
        "forced": bool(forced.any()),
        "timeline": plots.timeline(change.seconds, clues, change.sharpness),
        "timeline_text": _timeline_text(clues, gain),
        "losses": plots.loss_curves(log.losses) if log.losses else None,
        "losses_text": _losses_text(log),
        "labels": _labels(pair, result, settings, change.difference),
        "phases": _phases(log),
        "total": duration(result.seconds),
        "planned": None if log.planned_minutes is None else duration(60 * log.planned_minutes),
        "plan": list(log.plan.items()),
        "summary": list(log.summary.items()),
        "notes": log.notes,
        "weights": log.weights,
        "versions": facts.versions(),
        "changed": facts.changed_settings(settings),
        "settings": _settings_text(settings),
    }


def render(values: dict[str, Any]) -> str:
    """The page as text; every value is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("selfhvd_tta.extras.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(values)


def _tiles(result: Any, gain: float | None, log: RunLog) -> list[tuple[str, str]]:
    clues = result.clues
    tiles = [
        (f"{result.frames}", "frames"),
        (f"{int((clues.sharp & ~clues.forced).sum())}", "sharp frames"),
        (f"{int(clues.soft.sum())}", "soft frames"),
    ]
    if gain is not None:
        tiles.append((f"{gain:.1f}×", "sharpness of the soft frames, median"))
    if result.record is not None:
        tiles.append((f"{len(result.record.steps)}", "steps of adaptation"))
    return [*tiles, (duration(result.seconds), "working time")]


def _timeline_text(clues: Clues, gain: float | None) -> str:
    """What the plot of sharpness shows, in words."""
    sharp, forced = int((clues.sharp & ~clues.forced).sum()), int(clues.forced.sum())
    text = f"Sharpness of {len(clues.sharp)} frames over time, before and after: {plural(sharp, 'sharp frame')}"
    text += f", {forced} only the sharpest of their stretch" if forced else ""
    return text if gain is None else f"{text}; the soft frames have {gain:.1f} times their sharpness afterwards"


def _losses_text(log: RunLog) -> str:
    """What the plots of losses show, in words: the objective at both ends of each stage."""
    parts = []
    for stage, terms in log.losses.items():
        _, values = terms.get("loss", ([], []))
        if values:
            parts.append(f"{stage} from {values[0]:.4f} to {values[-1]:.4f}")
    return "Loss terms over the steps, one panel per term" + (f"; objective: {', '.join(parts)}" if parts else "")


def _phases(log: RunLog) -> list[tuple[str, str, float]]:
    most = max(log.seconds.values(), default=1.0) or 1.0
    return [(name, f"{spent:.1f} s", 100 * spent / most) for name, spent in log.seconds.items()]


def _labels(pair: Any, result: Any, settings: Settings, difference: Any) -> list[dict[str, Any]]:
    if result.action not in ("adapted", "transferred"):
        return []
    import cv2

    from selfhvd_tta.extras.report.labels import show_labels, with_labels
    from selfhvd_tta.extras.report.pictures import jpeg, most_changed
    from selfhvd_tta.video.orientation import picture

    order = most_changed(difference, 4 * LABELLED)
    order.sort(key=lambda i: -difference[i])
    rows = []
    for one in show_labels(pair, with_labels(order, result.clues, settings, LABELLED), result.clues, settings):
        weight = (one.mask.astype(np.float32) / 255)[..., None]
        trusted = np.rint(one.label * weight + 110 * (1 - weight)).astype(np.uint8)
        heat = cv2.cvtColor(cv2.applyColorMap(one.mask, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
        pictures = [jpeg(picture(frame, pair.info, LABEL_SIZE)) for frame in (one.before, trusted, heat, one.after)]
        rows.append(
            {"index": one.index, "teachers": one.teachers, "pictures": pictures, "share": float(one.mask.mean()) / 255}
        )
    return rows


def _settings_text(settings: Settings) -> str:
    from selfhvd_tta.config import dumps

    return dumps(settings, comments=False)
