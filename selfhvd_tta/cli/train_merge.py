"""The command ``pretrain-merge``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from selfhvd_tta.cli.options import Debug
from selfhvd_tta.console import Display
from selfhvd_tta.events import Note, Progress
from selfhvd_tta.settings import Precision


def pretrain_merge(
    photos: Annotated[list[Path], typer.Argument(help="Folders of sharp photographs.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the run; an existing run is continued.")],
    backbone: Annotated[
        str, typer.Option(help="Network whose outputs are merged with the sharp frames: id or id:variant.")
    ] = "relay:lite",
    initial: Annotated[
        str | None,
        typer.Option(help="Weights to start from: bundled, a .safetensors file, or checkpoint.pt of an earlier run."),
    ] = None,
    steps: Annotated[int, typer.Option(help="Optimiser steps at most.", min=1)] = 100_000,
    budget: Annotated[
        float | None,
        typer.Option(help="Minutes of training at most, over all parts of a run; making samples not counted."),
    ] = None,
    clips: Annotated[
        int, typer.Option(help="Simulated clips that samples are made of, up to five each (6 MB).", min=1)
    ] = 600,
    clip_size: Annotated[int, typer.Option(help="Height and width of a simulated clip.", min=64)] = 192,
    clip_frames: Annotated[int, typer.Option(help="Length of a simulated clip.", min=4)] = 24,
    crop: Annotated[int, typer.Option(help="Side of the training crops in pixels.", min=16)] = 96,
    batch: Annotated[int, typer.Option(help="Samples per step.")] = 8,
    learning_rate: Annotated[float, typer.Option(help="After the warm-up.")] = 6e-3,
    precision: Annotated[Precision, typer.Option(help="Of the convolutions; auto: bf16 on a GPU.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    workers: Annotated[int, typer.Option(help="Processes that make samples before the training.", min=1)] = 1,
    validate_every: Annotated[
        int, typer.Option(help="Steps between two measurements on held-out photographs.", min=1)
    ] = 1000,
    seed: Annotated[int, typer.Option(help="Of weights and data.")] = 0,
    export: Annotated[Path | None, typer.Option(help="Write the result as .safetensors at the end.")] = None,
    licence: Annotated[str, typer.Option(help="Stated in the exported file.")] = "",
    debug: Debug = False,
) -> None:
    """Train the network of --merge learned on simulated shake over your photographs."""
    with Display() as display:
        from selfhvd_tta.lab.training.config import MergeTrainingConfig
        from selfhvd_tta.lab.training.merge_training import (
            MergeProgress,
            export_merge,
            train_merge,
        )
        from selfhvd_tta.run.device import choose_device

        where = choose_device(device, display)
        half = precision == "bf16" or (precision == "auto" and where.type == "cuda")
        config = MergeTrainingConfig(
            photos=tuple(photos),
            output=output,
            backbone=backbone,
            initial=None if initial is None else Path(initial),
            steps=steps,
            budget=None if budget is None else 60 * budget,
            clips=clips,
            width=clip_size,
            height=clip_size,
            frames=clip_frames,
            crop=crop,
            batch=batch,
            learning_rate=learning_rate,
            precision="bf16" if half else "fp32",
            device=str(where),
            workers=workers,
            validate_every=validate_every,
            seed=seed,
        )

        def making(done: int, total: int) -> None:
            display(Progress("samples", done, total, "clips"))

        def tell(report: MergeProgress) -> None:
            values = [("loss", report.loss)]
            if report.validation is not None:
                gains = (("gain_dB", report.validation.blurry), ("on_sharp_dB", report.validation.sharp))
                values += [(name, gain) for name, gain in gains if gain is not None]
            display(Progress("pretrain-merge", report.step, steps, "steps", tuple(values)))

        last = train_merge(config, tell, making)
        if export is not None:
            export_merge(config, export, {"licence": licence} if licence else {})
            display(Note(f"weights of step {last.step} written to {export}"))
