"""The command ``ablate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from selfhvd_tta.console import Display, show_lines
from selfhvd_tta.lab.evaluation.studies import STUDIES
from selfhvd_tta.settings import AdaptationSettings, AlignmentSettings, Merge, RuntimeSettings, Settings

ablations = typer.Typer()
A = AdaptationSettings()


@ablations.command()
def ablate(
    root: Annotated[Path, typer.Argument(help="Folder of the data set, as for bench.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for ablations.md; a run is continued.")],
    study: Annotated[
        list[str] | None,
        typer.Option(
            help=f"{', '.join(STUDIES)}; repeatable. modules, sevd and updates are the paper's Tables 3, 4 and 5. "
            "Default: all."
        ),
    ] = None,
    protocol: Annotated[str, typer.Option(help="As for bench.")] = "bsd",
    backbone: Annotated[str, typer.Option(help="As for deblur.")] = "auto",
    iters: Annotated[int, typer.Option(help="Steps per video.")] = A.iters,
    crop: Annotated[int | None, typer.Option(help="Side of the training crops in pixels.")] = A.crop,
    clip_length: Annotated[int | None, typer.Option(help="Frames of a training clip.")] = A.clip_length,
    learning_rate: Annotated[float | None, typer.Option(help="As for deblur.")] = A.learning_rate,
    flow: Annotated[str, typer.Option(help="As for deblur.")] = "auto",
    teachers: Annotated[int, typer.Option(help="As for deblur.")] = AlignmentSettings().teachers,
    merge: Annotated[Merge, typer.Option(help="As for deblur.")] = AlignmentSettings().merge,
    detail: Annotated[
        bool, typer.Option("--detail", help="Score the output with sharp details blended in, too.")
    ] = False,
    skip_ends: Annotated[tuple[int, int] | None, typer.Option(help="As for bench.")] = None,
    video: Annotated[list[str] | None, typer.Option(help="Only videos whose name contains this.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of every random draw.")] = 0,
    offline: Annotated[bool, typer.Option("--offline", help="Use only weights that are on this machine.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Switch parts of the method off, or vary them, and score what that costs: one benchmark per variant."""
    with Display() as display:
        from selfhvd_tta.lab.evaluation.ablations import run_studies
        from selfhvd_tta.lab.evaluation.bench import BenchSettings

        base = Settings(
            backbone=backbone,
            detail=detail,
            alignment=AlignmentSettings(flow=flow, teachers=teachers, merge=merge),
            adaptation=AdaptationSettings(
                iters=iters,
                crop=crop,
                clip_length=clip_length,
                learning_rate=learning_rate,
                final_learning_rate=min(A.final_learning_rate, learning_rate or A.final_learning_rate),
            ),
            runtime=RuntimeSettings(device=device, seed=seed, offline=offline),
        )
        plan = BenchSettings(protocol=protocol, skip=skip_ends, temporal=False, videos=tuple(video or ()))
        text = run_studies(root, output, plan, base, study or tuple(STUDIES), display)
    show_lines([text])
