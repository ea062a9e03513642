"""CPU time from ``import torch`` to the first optimiser step of a run, and what it went into.

OMP_NUM_THREADS=1 python benchmarks/first_step.py shaky.mp4 --backbone relay:lite --flow shake
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

after_torch = time.process_time()

from selfhvd_tta import CancelToken, Interrupted, Settings, deblur  # noqa: E402
from selfhvd_tta.events import Event, Note, Progress  # noqa: E402
from selfhvd_tta.settings import AlignmentSettings, RuntimeSettings  # noqa: E402


def main() -> None:
    """Run until the first step is done, and print CPU seconds at every new phase."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--backbone", default="relay:lite")
    parser.add_argument("--flow", default="shake")
    parser.add_argument("--iters", default=200, type=int)
    given = parser.parse_args()
    base = Settings(
        backbone=given.backbone,
        alignment=AlignmentSettings(flow=given.flow),
        runtime=RuntimeSettings(device="cpu", offline=True),
    )
    settings = replace(base, adaptation=replace(base.adaptation, iters=given.iters))
    token = CancelToken()
    labels = [0]
    last = [""]

    def listen(event: Event) -> None:
        name = event.phase if isinstance(event, Progress) else type(event).__name__.lower()
        labels[0] += name == "labels"
        if name != last[0]:
            text = f": {event.text}" if isinstance(event, Note) else ""
            print(f"{time.process_time() - after_torch:7.2f} s  {name}{text}", flush=True)
        last[0] = name
        if name == "stage 1":
            print(f"first step; {labels[0]} labels made before it, {torch.get_num_threads()} threads", flush=True)
            token.cancel()

    with tempfile.TemporaryDirectory() as folder:
        try:
            deblur(given.video, Path(folder) / "sharp.mp4", settings, listen, token)
        except Interrupted:
            return


if __name__ == "__main__":
    main()
