"""The clue timeline of an inspection as a picture, with thumbnails."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from selfhvd_tta.extras.report.pictures import evenly
from selfhvd_tta.extras.report.plots import LIGHT, draw_timeline, finish
from selfhvd_tta.files import write_atomically
from selfhvd_tta.run.checks import NewFile, check_file
from selfhvd_tta.run.scan import Inspection
from selfhvd_tta.video.opening import open_reader
from selfhvd_tta.video.orientation import picture
from selfhvd_tta.video.target import disk_errors

SUFFIXES = (".png", ".jpg", ".jpeg", ".svg", ".pdf")
THUMBNAIL = 300


def check_plot(out: str | Path, overwrite: bool) -> Path:
    """Refuse a picture that could not be written, before any work.

    Raises:
        UsageError, DiskError: as for any output.
    """
    file = NewFile("--plot", Path(out), SUFFIXES)
    check_file(file, overwrite)
    return file.path


def plot_clues(seen: Inspection, out: str | Path, overwrite: bool = False) -> Path:
    """Draw sharpness over time, the sharp frames, the soft ones, the cuts, and frames of the video above it.

    Args:
        seen: of :func:`selfhvd_tta.inspect`. The video is read once more, a few frames of it.
        out: ``.png``, ``.jpg``, ``.svg`` or ``.pdf`` file.
        overwrite: an existing file may be replaced.

    Returns:
        The path.

    Raises:
        UsageError, DiskError: it cannot be written.
        InputError: the video cannot be read any more.
    """
    path = check_plot(out, overwrite)
    seconds = (np.asarray(seen.pts, dtype=np.float64) - seen.pts[0]) * float(seen.info.time_base)
    reader = open_reader(seen.info.path, progressive=True)
    shown = evenly(len(seconds), 6 if _portrait(seen) is False else 11)
    frames = [(f.index, picture(f.rgb, seen.info, THUMBNAIL)) for f in reader.read(shown)]
    with rc_context({"svg.hashsalt": "selfhvd-tta", "font.size": 10}):
        figure = Figure(figsize=(12, 5.2), layout="constrained", facecolor="white")
        _draw(figure, seen, seconds, frames)
        target = io.BytesIO()
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else {}
        figure.savefig(target, format=path.suffix[1:].lower(), dpi=130, metadata=metadata or None)
    with disk_errors(path), write_atomically(path) as part:
        part.write_bytes(target.getvalue())
    return path


def _portrait(seen: Inspection) -> bool:
    high, wide = picture(np.zeros((seen.info.height, seen.info.width, 3), np.uint8), seen.info, 100).shape[:2]
    return high > wide


def _draw(figure: Figure, seen: Inspection, seconds: Any, frames: list[tuple[int, Any]]) -> None:
    clues = seen.clues
    parts: Any = figure.subfigures(2, 1, height_ratios=(1, 1.9))
    top, bottom = parts
    strip = top.subplots(1, len(frames), squeeze=False)[0]
    for axes, (index, image) in zip(strip, frames, strict=True):
        axes.imshow(image)
        axes.set_xticks([])
        axes.set_yticks([])
        sharp, soft = bool(clues.sharp[index]), bool(clues.soft[index])
        color = LIGHT.clue if sharp else LIGHT.before if soft else LIGHT.grid
        for spine in axes.spines.values():
            spine.set_color(color)
            spine.set_linewidth(2.5)
        what = "sharp" if sharp else "soft" if soft else ""
        axes.set_xlabel(f"{seconds[index]:.2f} s {what}", fontsize=9, color=LIGHT.text)
    axes = bottom.subplots()
    draw_timeline(axes, seconds, clues, LIGHT)
    step = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 1.0
    for first, last in runs(clues.soft):
        label = "clearly soft" if (first, last) == runs(clues.soft)[0] else None
        axes.axvspan(
            seconds[first] - step / 2, seconds[last] + step / 2, color=LIGHT.before, alpha=0.15, lw=0, label=label
        )
    finish(axes, LIGHT, 5)
    verdict = ("can help: " if seen.helpful else "cannot help: ") + seen.verdict
    bottom.supxlabel(f"{seen.info.path.name}: {verdict}", fontsize=9, color=LIGHT.text, wrap=True)


def runs(flags: Any) -> list[tuple[int, int]]:
    """First and last index of every stretch of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(flags, dtype=np.int8), [0]])))
    return [(int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2], strict=True)]
