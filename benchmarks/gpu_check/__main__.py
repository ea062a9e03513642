"""What only a GPU can show, in at most eight minutes: every result is a JSON line as soon as it is known.

    python benchmarks/gpu_check results.jsonl                     on a machine with a CUDA device
    python benchmarks/gpu_check results.jsonl --dry               the same code on a CPU at toy size
    python benchmarks/gpu_check results.jsonl --only parity,steps
    python benchmarks/gpu_check results.jsonl --blurry street.mkv --truth street_sharp.mkv
    python benchmarks/gpu_check results.jsonl --page docs/lab/gpu.md      fill in the page, measure nothing

Parts come in the order of what they tell. One that fails, or for which no time is left, says so in its line, and the
next one begins. Networks whose weights are not here run with random ones, which changes no time and no parity.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import torch
from case import CPU, EIGHT_MINUTES, Check
from parts import PARTS


def run(check: Check, results: Path, only: frozenset[str] = frozenset()) -> int:
    """Do the parts; how many failed."""
    failed = 0
    with results.open("a") as file:

        def tell(part: str, facts: dict[str, Any]) -> None:
            line = {"part": part, "on": check.device.type, "at": round(time.monotonic() - check.begun, 1), **facts}
            file.write(json.dumps(line, default=str) + "\n")
            file.flush()
            print(json.dumps(line, default=str), flush=True)

        for part, least in PARTS:
            name = part.__name__
            if only and name not in only:
                continue
            if check.left < (least if check.gpu else 0):
                tell(name, {"skipped": f"{check.left:.0f} s left"})
                continue
            try:
                for facts in part(check):
                    tell(name, facts)
                    if check.left < 0:
                        tell(name, {"skipped": "the rest: no time left"})
                        break
            except Exception as error:  # noqa: BLE001  the next part shall begin
                failed += 1
                tell(name, {"error": f"{type(error).__name__}: {error}"[:500], "trace": traceback.format_exc()[-1500:]})
    return failed


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="JSON lines are appended to it")
    parser.add_argument("--dry", action="store_true", help="on the CPU, at toy size")
    parser.add_argument("--only", default="", help="parts, with commas between")
    parser.add_argument("--limit", type=float, default=EIGHT_MINUTES, help="seconds")
    parser.add_argument("--blurry", type=Path)
    parser.add_argument("--truth", type=Path)
    parser.add_argument("--page", type=Path, help="fill in this page from the results instead")
    given = parser.parse_args(arguments)
    if given.page is not None:
        from page import filled

        given.page.write_text(filled(given.page.read_text(), given.results.read_text()))
        return 0
    if not given.dry and not torch.cuda.is_available():
        print("no CUDA device: --dry runs the same code on the CPU", file=sys.stderr)
        return 3
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        device = CPU if given.dry else torch.device("cuda", 0)
        check = Check(device, Path(folder), given.blurry, given.truth, given.limit)
        return min(1, run(check, given.results, frozenset(filter(None, given.only.split(",")))))


if __name__ == "__main__":
    sys.exit(main())
