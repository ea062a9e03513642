"""The command ``simulate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from selfhvd_tta.cli.options import Debug
from selfhvd_tta.console import Display, show_lines
from selfhvd_tta.errors import UsageError


def simulate(
    output: Annotated[Path, typer.Option("-o", "--output", help="Where the data set goes, in BSD layout.")],
    photos: Annotated[Path | None, typer.Argument(help="A folder of sharp photographs.")] = None,
    regression: Annotated[
        bool, typer.Option("--regression", help="Write the project's own ten scenarios instead (needs scikit-image).")
    ] = False,
    kind: Annotated[
        Literal["camera", "texture", "object"],
        typer.Option(help="camera: shake. texture: stronger shake. object: shake and a moving object."),
    ] = "camera",
    clips: Annotated[int | None, typer.Option(help="How many; default: one per photograph.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Of the first clip.")] = 0,
    debug: Debug = False,
) -> None:
    """Write shaky clips with ground truth and labels of the sharp frames."""
    if regression == (photos is not None):
        raise UsageError("simulate needs either a folder of photographs or --regression", "Give one of the two.")
    with Display() as display:
        from selfhvd_tta.lab.evaluation.dataset import write_dataset, write_regression_set
        from selfhvd_tta.lab.simulation.simulate import preset

        if photos is None:
            made = write_regression_set(output, listen=display)
        else:
            made = write_dataset(photos, output, preset(kind), clips, seed, display)
    show_lines([f"{len(made)} clips in {output}; measure on them: selfhvd-tta bench {output} -o results"])
