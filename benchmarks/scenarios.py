"""The regression table: input, network alone, transfer and adaptation on every scenario, row by row as they come.

Writes the clips once, then runs what is not in the results folder yet, so an interrupted run resumes where it was.

    python benchmarks/scenarios.py results/scenarios
    python benchmarks/scenarios.py results/scenarios --only street,walk --methods transfer
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from selfhvd_tta import Settings
from selfhvd_tta.console import Display, show_lines
from selfhvd_tta.errors import ExitCode, SelfHVDError
from selfhvd_tta.lab.evaluation.bench import BenchSettings, run_bench
from selfhvd_tta.lab.evaluation.dataset import write_pairs, write_regression_set
from selfhvd_tta.lab.simulation.recording import Averaging, average_recording
from selfhvd_tta.lab.simulation.scenarios import SCENARIOS
from selfhvd_tta.settings import AdaptationSettings, RuntimeSettings

RECORDING = Path(__file__).parents[2] / "shared" / "data" / "real_motion" / "street_a_240fps.mkv"
STREETS = {
    "street_mixed": Averaging(),
    "street_strong": Averaging((1, 11, 9, 11, 7, 11), step=12),
    "street_constant": Averaging((7,)),
}


def write_clips(root: Path, recording: Path, only: tuple[str, ...], display: Display) -> None:
    """Write the clips that are wanted and not there yet, below ``root/test``."""

    def missing(names: list[str]) -> list[str]:
        wanted = [name for name in names if not only or any(part in name for part in only)]
        return [name for name in wanted if not (root / "test" / name).exists()]

    simulated = missing([scenario.name for scenario in SCENARIOS])
    if simulated:
        write_regression_set(root, names=simulated, listen=display)
    recorded = missing(list(STREETS))
    if recorded and not recording.exists():
        show_lines([f"skipped: {', '.join(recorded)}: there is no recording {recording}"])
        return
    for name in recorded:
        clip = average_recording(recording, STREETS[name])
        labels = {"sharp": [n == 1 for n in clip.exposures], "exposure_subframes": clip.exposures}
        write_pairs(clip.blurry, clip.sharp, labels, root / "test" / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="folder of the clips, of results.md and of results.json")
    parser.add_argument("--recording", type=Path, default=RECORDING, help="at 240 fps, for the street clips")
    parser.add_argument("--only", default="", help="parts of clip names, separated by commas")
    parser.add_argument("--methods", default="transfer,adapt", help="as for bench --method, separated by commas")
    parser.add_argument("--iters", type=int, default=200, help="steps of adaptation")
    parser.add_argument("--backbone", default="auto")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    only = tuple(filter(None, given.only.split(",")))
    settings = replace(
        Settings(backbone=given.backbone),
        adaptation=AdaptationSettings(iters=given.iters),
        runtime=RuntimeSettings(device=given.device, offline=True),
    )
    plan = BenchSettings("bsd", skip=(0, 0), videos=only, methods=tuple(given.methods.split(",")))
    with Display("plain") as display:
        write_clips(given.results / "clips", given.recording, only, display)
        result = run_bench(given.results / "clips", given.results, plan, settings, display)
    show_lines([result.markdown])


if __name__ == "__main__":
    try:
        main()
    except SelfHVDError as error:
        sys.exit(f"{error.message}\n{error.hint}")
    except KeyboardInterrupt:
        show_lines(["interrupted; the same command continues with what is missing"])
        sys.exit(ExitCode.INTERRUPTED)
