"""The command ``ui``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from selfhvd_tta.cli.options import Debug
from selfhvd_tta.console import show_lines


def ui(
    folder: Annotated[
        Path,
        typer.Option(metavar="FOLDER", help="Keep uploads and results here; what was unfinished in it is resumed."),
    ] = Path("selfhvd-tta-videos"),
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Listen on this address; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", help="Listen on this port.", min=1, max=65535)] = 7860,
    upload_limit: Annotated[int, typer.Option(metavar="MB", help="Largest upload in megabytes.", min=1)] = 4000,
    debug: Debug = False,
) -> None:
    """Open a web page on this machine: drop a video, preview, restore, download."""
    from selfhvd_tta.ui.server import serve

    serve(folder, host, port, upload_limit, lambda line: show_lines([line]))
