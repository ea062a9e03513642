"""Decibels gained against seconds spent: ``deblur --budget`` on a simulated clip with ground truth.

    python benchmarks/anytime.py --clip camera --size 192x128 --frames 24 --budgets 10s,20s,40s

Frames go in and out as PNG files, so that no codec is in the figures. PSNR is that of the frames with more than a pixel
of blur. Needs scikit-image for its photographs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from selfhvd_tta import Settings, deblur
from selfhvd_tta.benchmarks.flags import parse_size
from selfhvd_tta.benchmarks.machine import describe
from selfhvd_tta.evaluation.dataset import read_labels, write_regression_set
from selfhvd_tta.evaluation.metrics import psnr
from selfhvd_tta.settings import AlignmentSettings, RuntimeSettings, seconds_of
from selfhvd_tta.training.photos import list_photos, read_photo


def pictures(folder: Path) -> np.ndarray:
    """(N, H, W, 3) uint8 of a folder of images."""
    return np.stack([read_photo(path) for path in list_photos((folder,))])


def main() -> None:
    """Run each budget and print a row of a Markdown table for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", default="camera", choices=("camera", "texture", "object"))
    parser.add_argument("--size", default="384x256", type=parse_size)
    parser.add_argument("--frames", default=48, type=int)
    parser.add_argument("--budgets", default="15s,30s,1m,2m,4m")
    parser.add_argument("--backbone", default="estrnn:lite")
    parser.add_argument("--flow", default="embedded")
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
        made = write_regression_set(root / "data", *given.size, given.frames)
        clip = next(folder for folder in made if folder.name == given.clip)
        truth, blurry = pictures(clip / "Sharp" / "RGB"), pictures(clip / "Blur" / "RGB")
        soft = [i for i, label in enumerate(read_labels(clip)) if not label]

        def quality(frames: np.ndarray) -> float:
            return float(np.mean([psnr(frames[i], truth[i]) for i in soft]))

        import torch

        for label, value in describe(torch.device("cpu")).items():
            print(f"{label}: {value}", flush=True)
        before = quality(blurry)
        print(f"{given.clip}, {given.size[0]}x{given.size[1]}, {given.frames} frames; input {before:.2f} dB\n")
        print("| budget | took | did | steps | PSNR | gain |\n| ---: | ---: | --- | ---: | ---: | ---: |")
        for index, text in enumerate(given.budgets.split(",")):
            settings = replace(base, runtime=replace(base.runtime, budget=seconds_of(text)))
            begun = time.monotonic()
            result = deblur(clip / "Blur" / "RGB", root / f"out{index}", settings)
            took = time.monotonic() - begun
            after = quality(pictures(root / f"out{index}"))
            steps = len(result.record.steps) if result.record else 0
            cells = [text, f"{took:.0f} s", result.action, str(steps), f"{after:.2f}", f"{after - before:+.2f}"]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
