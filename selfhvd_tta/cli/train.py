"""Commands for those who train: pretrain."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from selfhvd_tta.cli.options import Debug
from selfhvd_tta.console import Display
from selfhvd_tta.events import Note, Progress
from selfhvd_tta.settings import Precision

DATA, RECIPE, MACHINE, RESULT = "Data", "Recipe", "Machine", "Result"


def pretrain(
    data: Annotated[
        list[Path],
        typer.Argument(
            help="Folders: of sharp photographs or clips, to be shaken; or data sets of blurry and sharp videos in the "
            "layout of GoPro, BSD, REDS, or {blur,sharp}/SEQUENCE/N.png. See docs/lab/pretraining.md."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the run; an existing run is continued.")],
    backbone: Annotated[str, typer.Option(help="id or id:variant.")] = "estrnn:lite",
    initial: Annotated[
        str | None,
        typer.Option(help="Start a new run from these weights: .safetensors, a checkpoint.pt, or 'bundled'."),
    ] = None,
    gamma_blur: Annotated[
        bool, typer.Option("--gamma-blur", help="GoPro: blur_gamma instead of blur.", rich_help_panel=DATA)
    ] = False,
    crop: Annotated[int, typer.Option(help="Side of the training crops in pixels.", rich_help_panel=DATA)] = 96,
    clip_length: Annotated[
        int, typer.Option(help="Frames of a training clip; 1 for networks of single pictures.", rich_help_panel=DATA)
    ] = 8,
    clip_size: Annotated[
        int | None,
        typer.Option(
            help="Side of the clips that crops are cut from. Default: 160, or 4/3 of the crop.", rich_help_panel=DATA
        ),
    ] = None,
    clip_frames: Annotated[
        int | None,
        typer.Option(help="Their frames. Default: 14, or 4/3 of the clip length.", rich_help_panel=DATA),
    ] = None,
    pool: Annotated[int, typer.Option(help="Clips in use at a time.", rich_help_panel=DATA)] = 500,
    renewal: Annotated[
        int, typer.Option(help="Steps after which one of them is replaced; 0: never.", rich_help_panel=DATA)
    ] = 20,
    seed: Annotated[int, typer.Option(help="Of weights and data.", rich_help_panel=DATA)] = 0,
    steps: Annotated[int, typer.Option(help="Optimiser steps at most.", min=1, rich_help_panel=RECIPE)] = 200_000,
    budget: Annotated[
        float | None,
        typer.Option(help="Minutes of training at most, over all parts of a run.", rich_help_panel=RECIPE),
    ] = None,
    batch: Annotated[int, typer.Option(help="Clips per step and process.", rich_help_panel=RECIPE)] = 1,
    accumulate: Annotated[
        int, typer.Option(help="Parts that a batch is split into, to save memory.", rich_help_panel=RECIPE)
    ] = 1,
    learning_rate: Annotated[
        float, typer.Option(help="After the warm-up; a cosine leads down to 1e-5.", rich_help_panel=RECIPE)
    ] = 6e-3,
    frequency: Annotated[
        float, typer.Option(help="Weight of the loss between Fourier transforms; 0: none.", rich_help_panel=RECIPE)
    ] = 0.0,
    curriculum: Annotated[
        int,
        typer.Option(help="Steps over which simulated shake grows to full speed; 0: at once.", rich_help_panel=RECIPE),
    ] = 0,
    precision: Annotated[
        Precision, typer.Option(help="Of the forward pass; auto: bf16 on a GPU.", rich_help_panel=MACHINE)
    ] = "auto",
    device: Annotated[
        str,
        typer.Option(
            help="auto, cpu, cuda or cuda:N. Under torchrun each process has its own.", rich_help_panel=MACHINE
        ),
    ] = "auto",
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes that make clips ahead, per training process. Default: on a GPU up to 8, on a CPU 0.",
            rich_help_panel=MACHINE,
        ),
    ] = None,
    validate_every: Annotated[
        int, typer.Option(help="Steps between two measurements; 0: at the end.", rich_help_panel=RESULT)
    ] = 1000,
    export: Annotated[
        Path | None, typer.Option(help="Write the result as .safetensors at the end.", rich_help_panel=RESULT)
    ] = None,
    licence: Annotated[str, typer.Option(help="Stated in the exported file.", rich_help_panel=RESULT)] = "",
    debug: Debug = False,
) -> None:
    """Train a backbone on simulated handheld shake over your photographs, or on data sets of pairs.

    On several GPUs: torchrun --nproc-per-node N -m selfhvd_tta pretrain ... (one machine).
    """
    first = os.environ.get("RANK", "0") == "0"
    with Display("auto" if first else "quiet") as display:
        from selfhvd_tta.lab.training.config import PretrainConfig
        from selfhvd_tta.lab.training.pretrain import PretrainProgress, export_weights
        from selfhvd_tta.lab.training.pretrain import pretrain as run
        from selfhvd_tta.run.device import choose_device
        from selfhvd_tta.run.networks import find_backbone

        where = choose_device(device, display)
        on_gpu = where.type == "cuda"
        share = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1
        network, variant = find_backbone(backbone)
        half = precision == "bf16" or (precision == "auto" and on_gpu and "bfloat16" in network.autocast)
        config = PretrainConfig(
            data=tuple(data),
            output=output,
            backbone=network.id,
            variant=variant.name,
            initial=None if initial is None else Path(initial),
            steps=steps,
            budget=None if budget is None else 60 * budget,
            crop=crop,
            clip_length=clip_length,
            batch=batch,
            accumulate=accumulate,
            learning_rate=learning_rate,
            final_learning_rate=min(1e-5, learning_rate / 10),
            frequency=frequency,
            curriculum=curriculum,
            pool=pool,
            renewal=renewal,
            clip_size=max(160, crop * 4 // 3) if clip_size is None else clip_size,
            clip_frames=max(14, clip_length * 4 // 3) if clip_frames is None else clip_frames,
            gamma_blur=gamma_blur,
            precision="bf16" if half else "fp32",
            device=str(where),
            seed=seed,
            workers=(min(8, max(share, 1)) if on_gpu else 0) if workers is None else workers,
            validate_every=validate_every,
        )

        def tell(report: PretrainProgress) -> None:
            values = [("loss", report.loss)]
            if report.validation is not None:
                values += [("gain_dB", report.validation.blurry), ("on_sharp_dB", report.validation.sharp)]
            display(Progress("pretrain", report.step, steps, "steps", tuple(values)))

        last = run(config, tell, lambda line: display(Note(line)))
        if export is not None and first:
            export_weights(config, export, {"licence": licence} if licence else {})
            display(Note(f"weights of step {last.step} written to {export}"))
