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
        Literal["camera", "texture", "object", "handheld"],
        typer.Option(
            help="camera: shake. texture: stronger shake. object: shake and a moving object. handheld: a hand moved in "
            "space, depth, rolling shutter and an optical stabiliser, after GoProShake."
        ),
    ] = "camera",
    motion: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV",
            help="Log of a phone's sensors for --kind handheld: t (s), gx, gy, gz (rad/s), ax, ay, az (m/s2).",
        ),
    ] = None,
    stabiliser: Annotated[bool, typer.Option(help="With --kind handheld: the phone has one.")] = True,
    clips: Annotated[int | None, typer.Option(help="How many; default: one per photograph.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Of the first clip.")] = 0,
    debug: Debug = False,
) -> None:
    """Write shaky clips with ground truth and labels of the sharp frames."""
    if regression == (photos is not None):
        raise UsageError("simulate needs either a folder of photographs or --regression", "Give one of the two.")
    if kind != "handheld" and (motion is not None or not stabiliser):
        raise UsageError("--motion and --no-stabiliser need --kind handheld", "Add it, or leave them out.")
    with Display() as display:
        from selfhvd_tta.lab.datasets.labels import blur_statistics
        from selfhvd_tta.lab.evaluation.dataset import write_dataset, write_regression_set
        from selfhvd_tta.lab.simulation.handheld import HANDHELD, Handheld
        from selfhvd_tta.lab.simulation.simulate import preset
        from selfhvd_tta.lab.simulation.stabiliser import Stabiliser

        if photos is None:
            made = write_regression_set(output, listen=display)
        elif kind == "handheld":
            way = Handheld(log=motion, stabiliser=Stabiliser() if stabiliser else None)
            made = write_dataset(photos, output, HANDHELD, clips, seed, display, way.scene)
        else:
            made = write_dataset(photos, output, preset(kind), clips, seed, display)
    show_lines(
        [
            f"{len(made)} clips in {output}; measure on them: selfhvd-tta bench {output} -o results",
            str(blur_statistics(made)),
        ]
    )
