"""The command ``inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from selfhvd_tta.cli.options import Debug, JsonLines
from selfhvd_tta.console import show_lines
from selfhvd_tta.settings import ClueSettings


def inspect(
    video: Annotated[Path, typer.Argument(help="A video file.")],
    segment: Annotated[
        int, typer.Option(metavar="N", help="Frames per segment of the clue selection.")
    ] = ClueSettings().segment,
    width: Annotated[
        int | None, typer.Option(metavar="N", help="Frames per line. Default: as many as fit the terminal.", min=10)
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw the timeline with thumbnails (.png, .jpg, .svg or .pdf)."),
    ] = None,
    blur: Annotated[
        bool, typer.Option("--blur", help="Measure the blur of every frame in pixels, and the exposure share.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing picture.")] = False,
    json_lines: JsonLines = False,
    debug: Debug = False,
) -> None:
    """Show which frames are sharp, where the cuts are, and whether a run can help: selfhvd-tta inspect shaky.mp4"""
    from selfhvd_tta.cli.timeline import as_json, timeline
    from selfhvd_tta.run.scan import inspect as run

    if plot is not None:
        from selfhvd_tta.extras.report import need_extra

        need_extra("--plot")
        from selfhvd_tta.extras.report.clue_plot import check_plot, plot_clues

        check_plot(plot, overwrite)
    seen = run(video, ClueSettings(segment=segment), blur=blur)
    show_lines([as_json(seen)] if json_lines else timeline(seen, width))
    if plot is not None:
        drawn = plot_clues(seen, plot, overwrite)
        show_lines([] if json_lines else ["", f"plot: {drawn}"])
