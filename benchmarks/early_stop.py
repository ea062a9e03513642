"""What ``--early-stop`` saves and costs: the same adaptation with and without it, on simulated clips with ground truth.

    OMP_NUM_THREADS=1 python benchmarks/early_stop.py --size 160x96 --frames 16 --iters 300 --label-refresh 25

Frames go in and out as PNG files; PSNR is that of the network's own output (nothing blended in) over the frames with
more than a pixel of blur. Needs scikit-image for its photographs.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

from regression import clips, flags, settings_of

from selfhvd_tta import deblur


def main() -> None:
    """Run both on every clip and print a Markdown table."""
    parser = flags(__doc__ or "", clips="camera,object", size=(160, 96), frames=16, iters=300, crop=96, teachers=3)
    parser.add_argument("--label-refresh", default=25, type=int)
    parser.add_argument("--learning-rate", default=None, type=float)
    given = parser.parse_args()
    base = settings_of(given)
    plan = replace(base.adaptation, label_refresh=given.label_refresh, learning_rate=given.learning_rate)
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
