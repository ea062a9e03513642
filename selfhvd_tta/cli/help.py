"""Help pages: options under headings, everyday ones first, the rest behind ``--help-all``; fits narrow terminals."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from selfhvd_tta.cli.options import DISPLAY, HELP_ALL, OPTIONS, SECTIONS
from selfhvd_tta.errors import UsageError

DEFAULT_COMMAND = "deblur"
# Newer releases of typer bundle a copy of click, whose errors are not those of the package ``click``.
CLICK: Any = sys.modules[typer.BadParameter.__module__]


class Command(TyperCommand):
    """A command whose help has headings; ``--help`` leaves the sections of the settings to ``--help-all``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse, and answer a missing video, several videos and an unknown option with what to do.

        Raises:
            UsageError: more arguments than the command takes.
        """
        allowed, ctx.allow_extra_args = ctx.allow_extra_args, True
        try:
            rest: list[str] = super().parse_args(ctx, args)
        except CLICK.MissingParameter as missing:
            example = (self.help or "").strip().splitlines()[0]
            ctx.fail(f"{_argument(missing.param).removesuffix('...')} is missing. {example}")
        except CLICK.NoSuchOption as unknown:
            # Without its dashes: they make every short option similar to every other.
            names = {o.lstrip("-"): o for p in self.get_params(ctx) for o in (*p.opts, *p.secondary_opts)}
            near = get_close_matches(unknown.option_name.lstrip("-"), names, 2)
            unknown.possibilities = [names[name] for name in near]
            raise
        if rest and not allowed and not ctx.resilient_parsing:
            raise _too_many(ctx, rest)
        return rest

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The usage line, with arguments in capitals."""
        return ["[OPTIONS]", *(_argument(p) for p in self.get_params(ctx) if p.param_type_name == "argument")]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then the options by heading."""
        params = [(p, p.get_help_record(ctx)) for p in self.get_params(ctx)]
        shown = [(p, record) for p, record in params if record is not None]
        _section(formatter, "Arguments", [(_argument(p), r[1]) for p, r in shown if p.param_type_name == "argument"])
        options = [(p, r) for p, r in shown if p.param_type_name == "option"]
        hidden = [] if ctx.meta.get(HELP_ALL) else [p for p, _ in options if _panel(p) in SECTIONS.values()]
        options = [(p, record) for p, record in options if p not in hidden]
        panels = [_panel(p) for p, _ in options if _panel(p) != DISPLAY]
        for panel in dict.fromkeys([OPTIONS, *panels, DISPLAY]):
            _section(formatter, panel, [(_flags(p, r[0]), r[1]) for p, r in options if _panel(p) == panel])
        if hidden:
            formatter.write_paragraph()
            formatter.write_text(f"{len(hidden)} more options: {ctx.command_path} --help-all")


class Program(TyperGroup):
    """The commands by heading; a file instead of a command means ``deblur``."""

    command_class = Command

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert ``deblur`` before arguments that begin with a file or one of its flags."""
        if args and args[0] not in self.commands and self._means_deblur(ctx, args):
            args = [DEFAULT_COMMAND, *args]
        rest: list[str] = super().parse_args(ctx, args)
        return rest

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command, or an error that names a similar one."""
        if args and args[0] not in self.commands:
            near = get_close_matches(args[0], list(self.commands), 1)
            hint = f"Did you mean '{near[0]}'?" if near else "List the commands with: selfhvd-tta --help"
            ctx.fail(f"'{args[0]}' is neither a command nor a file. {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The commands, by heading."""
        commands = [self.commands[name] for name in self.list_commands(ctx) if not self.commands[name].hidden]
        for panel in dict.fromkeys(_panel(c) for c in commands):
            rows = [(c.name or "", c.get_short_help_str(200)) for c in commands if _panel(c) == panel]
            _section(formatter, panel, rows)

    def _means_deblur(self, ctx: Any, args: list[str]) -> bool:
        first = args[0]
        own = {flag for p in self.get_params(ctx) for flag in p.opts}
        if first.startswith("-") and first != "-":
            return first not in own
        names = (first, " ".join(args))  # the second: without the quotes that its spaces need
        return first == "-" or any(mark in first for mark in "./\\:") or any(Path(name).exists() for name in names)


def _argument(param: Any) -> str:
    """How usage and errors name a parameter: ``VIDEO``, ``INPUTS...``, ``--output``."""
    if param.param_type_name == "option":
        return str(max(param.opts, key=len))
    return f"{param.name.upper()}..." if param.nargs == -1 else str(param.name.upper())


def _too_many(ctx: Any, rest: Sequence[str]) -> UsageError:
    """The error for arguments that are left over."""
    if "video" not in ctx.params:
        return UsageError(
            f"{ctx.command_path}: unexpected argument {shlex.join(rest)}", f"See: {ctx.command_path} --help"
        )
    words = [str(ctx.params["video"]), *rest]
    if Path(name := " ".join(words)).exists():
        return UsageError(f"{name}: a name with spaces needs quotes", f"Use: {ctx.command_path} {shlex.quote(name)}")
    message = f"{ctx.command_path}: takes one video, not {len(words)} ({shlex.join(words)})"
    if ctx.command.name != DEFAULT_COMMAND:
        return UsageError(message, "Run it once for each.")
    return UsageError(message, f"Restore several with: selfhvd-tta batch {shlex.join(words)} -o FOLDER")


def _panel(item: Any) -> str:
    """Heading of an option or a command; typer has a placeholder where none was given."""
    panel = item.rich_help_panel
    return panel if isinstance(panel, str) else OPTIONS


def _flags(param: Any, text: str) -> str:
    """How the help names an option: ``--[no-]detail`` where both forms are of use."""
    if not param.secondary_opts:
        return text
    if param.default is False:
        return ", ".join(param.opts)
    return f"--[no-]{param.opts[0].removeprefix('--')}"


def _section(formatter: Any, title: str, rows: Sequence[tuple[str, str]]) -> None:
    if rows:
        with formatter.section(title):
            formatter.write_dl(rows, col_max=min(26, formatter.width // 4))
