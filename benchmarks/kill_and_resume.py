"""Kill the real command at random moments, run it again until it is done, and compare with an uninterrupted run.

    python benchmarks/kill_and_resume.py INPUT OUTPUT-FOLDER --runs 3 [options of deblur ...]

Each attempt is killed (SIGKILL) after a random time, drawn so that about five attempts make a run. After every kill the
output must be absent; at the end it must be the same file, byte for byte, and nothing else may lie next to it.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from pathlib import Path


def command(source: Path, output: Path, options: list[str]) -> list[str]:
    return [sys.executable, "-m", "selfhvd_tta", "deblur", str(source), "-o", str(output), *options]


def one(source: Path, folder: Path, options: list[str], seed: int, seconds: float, reference: bytes) -> tuple[int, int]:
    """Number of kills, and how many of the attempts continued an earlier one."""
    rng = random.Random(seed)
    folder.mkdir(parents=True)
    output = folder / "out.mp4"
    kills = continued = 0
    while True:
        with (folder.parent / "log").open("w+") as log:
            child = subprocess.Popen(command(source, output, options), stderr=log, stdout=log)
            # The more attempts, the longer: progress is kept at checkpoints only, and must outrun the kills in the end.
            limit = rng.uniform(0.12, 0.25 + 0.06 * kills) * seconds
            try:
                code = child.wait(limit)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                code = None
            log.seek(0)
            text = log.read()
        continued += "continuing an interrupted run" in text
        if code is None:
            kills += 1
            if output.exists():
                assert output.read_bytes() == reference, "killed, and the output is neither absent nor complete"
            continue
        if code == 2 and "exists already" in text and output.exists():
            break  # the last kill came after the output was in place
        assert code == 0, text
        break
    assert output.read_bytes() == reference, "the output differs from that of the uninterrupted run"
    assert os.listdir(folder) == ["out.mp4"], os.listdir(folder)
    return kills, continued


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    args, options = parser.parse_known_args()
    options += ["--checkpoint-minutes", "0.02"]
    (args.folder / "reference").mkdir(parents=True)
    whole = args.folder / "reference" / "out.mp4"
    started = time.monotonic()
    subprocess.run(command(args.input, whole, options), check=True, stderr=subprocess.DEVNULL)
    seconds = time.monotonic() - started
    print(f"uninterrupted: {seconds:.0f} s")
    for number in range(args.runs):
        folder = args.folder / f"run{number}"
        kills, continued = one(args.input, folder, options, args.seed + number, seconds, whole.read_bytes())
        print(f"run {number}: {kills} kills, {continued} attempts continued an earlier one, same bytes")


if __name__ == "__main__":
    main()
