"""The command ``pretrain-flow``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from selfhvd_tta.cli.options import Debug
from selfhvd_tta.console import Display
from selfhvd_tta.events import Note, Progress
from selfhvd_tta.settings import Precision


def pretrain_flow(
    photos: Annotated[list[Path], typer.Argument(help="Folders of sharp photographs.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the run; an existing run is continued.")],
    structure: Annotated[
        Literal["proofreader", "raft-small"],
        typer.Option(
            help="proofreader: the network of --flow shake. raft-small: torchvision's RAFT on the same pairs."
        ),
    ] = "proofreader",
    steps: Annotated[int, typer.Option(help="Optimiser steps at most.", min=1)] = 100_000,
    budget: Annotated[
        float | None,
        typer.Option(help="Minutes of training at most, over all parts of a run; making pairs not counted."),
    ] = None,
    clips: Annotated[int, typer.Option(help="Simulated clips that pairs are made of.", min=1)] = 360,
    crop: Annotated[int, typer.Option(help="Side of the training crops in pixels, a multiple of 16.")] = 128,
    batch: Annotated[int, typer.Option(help="Pairs per step, each in both directions.")] = 4,
    learning_rate: Annotated[float, typer.Option(help="After the warm-up.")] = 2e-3,
    initial: Annotated[
        Path | None, typer.Option(help="checkpoint.pt or .safetensors of an earlier run to start from.")
    ] = None,
    precision: Annotated[Precision, typer.Option(help="Of the convolutions; auto: bf16 on a GPU.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    workers: Annotated[int, typer.Option(help="Processes that make pairs before the training.", min=1)] = 1,
    seed: Annotated[int, typer.Option(help="Of weights and data.")] = 0,
    export: Annotated[Path | None, typer.Option(help="Write the result as .safetensors at the end.")] = None,
    licence: Annotated[str, typer.Option(help="Stated in the exported file.")] = "",
    debug: Debug = False,
) -> None:
    """Train the network of --flow shake on simulated pairs of frames over your photographs."""
    with Display() as display:
        from selfhvd_tta.lab.training.config import FlowTrainingConfig
        from selfhvd_tta.lab.training.flow_training import FlowProgress, export_flow, train_flow
        from selfhvd_tta.run.device import choose_device

        where = choose_device(device, display)
        half = precision == "bf16" or (precision == "auto" and where.type == "cuda")
        config = FlowTrainingConfig(
            photos=tuple(photos),
            output=output,
            structure=structure,
            steps=steps,
            budget=None if budget is None else 60 * budget,
            clips=clips,
            crop=crop,
            batch=batch,
            learning_rate=learning_rate,
            initial=initial,
            precision="bf16" if half else "fp32",
            device=str(where),
            workers=workers,
            seed=seed,
        )

        def making(done: int, total: int) -> None:
            display(Progress("pairs", done, total, "clips"))

        def tell(report: FlowProgress) -> None:
            values = [("loss", report.loss)]
            if report.validation is not None:
                values += [("error_px", report.validation.mean), ("of_guess_px", report.validation.guess_mean)]
            display(Progress("pretrain-flow", report.step, steps, "steps", tuple(values)))

        last = train_flow(config, tell, making)
        if export is not None:
            export_flow(config, export, {"licence": licence} if licence else {})
            display(Note(f"weights of step {last.step} written to {export}"))
