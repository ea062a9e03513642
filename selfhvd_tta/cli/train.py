"""The command ``pretrain``."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from selfhvd_tta.cli.options import Debug
from selfhvd_tta.cli.training import (
    DATA,
    MACHINE,
    RECIPE,
    RESULT,
    Device,
    Export,
    Half,
    Licence,
    Minutes,
    follow,
    place,
    seconds,
    takes_config,
    write_weights,
)
from selfhvd_tta.console import Display
from selfhvd_tta.events import Note
from selfhvd_tta.lab.training.config import PretrainConfig


@takes_config(
    PretrainConfig,
    {
        DATA: ("gamma_blur", "crop", "clip_length", "pool", "renewal", "seed"),
        RECIPE: ("initial", "steps", "batch", "accumulate", "learning_rate", "frequency", "curriculum"),
        RESULT: ("validate_every",),
    },
)
def pretrain(
    data: list[Path],
    output: Path,
    backbone: Annotated[
        str, typer.Option(metavar="ID", help="Backbone to train: id or id:variant.", rich_help_panel=RECIPE)
    ] = "estrnn:lite",
    clip_size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Side of the clips that crops are cut from, in pixels. Default: 160, or 4/3 of the crop.",
            rich_help_panel=DATA,
        ),
    ] = None,
    clip_frames: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Frames of these clips. Default: 14, or 4/3 of the clip length.", rich_help_panel=DATA
        ),
    ] = None,
    budget: Minutes = None,
    precision: Half = "auto",
    device: Device = "auto",
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Processes that make clips ahead, per training process. Default: on a GPU up to 8, on a CPU 0.",
            rich_help_panel=MACHINE,
        ),
    ] = None,
    export: Export = None,
    licence: Licence = "",
    debug: Debug = False,
    **flags: Any,
) -> None:
    """Train a backbone on simulated handheld shake over your photographs, or on data sets of pairs.

    On several GPUs of one machine, each process with its own: torchrun --nproc-per-node N -m selfhvd_tta pretrain ...
    """
    first = os.environ.get("RANK", "0") == "0"
    with Display("auto" if first else "quiet") as display:
        from selfhvd_tta.lab.training.pretrain import export_weights
        from selfhvd_tta.lab.training.pretrain import pretrain as run
        from selfhvd_tta.run.networks import find_backbone

        network, variant = find_backbone(backbone)
        where, half = place(device, precision, display, "bfloat16" in network.autocast)
        share = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1
        ahead = min(8, max(share, 1)) if where.startswith("cuda") else 0
        config = PretrainConfig(
            data=tuple(data),
            output=output,
            backbone=network.id,
            variant=variant.name,
            budget=seconds(budget),
            final_learning_rate=min(1e-5, flags["learning_rate"] / 10),
            clip_size=max(160, flags["crop"] * 4 // 3) if clip_size is None else clip_size,
            clip_frames=max(14, flags["clip_length"] * 4 // 3) if clip_frames is None else clip_frames,
            precision=half,
            device=where,
            workers=ahead if workers is None else workers,
            **flags,
        )
        tell = follow(display, "pretrain", config.steps, lambda v: [("gain_dB", v.blurry), ("on_sharp_dB", v.sharp)])
        last = run(config, tell, lambda line: display(Note(line)))
        if export is not None and first:
            write_weights(display, last.step, export, licence, partial(export_weights, config))
