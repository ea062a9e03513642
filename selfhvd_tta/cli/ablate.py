"""The command ``ablate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from selfhvd_tta.cli.options import Debug, settings_of, takes_settings
from selfhvd_tta.console import Display, show_lines
from selfhvd_tta.lab.evaluation.studies import PAPER, STUDIES
from selfhvd_tta.settings import Settings

FLAGS = (
    *("backbone", "iters", "crop", "clip_length", "learning_rate", "flow", "teachers", "merge"),
    *("device", "seed", "offline"),
)


@takes_settings(only=FLAGS)
def ablate(
    ctx: typer.Context,
    root: Annotated[Path, typer.Argument(help="Folder of the data set, as for bench.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for ablations.md; a run is continued.")],
    study: Annotated[
        list[str] | None,
        typer.Option(
            help=f"{', '.join(STUDIES)}; repeatable. {PAPER}: modules, sevd and updates, next to the figures of the "
            "paper's Tables 3, 4 and 5. Default: all."
        ),
    ] = None,
    protocol: Annotated[str, typer.Option(help="As for bench.")] = "bsd",
    detail: Annotated[
        bool, typer.Option("--detail", help="Score the output with sharp details blended in, too.")
    ] = False,
    skip_ends: Annotated[tuple[int, int] | None, typer.Option(help="As for bench.")] = None,
    video: Annotated[list[str] | None, typer.Option(help="Only videos whose name contains this.")] = None,
    debug: Debug = False,
    **flags: Any,
) -> None:
    """Switch parts of the method off, or vary them, and score what that costs: one benchmark per variant."""
    with Display() as display:
        from selfhvd_tta.lab.evaluation.ablations import run_studies
        from selfhvd_tta.lab.evaluation.bench import BenchSettings

        base = settings_of(ctx, flags, base=Settings(method="adapt", detail=detail))
        plan = BenchSettings(protocol=protocol, skip=skip_ends, temporal=False, videos=tuple(video or ()))
        text = run_studies(root, output, plan, base, study or tuple(STUDIES), display)
    show_lines([text])
