"""Peak memory of a short and of a long clip of the same size: it must not grow with the length.

    python benchmarks/memory_of_length.py FOLDER --size 1280x720 --short 30 --long 600

The whole command runs (scan, network, encoding, joining, verification) with a network that does nothing, each clip in a
process of its own; peak memory is the largest resident set of that process, as the kernel counts it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np

CHILD = "--child"


def make(path: Path, width: int, height: int, seconds: int, rate: int = 30) -> None:
    """A panning texture with noise in it, every third frame sharp, with sound."""
    import av
    import cv2

    rng = np.random.default_rng(0)
    texture = cv2.resize(rng.integers(0, 256, (height // 4, width // 2, 3), dtype=np.uint8), (2 * width, height))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"preset": "ultrafast", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        sound = container.add_stream("aac", rate=48000)
        for index in range(seconds * rate):
            left = (2 * index) % width
            rgb = np.ascontiguousarray(texture[:, left : left + width])
            if index % 3:
                rgb = cv2.blur(rgb, (7, 1))
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        for start in range(0, seconds * 48000, 1024):
            block = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
            block.sample_rate, block.pts, block.time_base = 48000, start, Fraction(1, 48000)
            container.mux(sound.encode(block))
        container.mux(sound.encode(None))


def child(source: str, output: str, method: str) -> None:
    import resource

    import torch
    from torch import nn

    import selfhvd_tta
    from selfhvd_tta.backbones import Backbone, Variant
    from selfhvd_tta.backbones.wrapper import Network
    from selfhvd_tta.run import equipment
    from selfhvd_tta.settings import AdaptationSettings, AlignmentSettings, OutputSettings, RuntimeSettings, Settings

    torch.set_num_threads(1)
    variant = Variant("default")
    nothing = Backbone("nothing", "does nothing", "MIT", "none", nn.Identity, (variant,), temporal="frame")
    network = Network(nn.Identity(), nothing, variant).eval()
    equipment.load_backbone = lambda settings, device, listen: network
    settings = Settings(
        method="transfer" if method == "transfer" else "adapt",
        force=True,
        alignment=AlignmentSettings(flow="dis:ultrafast", teachers=1),
        adaptation=AdaptationSettings(iters=0),
        runtime=RuntimeSettings(device="cpu", offline=True),
        output=OutputSettings(preset="ultrafast", overwrite=True),
    )
    started = time.monotonic()
    result = selfhvd_tta.deblur(source, output, settings)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"frames": result.frames, "seconds": time.monotonic() - started, "peak": peak}))


def main() -> None:
    if sys.argv[1:2] == [CHILD]:
        child(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--short", type=int, default=30, help="seconds")
    parser.add_argument("--long", type=int, default=600, help="seconds")
    parser.add_argument("--method", choices=["identity", "transfer"], default="identity")
    args = parser.parse_args()
    width, height = map(int, args.size.split("x"))
    args.folder.mkdir(parents=True, exist_ok=True)
    peaks = []
    for seconds in (args.short, args.long):
        source = args.folder / f"{args.size}-{seconds}.mp4"
        if not source.exists():
            make(source, width, height, seconds)
        command = [sys.executable, __file__, CHILD, str(source), str(args.folder / "out.mp4"), args.method]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
        row = json.loads(done.stdout.splitlines()[-1])
        peaks.append(row["peak"])
        per_second = row["frames"] / row["seconds"]
        size = f"{args.size}, {seconds} s, {row['frames']} frames"
        print(f"{args.method}: {size}: peak {row['peak'] / 2**20:.0f} MiB, {per_second:.1f} frames/s", flush=True)
    print(f"growth: {100 * (peaks[1] / peaks[0] - 1):+.1f} %")


if __name__ == "__main__":
    main()
