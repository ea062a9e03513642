"""The label bank beside the paper's literal method: CPU time of a step, and what the network has learned after as many.

    OMP_NUM_THREADS=1 python benchmarks/bank_against_literal.py --size 192x128 --frames 24 --iters 60 --teachers 5

Both runs have the same seed, so they draw the same clips. Frames go in and out as PNG files; PSNR is that of the
network's own output (nothing blended in) over the frames with more than a pixel of blur. Needs scikit-image for its
photographs.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

from regression import clips, flags, settings_of

from selfhvd_tta import deblur
from selfhvd_tta.events import Event, Plan, Progress


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
    given = flags(__doc__ or "").parse_args()
    base = settings_of(given)
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
