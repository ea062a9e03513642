"""The command line: maps flags to settings and errors to exit codes; no logic of its own."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from selfhvd_tta import __version__
from selfhvd_tta.cli import (
    ablate,
    batch,
    bench,
    config,
    deblur,
    doctor,
    inspect,
    learn,
    models,
    simulate,
    stills,
    train,
    train_flow,
    train_merge,
    ui,
    weights,
)
from selfhvd_tta.cli.help import CLICK, Command, Program
from selfhvd_tta.cli.options import Asked
from selfhvd_tta.console import show_error, show_lines, tolerate_encodings
from selfhvd_tta.errors import ExitCode, Interrupted, SelfHVDError

CLICK_ERROR: type[Any] = CLICK.ClickException
RESTORE, LAB = "Commands", "For those who train and measure"

app = typer.Typer(
    cls=Program,
    help="Makes a shaky, blurry video sharp, with the sharp frames that the video itself contains:\n\n"
    "selfhvd-tta shaky.mp4",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _group(name: str, text: str, panel: str, **commands: Any) -> None:
    group = typer.Typer(help=text, no_args_is_help=True)
    for command, function in commands.items():
        group.command(command, cls=Command)(function)
    app.add_typer(group, name=name, rich_help_panel=panel)


COMMANDS: dict[str, dict[str, Callable[..., None]]] = {
    RESTORE: {
        "deblur": deblur.deblur,
        "stills": stills.stills,
        "inspect": inspect.inspect,
        "batch": batch.batch,
        "ui": ui.ui,
        "models": models.models,
        "doctor": doctor.doctor,
    },
    LAB: {
        "bench": bench.bench,
        "ablate": ablate.ablate,
        "learn": learn.learn,
        "simulate": simulate.simulate,
        "pretrain": train.pretrain,
        "pretrain-flow": train_flow.pretrain_flow,
        "pretrain-merge": train_merge.pretrain_merge,
    },
}
for _panel, _commands in COMMANDS.items():
    for _name, _function in _commands.items():
        app.command(_name, cls=Command, rich_help_panel=_panel)(_function)
_group("config", "Settings as a TOML file.", RESTORE, show=config.config_show)
_group("weights", "Convert and publish network weights.", LAB, convert=weights.convert, publish=weights.publish)


def _version(value: bool) -> None:
    if value:
        show_lines([f"selfhvd-tta {__version__}"])
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: runs a command and turns errors into one line and an exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    asked = Asked()
    tolerate_encodings()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = app(args=list(arguments), standalone_mode=False, prog_name="selfhvd-tta", obj=asked)
        if code == ExitCode.INTERRUPTED:
            raise KeyboardInterrupt  # newer releases of typer swallow it
        sys.exit(code if isinstance(code, int) else ExitCode.OK)
    except (typer.Abort, KeyboardInterrupt):
        error: SelfHVDError = Interrupted("the output was not written")
    except CLICK_ERROR as usage:
        usage.show()
        sys.exit(ExitCode.USAGE)
    except SelfHVDError as known:
        if asked.debug:
            raise
        error = known
    except Exception as unexpected:  # the last resort: a user sees no traceback unasked
        if asked.debug:
            raise
        text = f"{type(unexpected).__name__}: {unexpected}".splitlines()[0]
        error = SelfHVDError(f"unexpected failure, {text}", "Run again with --debug and report what it prints.")
    show_error(error, asked.json)
    sys.exit(int(error.exit_code))


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt
