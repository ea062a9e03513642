"""Run the real command where no file may grow beyond a limit, as on a full disk, at twenty limits.

    python benchmarks/full_disk.py INPUT [options of deblur ...]

Each time an older output is in the way (``--overwrite``). Either the run ends with exit code 6 and the older output is
untouched, or the limit was large enough and the new output is complete; then, without the limit, the same command
gets to its end.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path


def run(source: Path, output: Path, options: list[str], limit: int | None) -> subprocess.CompletedProcess[str]:
    def lower() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-m", "selfhvd_tta", "deblur", str(source), "-o", str(output), "--overwrite", *options]
    return subprocess.run(command, capture_output=True, text=True, preexec_fn=lower, check=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path)
    parser.add_argument("--sizes", type=int, default=20)
    args, options = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        output = folder / "out.mp4"
        assert run(args.input, output, options, None).returncode == 0
        size, whole = output.stat().st_size, output.read_bytes()
        for number in range(args.sizes):
            limit = round(40 * (1.3 * size / 40) ** (number / (args.sizes - 1)))
            output.write_bytes(b"precious")
            done = run(args.input, output, options, limit)
            left = sorted(set(os.listdir(folder)) - {"out.mp4"})
            assert "Traceback" not in done.stderr, done.stderr
            if done.returncode == 0:
                assert output.read_bytes() == whole
                outcome = "done"
            else:
                assert done.returncode == 6, done.stderr
                assert output.read_bytes() == b"precious"
                assert all(entry == ".out.mp4.job" for entry in left), left
                again = run(args.input, output, options, None)
                assert again.returncode == 0, again.stderr
                assert output.read_bytes() == whole
                how = "continued" if "continuing an interrupted run" in again.stderr else "started over"
                outcome = f"exit code 6, the older output untouched; with room it was {how} and complete"
            assert os.listdir(folder) == ["out.mp4"]
            print(f"{limit} bytes: {outcome}", flush=True)


if __name__ == "__main__":
    main()
