"""The table of a benchmark: means over videos, and Markdown."""

from __future__ import annotations

import math
from typing import Any

from selfhvd_tta.lab.evaluation.scoring import LEAST

Row = dict[str, Any]
METHODS = (
    *("input", "unsharp", "backbone", "refit", "refit+detail", "reblur", "transfer", "learned", "learned+detail"),
    *("adapted", "adapted+detail"),
)
LEARNT = "seconds_adaptation"
OF_A_RUN = ("action", "adaptation", LEARNT, "peak_memory", "peak_memory_of")
# Measure, heading, digits.
COLUMNS = (
    ("psnr", "PSNR", 2),
    ("ssim", "SSIM", 4),
    ("psnr_blurry", "PSNR of blurry frames", 2),
    ("psnr_sharp", "PSNR of sharp frames", 2),
    ("worst_gain", "worst blurry frame over its input, dB", 2),
    ("sharp_kept", "sharp frames to their input, least dB", 2),
    ("dadeblur_psnr", "PSNR (DADeblur's)", 2),
    ("dadeblur_ssim", "SSIM (DADeblur's)", 4),
    ("warping_error", "warping error", 2),
    ("flicker", "flicker", 3),
    ("sharpness", "v_l of blurry frames", 1),
    ("shift_median", "shift, median px", 2),
    ("shift_p95", "shift, 95 % px", 2),
    ("niqe", "NIQE", 2),
    ("seconds", "restoring, s", 1),
)
IN_WORDS = (
    "psnr",
    "psnr_blurry",
    "psnr_sharp",
    "worst_gain",
    "sharp_kept",
    "flicker",
    "shift_median",
    "sharpness",
    "niqe",
)


def mean_of(rows: list[Row], by_frames: bool = False) -> dict[str, dict[str, float]]:
    """Mean over videos, by method and measure; of ``LEAST`` the least.

    A measure that some video lacks is averaged over the others.

    Args:
        rows: of the videos.
        by_frames: a video counts as often as it has scored frames, rather than once.
    """
    found: dict[str, dict[str, float]] = {}
    for method in in_order({m: {} for row in rows for m in row["methods"]}):
        measured = [(row["methods"][method], row["scored"]) for row in rows if method in row["methods"]]
        names = list(dict.fromkeys(n for one, _ in measured for n in one))
        for name in names:
            values = [(one[name], count if by_frames else 1) for one, count in measured if name in one]
            found.setdefault(method, {})[name] = _over(values, name)
    return found


