"""The command ``stills``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from selfhvd_tta.cli.inputs import check_input
from selfhvd_tta.cli.options import Debug, JsonLines, Quiet, settings_of, takes_settings, was_given
from selfhvd_tta.console import Display, Style
from selfhvd_tta.errors import UsageError
from selfhvd_tta.run.interruption import Interruption
from selfhvd_tta.times import seconds_of

FLAGS = (
    *("range", "strength", "backbone", "weights", "adapted", "accept_non_commercial", "flow", "blur", "force"),
    *("device", "offline", "overwrite"),
)
SUFFIX = "-stills"


def _interval(text: str) -> float:
    return seconds_of(text, "--every")


@takes_settings(only=FLAGS)
def stills(
    ctx: typer.Context,
    video: Annotated[Path, typer.Argument(help="The shaky video, or a folder of its frames. It is never modified.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FOLDER",
            help="A new folder for the pictures. Default: next to the input, shaky-stills for shaky.mp4.",
        ),
    ] = None,
    count: Annotated[int, typer.Option(metavar="N", help="The most pictures to write.", min=1)] = 20,
    every: Annotated[
        float | None,
        typer.Option(
            metavar="TIME", parser=_interval, help="Write a picture for each 1s, 0.5s or other stretch instead."
        ),
    ] = None,
    json_lines: JsonLines = False,
    quiet: Quiet = False,
    debug: Debug = False,
    **flags: Any,
) -> None:
    """Write the best frames as pictures: selfhvd-tta stills shaky.mp4 -o stills"""
    if every is not None and was_given(ctx, "count"):
        raise UsageError("--every: takes the place of --count", "Leave one of them out.")
    settings = settings_of(ctx, flags)
    check_input(video)
    output = output or Path(video.absolute()).with_name(f"{video.stem or video.absolute().name}{SUFFIX}")
    style: Style = "json" if json_lines else "quiet" if quiet else "auto"
    with Interruption() as interruption, Display(style, debug) as display:
        from selfhvd_tta.extras.stills import stills as write

        write(video, output, settings, count, every, display, interruption.token)
