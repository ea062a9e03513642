"""The table of ``docs/lab/gpu.md``, from the lines of ``benchmarks/gpu_check``; what none tells was not measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
NOT_MEASURED = "not measured"

Wanted = tuple[str, str, Mapping[str, Any], str, str]
_MAIN = ("estrnn:c80b15", "dstnetplus:base-gopro", "relay:lite")
# What a row is about, the part that measures it, which of its lines, which value, and the target.
ROWS: tuple[Wanted, ...] = (
    ("GPU", "environment", {}, "device", ""),
    *(
        row
        for name in _MAIN
        for row in (
            (
                f"{name}: output, largest difference to the CPU, 8-bit codes",
                "parity",
                {"network": name},
                "output_codes",
                "0.5",
            ),
            (f"{name}: gradients, relative difference", "parity", {"network": name}, "gradient_relative", "0.02"),
            (f"{name}: bf16, largest difference, codes", "parity", {"network": name}, "bf16_codes", "8"),
            (f"{name}: step of stage 2, ms", "steps", {"network": name, "stage": 2}, "ms", ""),
            (f"{name}: of it the GPU computes, ms", "steps", {"network": name, "stage": 2}, "kernel_ms", "80 %"),
            (f"{name}: what the host waits for", "steps", {"network": name, "stage": 2}, "waits", "nothing"),
            (f"{name}: peak of a step at 720p, GiB", "steps", {"network": name, "stage": 2}, "peak_gib", "8"),
            (
                f"{name}: restoration at 720p, frames/s",
                "memory",
                {"network": name, "size": "1280x720"},
                "frames_s",
                "30",
            ),
            (
                f"{name}: peak of restoration at 1080p, GiB",
                "memory",
                {"network": name, "size": "1920x1080", "card_gib": None},
                "peak_gib",
                "8",
            ),
            (f"{name}: job of 60 frames of 720p, 200 steps, s", "jobs", {"network": name}, "seconds", ""),
        )
    ),
    ("estrnn:c80b15: CUDA graph, ms", "graph", {"network": "estrnn:c80b15"}, "graph_ms", "below the next"),
    ("estrnn:c80b15: the same without, ms", "graph", {"network": "estrnn:c80b15"}, "eager_ms", ""),
    ("loss after 200 steps, relative difference to the CPU", "learning", {"steps": 200}, "relative", "0.05"),
    ("estrnn:lite: the same bytes twice", "determinism", {"network": "estrnn:lite"}, "same_twice", "true"),
    (
        "estrnn:lite: the same bytes after an interruption",
        "determinism",
        {"network": "estrnn:lite"},
        "same_resumed",
        "true",
    ),
    ("relay:lite: the same bytes twice", "determinism", {"network": "relay:lite"}, "same_twice", "not promised"),
    ("a job in 1 GiB", "exhaustion", {"gib": 1.0}, "ended", "done"),
    ("SEA-RAFT, pair at 720p both ways, ms", "labels", {"flow": "sea-raft (random weights)"}, "pair_ms", ""),
    ("real clip with known truth: input, dB", "street", {}, "input_db", ""),
    ("real clip with known truth: adapted, dB", "street", {}, "result_db", "above the input"),
)


def table(lines: str) -> str:
    """The rows in Markdown; of several lines that fit, the last one counts, and lines of dry runs never do."""
    found = [json.loads(line) for line in lines.splitlines() if line.strip()]
    measured = [line for line in found if line["on"] == "cuda"]
    out = ["| what | measured | target |", "| --- | ---: | ---: |"]
    for what, part, which, value, target in ROWS:
        cell = NOT_MEASURED
        for line in measured:
            fits = line["part"] == part and all(key in line and line[key] == wanted for key, wanted in which.items())
            if fits and line.get(value) is not None:
                cell = _text(line[value])
        out.append(f"| {what} | {cell} | {target} |")
    return "\n".join(out)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value) or "nothing"


def filled(page: str, lines: str) -> str:
    """The page with its table made again."""
    head, rest = page.split(BEGIN)
    _, tail = rest.split(END)
    return f"{head}{BEGIN}\n\n{table(lines)}\n\n{END}{tail}"
