"""The command ``pretrain-merge``."""

from __future__ import annotations

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
    making,
    place,
    seconds,
    takes_config,
    write_weights,
)
from selfhvd_tta.console import Display
from selfhvd_tta.lab.training.config import MergeTrainingConfig


@takes_config(
    MergeTrainingConfig,
    {
        DATA: ("clips", "crop", "seed"),
        RECIPE: ("backbone", "initial", "steps", "batch", "learning_rate"),
        MACHINE: ("workers",),
        RESULT: ("validate_every",),
    },
)
def pretrain_merge(
    photos: list[Path],
    output: Path,
    clip_size: Annotated[
        int, typer.Option(metavar="N", help="Height and width of a simulated clip.", min=64, rich_help_panel=DATA)
    ] = 192,
    clip_frames: Annotated[
        int, typer.Option(metavar="N", help="Length of a simulated clip.", min=4, rich_help_panel=DATA)
    ] = 24,
    budget: Minutes = None,
    precision: Half = "auto",
    device: Device = "auto",
    export: Export = None,
    licence: Licence = "",
    debug: Debug = False,
    **flags: Any,
) -> None:
    """Train the network of --merge learned on simulated shake over your photographs."""
    with Display() as display:
        from selfhvd_tta.lab.training.merge_training import export_merge, train_merge

        where, half = place(device, precision, display)
        config = MergeTrainingConfig(
            photos=tuple(photos),
            output=output,
            width=clip_size,
            height=clip_size,
            frames=clip_frames,
            budget=seconds(budget),
            precision=half,
            device=where,
            **flags,
        )
        tell = follow(
            display, "pretrain-merge", config.steps, lambda v: [("gain_dB", v.blurry), ("on_sharp_dB", v.sharp)]
        )
        last = train_merge(config, tell, making(display, "samples"))
        if export is not None:
            write_weights(display, last.step, export, licence, partial(export_merge, config))
