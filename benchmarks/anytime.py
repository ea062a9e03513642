"""Decibels gained against seconds spent: ``deblur --budget`` on a simulated clip with ground truth.

    python benchmarks/anytime.py                                   # about 14 minutes on two cores
    python benchmarks/anytime.py --clip camera --size 192x128 --frames 24 --budgets 10s,20s,40s

The first row is sharp-detail transfer without a budget, which no network takes part in. Frames go in and out as PNG
files, so that no codec is in the figures. PSNR is that of the frames with more than a pixel of blur. Needs scikit-image
for its photographs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from regression import clips

from selfhvd_tta import Settings, deblur
from selfhvd_tta.lab.speed.flags import parse_size
from selfhvd_tta.lab.speed.machine import describe
from selfhvd_tta.settings import AlignmentSettings, RuntimeSettings
from selfhvd_tta.times import seconds_of


def main() -> None:
    """Run each budget and print a row of a Markdown table for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", default="camera", choices=("camera", "texture", "object"))
    parser.add_argument("--size", default="384x256", type=parse_size)
    parser.add_argument("--frames", default=48, type=int)
    parser.add_argument("--budgets", default="30s,1m,2m,3m,5m")
    parser.add_argument("--backbone", default="relay:lite")
    parser.add_argument("--flow", default="shake")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--early-stop", action="store_true")
    parser.add_argument("--no-detail", action="store_true", help="the network's own output, nothing blended in")
    given = parser.parse_args()
    base = Settings(
        backbone=given.backbone,
        detail=not given.no_detail,
        alignment=AlignmentSettings(flow=given.flow),
        runtime=RuntimeSettings(device=given.device, offline=True),
    )
    base = replace(base, adaptation=replace(base.adaptation, early_stop=given.early_stop))
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (clip,) = clips(root / "data", given.size, given.frames, given.clip)
        for label, value in describe(torch.device("cpu")).items():
            print(f"{label}: {value}", flush=True)
        before = clip.quality(clip.shown)
        print(f"{given.clip}, {given.size[0]}x{given.size[1]}, {given.frames} frames; input {before:.2f} dB\n")
        print("| budget | took | CPU time | did | steps | PSNR | gain |")
        print("| ---: | ---: | ---: | --- | ---: | ---: | ---: |")
        runs = [("none", replace(base, method="transfer"))]
        for text in given.budgets.split(","):
            runs.append((text, replace(base, runtime=replace(base.runtime, budget=seconds_of(text)))))
        for index, (text, settings) in enumerate(runs):
            begun, used = time.monotonic(), time.process_time()
            result = deblur(clip.shown, root / f"out{index}", settings)
            took, used = time.monotonic() - begun, time.process_time() - used
            after = clip.quality(root / f"out{index}")
            steps = len(result.record.steps) if result.record else 0
            cells = [text, f"{took:.0f} s", f"{used:.0f} s", result.action, str(steps), f"{after:.2f}"]
            cells.append(f"{after - before:+.2f}")
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
