"""The command ``pretrain-flow``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from selfhvd_tta.cli.options import Debug
from selfhvd_tta.cli.training import (
    DATA,
    MACHINE,
    RECIPE,
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
from selfhvd_tta.lab.training.config import FlowTrainingConfig


@takes_config(
    FlowTrainingConfig,
    {
        DATA: ("clips", "crop", "seed"),
        RECIPE: ("structure", "initial", "steps", "batch", "learning_rate"),
        MACHINE: ("workers",),
    },
)
def pretrain_flow(
    photos: list[Path],
    output: Path,
    budget: Minutes = None,
    precision: Half = "auto",
    device: Device = "auto",
    export: Export = None,
    licence: Licence = "",
    debug: Debug = False,
    **flags: Any,
) -> None:
    """Train the network of --flow shake on simulated pairs of frames over your photographs."""
    with Display() as display:
        from selfhvd_tta.lab.training.flow_training import export_flow, train_flow

        where, half = place(device, precision, display)
        config = FlowTrainingConfig(
            photos=tuple(photos), output=output, budget=seconds(budget), precision=half, device=where, **flags
        )
        tell = follow(
            display, "pretrain-flow", config.steps, lambda v: [("error_px", v.mean), ("of_guess_px", v.guess_mean)]
        )
        last = train_flow(config, tell, making(display, "pairs"))
        if export is not None:
            write_weights(display, last.step, export, licence, partial(export_flow, config))
