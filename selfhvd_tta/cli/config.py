"""The command ``config show``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from selfhvd_tta.cli.options import Debug, settings_of, takes_settings
from selfhvd_tta.console import show_lines


@takes_settings()
def config_show(
    ctx: typer.Context,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="A job file to start from.")] = None,
    debug: Debug = False,
    **flags: Any,
) -> None:
    """Print every setting as TOML, with these flags in effect, and what each one means."""
    from selfhvd_tta.config import dumps

    show_lines(dumps(settings_of(ctx, flags, config)).splitlines())
