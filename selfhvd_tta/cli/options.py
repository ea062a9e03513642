"""Flags generated from the settings, and settings built from the flags that were given.

A setting is described once, by its attribute's docstring: that text is the flag's help and the comment of ``config
show``. Its type, default and section of the help come from the field.
"""

from __future__ import annotations

import dataclasses
import inspect as reflection
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer

from selfhvd_tta.config import QUALITY, attribute_docs, load, override, setting_names
from selfhvd_tta.run.checks import check_spelling
from selfhvd_tta.settings import Quality, Settings
from selfhvd_tta.times import seconds_of

# Constants of the method, which only a job file sets: nobody tunes them for one video.
FILE_ONLY = frozenset(
    {
        *("clues.normalise", "clues.contrast", "clues.min_soft"),
        *("alignment.occlusion_scale", "alignment.teacher_reach", "alignment.sharpness_power", "alignment.own_weight"),
        *("alignment.equal_sharpness", "alignment.photometric", "alignment.agreement_sigma", "alignment.rounds"),
        *("alignment.agreement_tolerance", "alignment.agreement_shift", "alignment.blend_power"),
        *("alignment.local_power", "alignment.local_sigma", "alignment.narrowest"),
        *("adaptation.final_learning_rate", "adaptation.max_removed", "adaptation.sis_threshold"),
        *("adaptation.sharp_weight", "adaptation.gradient_clip"),
        "adaptation.random_removal",
    }
)
# What ``--help`` shows, in this order; the rest is behind ``--help-all``, by section.
EVERYDAY = (
    *("method", "strength", "range", "runtime.budget", "adaptation.iters", "backbone", "output.crf", "output.codec"),
    *("output.overwrite", "runtime.device", "runtime.offline"),
)
OPTIONS, DISPLAY = "Options", "Display"
HELP_ALL = "selfhvd_tta.help_all"  # key of the context's notes: show the help in full
SECTIONS = {
    "": "Method",
    "clues": "Sharp frames",
    "alignment": "Alignment and labels",
    "adaptation": "Adaptation",
    "runtime": "Running",
    "output": "Output",
}
METAVARS: Mapping[str, str] = {
    **dict.fromkeys(("weights", "adapted", "save_adapted", "alignment.merge_weights"), "FILE"),
    **dict.fromkeys(("backbone", "alignment.flow"), "ID"),
    "range": "FROM-TO",
    "runtime.device": "DEVICE",
    "adaptation.vgg_layer": "LAYER",
    "output.preset": "PRESET",
}
PARSERS: Mapping[str, tuple[Callable[[str], object], str]] = {"runtime.budget": (seconds_of, "TIME")}
NUMBERS = {int: "N", float: "X"}


@dataclasses.dataclass
class Asked:
    """How errors are to be shown; known as soon as the flags are parsed.

    Attributes:
        json: as one JSON line on standard output.
        debug: with a traceback.
    """

    json: bool = False
    debug: bool = False


def _ask_json(ctx: typer.Context, value: bool) -> bool:
    ctx.ensure_object(Asked).json |= value
    return value


def _ask_debug(ctx: typer.Context, value: bool) -> bool:
    ctx.ensure_object(Asked).debug |= value
    return value


def _show_all(ctx: typer.Context, value: bool) -> None:
    if value:
        ctx.meta[HELP_ALL] = True
        typer.echo(ctx.get_help())
        raise typer.Exit


ConfigFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Read settings from this TOML file (see 'selfhvd-tta config show'). Flags take precedence.",
        rich_help_panel=OPTIONS,
    ),
]
JsonLines = Annotated[
    bool,
    typer.Option(
        "--json", is_eager=True, callback=_ask_json, help="Print events as JSON lines.", rich_help_panel=DISPLAY
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print warnings and errors only.", rich_help_panel=DISPLAY)]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show losses with the progress.", rich_help_panel=DISPLAY)]
Debug = Annotated[
    bool,
    typer.Option(
        "--debug", is_eager=True, callback=_ask_debug, help="Show tracebacks of errors.", rich_help_panel=DISPLAY
    ),
]
QualityChoice = Annotated[
    Quality | None,
    typer.Option(
        help="Sets several options at once, unless they are given: quick transfers from three sharp frames only; "
        "balanced is the default; best adapts, on a CPU too.",
        rich_help_panel=OPTIONS,
    ),
]
HelpAll = Annotated[
    bool,
    typer.Option(
        "--help-all",
        is_eager=True,
        callback=_show_all,
        help="Show every option and exit.",
        rich_help_panel=DISPLAY,
    ),
]


