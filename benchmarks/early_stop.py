"""What ``--early-stop`` saves and costs: the same adaptation with and without it, on simulated clips with ground truth.

    OMP_NUM_THREADS=1 python benchmarks/early_stop.py --size 160x96 --frames 16 --iters 300 --label-refresh 25

Frames go in and out as PNG files; PSNR is that of the network's own output (nothing blended in) over the frames with
more than a pixel of blur. Needs scikit-image for its photographs.
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
from selfhvd_tta.settings import AlignmentSettings, RuntimeSettings


def main() -> None:
    """Run both on every clip and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", default="camera,object")
    parser.add_argument("--size", default="160x96", type=parse_size)
    parser.add_argument("--frames", default=16, type=int)
    parser.add_argument("--iters", default=300, type=int)
    parser.add_argument("--label-refresh", default=25, type=int)
    parser.add_argument("--learning-rate", default=1e-4, type=float)
    parser.add_argument("--crop", default=96, type=int)
    parser.add_argument("--teachers", default=3, type=int)
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
    plan = replace(
        base.adaptation,
        iters=given.iters,
        label_refresh=given.label_refresh,
        learning_rate=given.learning_rate,
        crop=given.crop,
    )
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        print("| clip | input | early stop | steps | CPU time | PSNR | error on held-out frames at every refresh |")
        print("| --- | ---: | --- | ---: | ---: | ---: | --- |")
        for clip in clips(root / "data", given.size, given.frames, given.clips):
            for early in (False, True):
                out, begun = root / f"{clip.name}-{early}", time.process_time()
                settings = replace(base, adaptation=replace(plan, early_stop=early))
                record = deblur(clip.shown, out, settings).record
                assert record is not None
                cells = [
                    clip.name,
                    f"{clip.quality(clip.shown):.2f}",
                    "yes" if early else "no",
                    str(len(record.steps)),
                    f"{time.process_time() - begun:.0f} s",
                    f"{clip.quality(out):.3f}",
                    " ".join(f"{1000 * error:.2f}" for error in record.held_out),
                ]
                print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
