"""Commands for network weights: convert official checkpoints, publish your own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from selfhvd_tta.cli.options import Debug
from selfhvd_tta.console import show_lines


def convert(
    checkpoint: Annotated[Path, typer.Argument(help="The authors' checkpoint (.pth, .tar).")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .safetensors file to write.")],
    backbone: Annotated[
        str | None,
        typer.Option(help="id or id:variant whose names and shapes the checkpoint must have. Default: not checked."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Turn an official checkpoint into a safetensors file; no code in it is run."""
    from selfhvd_tta.run.networks import find_backbone
    from selfhvd_tta.weights import convert_checkpoint

    expected, config = None, None
    if backbone is not None:
        descriptor, variant = find_backbone(backbone)
        state = descriptor.build(**variant.config).state_dict()
        expected = {name: tuple(tensor.shape) for name, tensor in state.items()}
        config = {"backbone": descriptor.id, "variant": variant.name}
    show_lines([str(convert_checkpoint(checkpoint, output, expected, config))])


def publish(
    file: Annotated[Path, typer.Argument(help="A file that --save-adapted or 'weights convert' wrote.")],
    repository: Annotated[str, typer.Argument(help="owner/name on the Hub; created if it does not exist.")],
    licence: Annotated[str, typer.Option(help="SPDX id, unless the file states one.")] = "",
    about: Annotated[str, typer.Option(help="One paragraph for the model card.")] = "",
    private: Annotated[bool, typer.Option("--private", help="Create a private repository.")] = False,
    debug: Debug = False,
) -> None:
    """Push weights with a model card to your own account on the Hub."""
    from selfhvd_tta.weights import publish as push

    done = push(file, repository, licence=licence, about=about, private=private)
    show_lines([f"published: {done.url}", f"use it with: {done.use}"])
