"""Curves of a run, drawn by matplotlib for a light and a dark page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator, StrMethodFormatter

from selfhvd_tta.extras.report.pictures import FloatArray
from selfhvd_tta.method.clues import Clues


@dataclass(frozen=True)
class Theme:
    """Colours of a page: text and lines, and one per series."""

    text: str
    grid: str
    before: str
    after: str
    clue: str
    cut: str
    terms: tuple[str, ...]


# A clue that Otsu's threshold did not select.
FORCED = "sharpest of its stretch"
LIGHT = Theme("#24292f", "#e3e6ea", "#7d8590", "#1f6feb", "#c2410c", "#7c3aed", ("#1f6feb", "#c2410c", "#0f766e"))
DARK = Theme("#d7dde5", "#333a44", "#8b949e", "#6cb0ff", "#fb923c", "#c4a5ff", ("#6cb0ff", "#fb923c", "#5eead4"))
THEMES = {"light": LIGHT, "dark": DARK}


def draw_timeline(axes: Axes, seconds: FloatArray, clues: Clues, theme: Theme, after: FloatArray | None = None) -> None:
    """Sharpness of every frame over time, the clues, the cuts.

    Args:
        axes: to draw on.
        seconds: (N,) times of the frames.
        clues: of the input.
        theme: colours.
        after: (N,) sharpness of the output, or None.
    """
    if after is not None:
        axes.plot(seconds, np.maximum(after, 1e-2), color=theme.after, label="after", linewidth=1.6)
    before = np.maximum(clues.sharpness, 1e-2)
    color = theme.before if after is not None else theme.after
    axes.plot(seconds, before, color=color, label="before" if after is not None else "sharpness", linewidth=1.6)
    forced = clues.forced
    sharp = clues.sharp & ~forced
    axes.plot(seconds[sharp], before[sharp], "o", color=theme.clue, markersize=4.5, label="sharp frame (clue)")
    if forced.any():
        axes.plot(
            seconds[forced], before[forced], "o", color=theme.clue, markersize=4.5, fillstyle="none", label=FORCED
        )
    for number, shot in enumerate(clues.shots[1:]):
        axes.axvline(
            seconds[shot.start], color=theme.cut, linewidth=1.2, linestyle="--", label="cut" if number == 0 else None
        )
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.2, 0.4)))
    axes.set_xlabel("seconds")
    axes.set_ylabel("variance of the Laplacian")
    if len(seconds) > 1:
        axes.set_xlim(seconds[0], seconds[-1])


def finish(axes: Axes, theme: Theme, columns: int = 4) -> None:
    """Grid, frame and legend in the theme's colours."""
    axes.grid(True, color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(theme.grid)
    axes.tick_params(colors=theme.text, which="both", labelsize=9)
    axes.xaxis.label.set_color(theme.text)
    axes.yaxis.label.set_color(theme.text)
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, frameon=False, labelcolor=theme.text, fontsize=9
        )


def timeline(seconds: FloatArray, clues: Clues, after: FloatArray | None) -> dict[str, str]:
    """The clue timeline as ``data:`` addresses, by theme."""

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.subplots()
        draw_timeline(axes, seconds, clues, theme, after)
        finish(axes, theme)

    return _both(draw, (9.6, 3.2))


def loss_curves(losses: dict[str, dict[str, tuple[list[int], list[float]]]]) -> dict[str, str]:
    """Loss terms over the steps of both stages as ``data:`` addresses, by theme; the objective and its terms."""
    names = [n for terms in losses.values() for n in terms]
    panels = [n for n in dict.fromkeys(names) if any(any(t.get(n, ([], []))[1]) for t in losses.values())]

    def draw(figure: Figure, theme: Theme) -> None:
        grid: Any = figure.subplots(1, max(1, len(panels)), squeeze=False)[0]
        for position, (axes, name) in enumerate(zip(grid, panels, strict=False)):
            for number, (stage, terms) in enumerate(losses.items()):
                if name not in terms:
                    continue
                steps, values = (np.asarray(v, dtype=np.float64) for v in terms[name])
                color = theme.terms[number % len(theme.terms)]
                axes.plot(steps, values, color=color, alpha=0.3, linewidth=0.8)
                axes.plot(steps, smooth(values), color=color, linewidth=1.8, label=stage)
            axes.set_title(TERM_NAMES.get(name, name), color=theme.text, fontsize=10, pad=22, loc="left")
            axes.set_xlabel("step")
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_locator(MaxNLocator(5))
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            finish(axes, theme, 2)
            if position:
                axes.set_ylabel("")

    return _both(draw, (3.2 * max(2, len(panels)), 3.0))


TERM_NAMES = {
    "loss": "objective",
    "rec": "reconstruction",
    "vgg": "perceptual (VGG19)",
    "sevd": "SEVD",
    "scscm": "spatial consistency",
}


def smooth(values: FloatArray) -> FloatArray:
    """Running mean over a thirtieth of the values, shorter at the ends."""
    width = max(1, len(values) // 30)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - width, 0), np.minimum(index + width + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)


def _both(draw: Any, size: tuple[float, float]) -> dict[str, str]:
    made = {}
    for name, theme in THEMES.items():
        # Without a salt and a date, the same run gives the same bytes.
        with rc_context({"svg.hashsalt": "selfhvd-tta", "svg.fonttype": "path", "font.size": 10}):
            figure = Figure(figsize=size, layout="constrained")
            figure.patch.set_alpha(0)
            draw(figure, theme)
            for axes in figure.axes:
                axes.patch.set_alpha(0)
            target = io.BytesIO()
            figure.savefig(target, format="svg", metadata={"Date": None})
        made[name] = "data:image/svg+xml;base64," + base64.b64encode(target.getvalue()).decode()
    return made