def in_order(scores: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Scores in the order of the table: ours as in ``METHODS``, then what other programs wrote."""
    ours = [m for m in METHODS if m in scores]
    return {m: scores[m] for m in (*ours, *(m for m in scores if m not in METHODS))}


def _over(values: list[tuple[float, int]], name: str) -> float:
    """Weighted mean of values with their weights; the smallest value for the measures in ``LEAST``."""
    if name in LEAST:
        return min(value for value, _ in values)
    return math.fsum(value * count for value, count in values) / sum(count for _, count in values)


def in_words(scores: dict[str, float]) -> str:
    """One line of the most telling measures of one method on one video."""
    columns = [c for c in COLUMNS if c[0] in scores and c[0] in IN_WORDS]
    return ", ".join(f"{title} {_number(scores[name], digits)}" for name, title, digits in columns)


def runs_of(row: Row) -> dict[str, Row]:
    """What each method's run did on a video; where only one was run, that is the row itself."""
    found: dict[str, Row] = row.get("runs") or {"": row}
    return found


def merged(rows: dict[str, Row]) -> Row:
    """Rows of one video by several methods as one: scores next to each other, the rest by method under ``runs``."""
    if len(rows) == 1:
        return next(iter(rows.values()))
    scores = {name: one for row in rows.values() for name, one in row["methods"].items()}
    runs = {name: {k: v for k, v in row.items() if k in OF_A_RUN} for name, row in rows.items()}
    video = {k: v for k, v in next(iter(rows.values())).items() if k not in (*OF_A_RUN, "methods")}
    return video | {"methods": in_order(scores), "runs": runs}


def _columns(methods: dict[str, dict[str, float]]) -> list[tuple[str, str, int]]:
    known = {name for name, _, _ in COLUMNS}
    present = {name for one in methods.values() for name in one}
    extra = sorted(present - known - {"ssim_blurry", "ssim_sharp"})
    return [c for c in COLUMNS if c[0] in present] + [(name, name, 3) for name in extra]


def _grid(head: list[str], body: list[list[str]]) -> list[str]:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return ["| " + " | ".join(line) + " |" for line in (head, rule, *body)]


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def markdown(head: Row, rows: list[Row], mean: dict[str, dict[str, float]], failed: dict[str, str]) -> str:
    """The table as Markdown: means by method, then every video."""
    subject = ", ".join(f"{k} {v}" for k, v in head["subject"].items())
    first, last = head["skipped_ends"]
    plan = head["settings"]["adaptation"]
    how = "one model for the whole set" if head["joint"] else "each video by itself"
    if head["train"] is not None:
        how = f"one model learned from {head['train']}"
    how = f"{plan['iters']} steps, {how}" if "backbone" in head["subject"] else "no network"
    over = f"{len(rows)} videos"
    if head["as_dadeblur"]:
        over = f"all frames of {over}, each from a window of five, as DADeblur evaluates"
    lines = [
        f"# {head['protocol']}: {head['root']}",
        "",
        f"selfhvd-tta {head['version']}; {subject}. {how}; seed "
        f"{head['settings']['runtime']['seed']}. Mean over {over}; frames left out at the ends: {first} + "
        f"{last}. The weights of the last step are scored; no ground truth is read before adaptation has ended.",
        "",
    ]
    if mean:
        columns = _columns(mean)
        body = [[m, *(_number(mean[m].get(n), d) for n, _, d in columns)] for m in mean]
        lines += _grid(["mean", *(title for _, title, _ in columns)], body)
        lines += [
            "",
            "Columns marked DADeblur's follow that code's own definitions: compare them with its figures only.",
            "",
        ]
        lines += [*_videos(rows, list(mean)), "", *_runs(rows)]
    if failed:
        lines += ["", "## Failed", "", *(f"- {name}: {reason}" for name, reason in failed.items())]
    return "\n".join(lines) + "\n"


def _videos(rows: list[Row], methods: list[str]) -> list[str]:
    columns = [c for c in _columns(mean_of(rows)) if "DADeblur" not in c[1]]
    body = [
        [row["video"], m, *(_number(row["methods"][m].get(n), d) for n, _, d in columns)]
        for row in rows
        for m in methods
        if m in row["methods"]
    ]
    return ["## Videos", "", *_grid(["video", "method", *(title for _, title, _ in columns)], body)]


def _runs(rows: list[Row]) -> list[str]:
    learners = list(dict.fromkeys(name for row in rows for name, run in runs_of(row).items() if LEARNT in run))
    head = ["video", "frames scored", "sharp frames found"]
    head += [f"{name}: learning, s" for name in learners] if len(learners) > 1 else ["adapting, s"]
    head += ["peak memory, GB"]
    body = []
    for row in rows:
        runs = runs_of(row)
        passed = [name for name, run in runs.items() if run["action"] == "passed through"]
        note = (
            "" if not passed else " (passed through)" if len(runs) == 1 else f" (passed through: {', '.join(passed)})"
        )
        seconds = [runs.get(name, {}).get(LEARNT) for name in learners] or [None]
        size = max((run["peak_memory"] or 0 for run in runs.values()), default=0)
        line = [row["video"] + note, str(row["scored"]), str(row["sharp_frames"])]
        line += [*(_number(value, 1) for value in seconds), _number(size / 1e9 if size else None, 2)]
        body.append(line)
    return ["## Runs", "", *_grid(head, body)]