def flag_names() -> list[str]:
    """Full names of the settings that have a flag, in the order of the tree."""
    return [name for name in setting_names() if name not in FILE_ONLY]


def takes_settings(
    only: tuple[str, ...] | None = None, without: tuple[str, ...] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the flags of the settings: typer reads them from its signature.

    Args:
        only: last parts of the names of the settings to take; None for all that have a flag.
        without: those to leave out.

    The command takes them as ``**flags`` and turns them into settings with :func:`settings_of`; a parameter of its own
    with the name of a setting stays as the command declares it.
    """

    def add(command: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in parameters_of(command) if p.kind is not p.VAR_KEYWORD]
        taken = {*without, *(p.name for p in own)}
        wanted = [n for n in (*EVERYDAY, *flag_names()) if only is None or _leaf(n) in only]
        names = [n for n in dict.fromkeys(wanted) if _leaf(n) not in taken]
        everyday = only is not None
        flags = [_parameter(name, everyday or name in EVERYDAY) for name in names]
        if not everyday:
            kind = reflection.Parameter.KEYWORD_ONLY
            flags.insert(0, reflection.Parameter(QUALITY, kind, default=None, annotation=QualityChoice))
            flags.append(reflection.Parameter("help_all", kind, default=False, annotation=HelpAll))
        parameters = [p.replace(kind=p.KEYWORD_ONLY) for p in (*own, *flags)]
        command.__signature__ = reflection.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return add


def settings_of(
    ctx: typer.Context, flags: Mapping[str, object], config: Path | None = None, base: Settings | None = None
) -> Settings:
    """Settings from the flags that were given, then the job file, then the defaults.

    Args:
        ctx: of the command.
        flags: the ones of the settings, as the command got them from :func:`takes_settings`.
        config: job file; None for none.
        base: defaults of the command, if they differ from those of the settings.

    Raises:
        UsageError: the job file or a flag is wrong, or there is no such network.
    """
    given = {name: value for name, value in flags.items() if name != "help_all" and was_given(ctx, name)}
    base = base or Settings()
    settings = override(load(config, base) if config else base, given)
    check_spelling(settings)
    return settings


def was_given(ctx: typer.Context, name: str) -> bool:
    """Whether the user named a parameter, rather than leaving it at its default."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT")


def parameters_of(command: Callable[..., None]) -> list[reflection.Parameter]:
    """Parameters of a command, annotations resolved."""
    return list(reflection.signature(command, eval_str=True).parameters.values())


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _parameter(name: str, everyday: bool) -> reflection.Parameter:
    section, _, leaf = name.rpartition(".")
    node: Any = getattr(Settings(), section) if section else Settings()
    default = getattr(node, leaf)
    annotation, option = option_of(name, get_type_hints(type(node))[leaf], attribute_docs(type(node))[leaf])
    option.rich_help_panel = OPTIONS if everyday else SECTIONS[section]
    kind = reflection.Parameter.KEYWORD_ONLY
    return reflection.Parameter(leaf, kind, default=default, annotation=Annotated[annotation, option])


def option_of(name: str, hint: Any, doc: str) -> tuple[Any, Any]:
    """Annotation and option of an attribute, from its name, type and text."""
    optional = get_origin(hint) in (Union, types.UnionType)
    kind = next(k for k in get_args(hint) if k is not type(None)) if optional else hint
    text = doc.replace("``", "")
    metavar = METAVARS.get(name, NUMBERS.get(kind))
    if get_origin(kind) is Literal and metavar is not None:
        text += f" One of {', '.join(get_args(kind))}."
    if name in PARSERS:
        parser, metavar = PARSERS[name]
        return hint, typer.Option(help=text, metavar=metavar, parser=parser)
    return hint, typer.Option(help=text, metavar=metavar, show_default=kind is not bool)
