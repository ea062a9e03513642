"""The command ``deblur``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from selfhvd_tta.cli.inputs import check_input, default_output
from selfhvd_tta.cli.options import ConfigFile, Debug, JsonLines, Quiet, Verbose, settings_of, takes_settings
from selfhvd_tta.console import Display, Style
from selfhvd_tta.errors import UsageError
from selfhvd_tta.run.interruption import Interruption
from selfhvd_tta.settings import Layout

CompareLayout = Annotated[
    Layout | None,
    typer.Option(
        help="Also write a comparison video next to the output (sharp-side.mp4): input and result side by side, "
        "stacked, or with a moving divider (wipe)."
    ),
]


@takes_settings()
def deblur(
    ctx: typer.Context,
    video: Annotated[Path, typer.Argument(help="The shaky video, or a folder of its frames. It is never modified.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="The sharp video (.mp4, .mov or .mkv), or a new folder for its frames. Default: next to the input, "
            "shaky-sharp.mp4 for shaky.mp4.",
        ),
    ] = None,
    preview: Annotated[
        bool,
        typer.Option(
            "--preview",
            help="Restore only three seconds around the blurriest passage, in a minute at most: writes them before and "
            "after (sharp-preview.mp4) and says how long the whole video would take.",
        ),
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write a page about the run: one .html file, nothing to download."),
    ] = None,
    compare: CompareLayout = None,
    config: ConfigFile = None,
    json_lines: JsonLines = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
    **flags: Any,
) -> None:
    """Make a video sharp: selfhvd-tta deblur shaky.mp4 -o sharp.mp4

    The word deblur may be left out.
    """
    settings = settings_of(ctx, flags, config)
    check_input(video)
    output = output or default_output(video)
    style: Style = "json" if json_lines else "quiet" if quiet else "auto"
    with Interruption() as interruption, Display(style, verbose or debug) as display:
        if preview:
            from selfhvd_tta.extras.preview import preview as show

            if report is not None:
                raise UsageError("--report: a preview has no report", "Leave one of them out.")
            show(video, output, settings, compare or "side", display, interruption.token)
            return
        from selfhvd_tta.extras import Extras, deblur_with

        deblur_with(video, output, settings, Extras(report, compare), display, interruption.token)
