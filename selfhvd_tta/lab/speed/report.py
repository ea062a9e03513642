"""A speed report as text for people and as JSON for programs."""

from __future__ import annotations

import dataclasses
import json

from selfhvd_tta.lab.speed.results import SpeedReport, TimingRow

METHOD = (
    "One warm-up round, then {repeats} rounds that run every task of a group once each; medians of the wall clock; the "
    "device is waited for before and after. Floor: the task's convolutions and matrix products over the best rate that "
    "this device showed on a large one, or the bytes that have to be read and written once over its copying rate, "
    "whichever is longer; where a task has no products the floor is that of memory alone and far off. Memory: peak of "
    "the whole process while the task ran once more."
)


def time_text(seconds: float) -> str:
    """Three digits with a unit: ``12.3 ms``."""
    for limit, unit, factor in ((1e-3, "us", 1e6), (1.0, "ms", 1e3)):
        if seconds < limit:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def memory_text(size: int | None) -> str:
    """In MiB; a dash where unknown."""
    return "-" if size is None else f"{size / 2**20:,.0f}"


def as_markdown(report: SpeedReport) -> str:
    """Tables in Markdown, readable as they are."""
    s, run = report.settings, report.settings.run
    lines = [f"{label}: {value}" for label, value in report.machine.items()]
    lines += [
        f"clip: {s.width}x{s.height}, {s.frames} frames; steps: crop {run.adaptation.side}, "
        f"{run.adaptation.length} frames, batch {run.adaptation.batch}",
        "networks in: " + ", ".join(f"{name} {dtype}" for name, dtype in report.dtype.items()),
        "",
        METHOD.format(repeats=s.repeats),
        "",
        "| this device | rate |",
        "| --- | ---: |",
    ]
    for dtype, rate in report.rates.matmul.items():
        lines.append(f"| matrix product, {dtype} | {rate / 1e9:,.0f} Gop/s |")
        lines.append(f"| 3x3 convolution, {dtype} | {report.rates.convolution[dtype] / 1e9:,.0f} Gop/s |")
    lines += [f"| memory copy, read and written | {report.rates.copy / 1e9:,.1f} GB/s |"]
    for group in dict.fromkeys(row.group for row in report.rows):
        lines += ["", f"**{group}**", ""]
        lines += [
            "| task | per | median | best | CPU time | floor | median / floor | host MiB | device MiB |",
            "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        lines += [_line(row) for row in report.rows if row.group == group]
        lines += _ratios(report, group)
    if report.breakdown is not None:
        b = report.breakdown
        lines += [
            "",
            f"**one whole job** ({b.backbone}, {b.steps} steps): {b.seconds:.1f} s, {b.cpu:.1f} s of CPU time, "
            f"peak of memory {memory_text(b.host)} MiB, of the device {memory_text(b.device)} MiB",
            "",
            "| phase | seconds | share |",
            "| --- | ---: | ---: |",
        ]
        lines += [f"| {name} | {seconds:.2f} | {seconds / b.seconds:.0%} |" for name, seconds in b.phases]
    if report.notes:
        lines += ["", *(f"note: {note}" for note in report.notes)]
    return "\n".join(lines)


def _line(row: TimingRow) -> str:
    t = row.timing
    floor = "-" if row.floor is None else time_text(row.floor)
    share = "-" if row.floor is None else f"{t.median / row.floor:,.3g}"
    cells = [row.task, row.per, time_text(t.median), time_text(t.best), time_text(t.cpu), floor, share]
    return "| " + " | ".join([*cells, memory_text(row.host), memory_text(row.device)]) + " |"


def ratios(report: SpeedReport, group: str) -> dict[str, float]:
    """What follows from one group of rows: live and literal over bank step, frames/s."""
    median = {row.task: row.timing.median for row in report.rows if row.group == group}
    found = {}
    for stage in (1, 2):
        bank = median.get(f"stage-{stage} step, bank")
        for mode in ("live", "literal"):
            other = median.get(f"stage-{stage} step, {mode}")
            if bank and other:
                found[f"stage {stage}: {mode} over bank"] = other / bank
    for task in ("restoration", "decode, restore, encode and verify"):
        if task in median:
            found[f"{task}: frames/s"] = 1 / median[task]
    return found


def _ratios(report: SpeedReport, group: str) -> list[str]:
    lines = [f"- {label}: {value:.2f}" for label, value in ratios(report, group).items()]
    return ["", *lines] if lines else []


def as_json(report: SpeedReport) -> str:
    """One JSON object with everything in it, and the comparisons."""
    body = dataclasses.asdict(report)
    groups = dict.fromkeys(row.group for row in report.rows)
    body["ratios"] = {group: ratios(report, group) for group in groups}
    return json.dumps(body, default=str)
