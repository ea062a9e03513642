"""Two checkouts side by side on the same clip: processor time, share of the kernel, peak memory, and their ratios.

    python benchmarks/old_and_new.py ../older CLIP --frames 8
    python benchmarks/old_and_new.py . CLIP --threads 1,2 --cores 8 --lengths 10,60

The clip's first frames are scaled to each size and go through ``deblur --method transfer --offline`` of either
checkout, each time in a process of its own. Processor time is what others on the machine do not change. For the new
checkout the plan's time is printed next to the processor time from the plan on.

With several ``--threads`` the new checkout's clock time by 1 and n threads gives its parallel efficiency, and from that
the time for clips of some lengths on so many cores. Only an idle machine gives figures worth noting.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av

SIZES = ("384x256", "960x540", "1920x1080")
HERE = Path(__file__).resolve().parent.parent
TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """What a run took.

    Attributes:
        clock: seconds on the wall.
        processor: seconds of all threads together.
        kernel: of them, those inside the kernel.
        peak: largest resident set, bytes.
        planned: seconds that the plan gave for what came after it; None if it gave none.
        worked: processor seconds after the plan.
    """

    clock: float
    processor: float
    kernel: float
    peak: int
    planned: float | None
    worked: float


def scaled(source: Path, target: Path, size: str, frames: int) -> Path:
    """The first frames in another size, hardly compressed."""
    width, height = map(int, size.split("x"))
    with av.open(source) as given, av.open(target, "w") as made:
        rate = Fraction(given.streams.video[0].average_rate or 30)
        stream = made.add_stream("libx264", rate=rate, options={"crf": "14", "preset": "fast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index, frame in enumerate(islice(given.decode(video=0), frames)):
            picture = frame.reformat(width, height, "yuv420p", interpolation="AREA")
            picture.pts, picture.time_base = index, 1 / rate
            made.mux(stream.encode(picture))
        made.mux(stream.encode(None))
    return target


def run(checkout: Path, clip: Path, threads: int) -> Cost:
    """One run of a checkout's command.

    Raises:
        SystemExit: the command failed.
    """
    out = clip.with_name("out.mp4")
    command = [sys.executable, "-m", "selfhvd_tta", "deblur", clip, "-o", out, "--method", "transfer", "--offline"]
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": str(threads)}
    begun, at_plan, planned = time.monotonic(), 0.0, None
    child = subprocess.Popen(
        [*map(str, command), "--overwrite", "--json"],
        cwd=checkout,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert child.stdout is not None
    for line in child.stdout:
        event = json.loads(line)
        if event["event"] == "plan":
            planned = None if event["minutes"] is None else 60 * event["minutes"]
            times = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
            at_plan = (int(times[11]) + int(times[12])) / TICK
        elif event["event"] == "error":
            sys.exit(f"{checkout}: {event['message']}")
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{checkout}: ended with {child.returncode}")
    processor = used.ru_utime + used.ru_stime
    return Cost(time.monotonic() - begun, processor, used.ru_stime, used.ru_maxrss * 1024, planned, processor - at_plan)


def compare(old: Path, clip: Path, frames: int, size: str) -> None:
    """One row: old, new, ratio."""
    before, now = run(old, clip, 1), run(HERE, clip, 1)

    def cell(cost: Cost) -> str:
        share = cost.kernel / cost.processor
        return f"{cost.processor / frames:.1f} s, {share:.0%}, {cost.peak / 1e9:.1f} GB"

    ratio = now.processor / before.processor
    plan = "none" if now.planned is None else f"{now.planned:.0f} / {now.worked:.0f} s"
    print(
        f"| {size} | {cell(before)} | {cell(now)} | {ratio:.2f} | {now.peak / before.peak:.2f} | {plan} |", flush=True
    )


def on_cores(clip: Path, frames: int, size: str, threads: list[int], cores: int, lengths: list[int]) -> None:
    """One row: efficiency measured by the largest number of threads, and times that it gives for ``cores``."""
    one, many = (run(HERE, clip, count).clock for count in (threads[0], threads[-1]))
    # Amdahl: what is not shared out among the threads stays.
    gained = threads[-1] / threads[0]
    shared = min(1.0, max(0.0, (1 - many / one) / (1 - 1 / gained)))
    each = {count: one / frames * (1 - shared + shared / count) for count in (2, cores)}
    times = ", ".join(f"{n} s: {30 * n * each[2] / 60:.0f} / {30 * n * each[cores] / 60:.0f} min" for n in lengths)
    print(f"| {size} | {one / many / gained:.0%} | {times} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, help="another checkout")
    parser.add_argument("clip", type=Path)
    parser.add_argument("--sizes", default=",".join(SIZES))
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--threads", default="1", help="1,2: measure parallel efficiency instead")
    parser.add_argument("--cores", type=int, default=8)
    parser.add_argument("--lengths", default="10,60", help="seconds of video at 30 frames a second")
    args = parser.parse_args()
    threads = [int(count) for count in args.threads.split(",")]
    lengths = [int(seconds) for seconds in args.lengths.split(",")]
    if len(threads) == 1:
        print("| size | old, a frame: CPU, kernel, peak | new | CPU ratio | peak ratio | planned / measured |")
        print("| --- | --- | --- | ---: | ---: | ---: |")
    else:
        print(f"| size | parallel efficiency | seconds of video: time on 2 / {args.cores} cores |")
        print("| --- | ---: | --- |")
    with tempfile.TemporaryDirectory(prefix="old-and-new-") as place:
        for size in args.sizes.split(","):
            clip = scaled(args.clip, Path(place) / "clip.mp4", size, args.frames)
            if len(threads) == 1:
                compare(args.old.resolve(), clip, args.frames, size)
            else:
                on_cores(clip, args.frames, size, threads, args.cores, lengths)


if __name__ == "__main__":
    main()
