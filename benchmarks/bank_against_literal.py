"""The label bank beside the paper's literal method: CPU time of a step, and what the network has learned after as many.

    OMP_NUM_THREADS=1 python benchmarks/bank_against_literal.py --size 192x128 --frames 24 --iters 60 --teachers 5

Both runs have the same seed, so they draw the same clips. Frames go in and out as PNG files; PSNR is that of the
network's own output (nothing blended in) over the frames with more than a pixel of blur. Needs scikit-image for its
photographs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from regression import clips

from selfhvd_tta import Settings, deblur
from selfhvd_tta.benchmarks.flags import parse_size
from selfhvd_tta.events import Event, Plan, Progress
from selfhvd_tta.settings import AlignmentSettings, RuntimeSettings


class Clock:
    """A listener that counts the CPU time of the adaptation, steps and labels apart."""

    def __init__(self) -> None:
        self.labels = self.steps = 0.0
        self.last = time.process_time()

    def __call__(self, event: Event) -> None:
        now = time.process_time()
        if isinstance(event, Progress) and event.phase == "labels":
            self.labels += now - self.last
        elif isinstance(event, Progress) and event.phase.startswith("stage"):
            self.steps += now - self.last
        if isinstance(event, Plan | Progress):
            self.last = now


def main() -> None:
    """Run both on every clip and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", default="camera,texture,object")
    parser.add_argument("--size", default="192x128", type=parse_size)
    parser.add_argument("--frames", default=24, type=int)
    parser.add_argument("--iters", default=60, type=int)
    parser.add_argument("--teachers", default=5, type=int)
    parser.add_argument("--crop", default=None, type=int)
    parser.add_argument("--backbone", default="estrnn:lite")
    parser.add_argument("--flow", default="embedded")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    base = Settings(
        backbone=given.backbone,
        detail=False,
        alignment=AlignmentSettings(flow=given.flow, teachers=given.teachers),
        runtime=RuntimeSettings(device=given.device, offline=True),
    )
    base = replace(base, adaptation=replace(base.adaptation, iters=given.iters, crop=given.crop))
    literal = replace(base, adaptation=replace(base.adaptation, teacher="live", label_refresh=1))
    alone = replace(base, adaptation=replace(base.adaptation, iters=0))
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        print("| clip | input | backbone | method | a step | labels, in all | PSNR |")
        print("| --- | ---: | ---: | --- | ---: | ---: | ---: |")
        for clip in clips(root / "data", given.size, given.frames, given.clips):
            untouched = root / f"{clip.name}-untouched"
            deblur(clip.shown, untouched, alone)
            for method, settings in (("bank", base), ("literal", literal)):
                out, clock = root / f"{clip.name}-{method}", Clock()
                deblur(clip.shown, out, settings, clock)
                cells = [
                    clip.name,
                    f"{clip.quality(clip.shown):.2f}",
                    f"{clip.quality(untouched):.2f}",
                    method,
                    f"{1000 * clock.steps / given.iters:.0f} ms",
                    f"{clock.labels:.1f} s",
                    f"{clip.quality(out):.3f}",
                ]
                print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
