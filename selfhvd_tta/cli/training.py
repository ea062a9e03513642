"""What the pretraining commands share: flags generated from their config, the device, progress and export."""

from __future__ import annotations

import inspect as reflection
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import typer

from selfhvd_tta.cli.options import option_of, parameters_of
from selfhvd_tta.config import attribute_docs
from selfhvd_tta.console import Display
from selfhvd_tta.events import Note, Progress
from selfhvd_tta.lab.training.config import RunConfig
from selfhvd_tta.settings import Precision

DATA, RECIPE, MACHINE, RESULT = "Data", "Recipe", "Machine", "Result"

Minutes = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        help="Minutes of training at most, over all parts of a run, without the making of data before it.",
        rich_help_panel=RECIPE,
    ),
]
Half = Annotated[
    Precision, typer.Option(help="Precision of the forward pass; auto: bf16 on a GPU.", rich_help_panel=MACHINE)
]
Device = Annotated[
    str,
    typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel=MACHINE),
]
Export = Annotated[
    Path | None, typer.Option(help="Write the result as .safetensors at the end.", rich_help_panel=RESULT)
]
Licence = Annotated[str, typer.Option(help="Licence stated in the exported file.", rich_help_panel=RESULT)]


def takes_config(
    config: type[RunConfig], sections: Mapping[str, tuple[str, ...]]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command flags of a training's config: typer reads them from its signature.

    Args:
        config: class of the config; its ``data`` or ``photos`` become the argument, its ``output`` the flag ``-o``.
        sections: names of the fields that become flags, by heading of the help.

    The command takes the flags of ``sections`` as ``**flags``; other parameters stay as it declares them.
    """
    docs: dict[str, str] = {}
    for base in reversed(config.__mro__):
        if is_dataclass(base):
            docs |= attribute_docs(base)
    hints, defaults = get_type_hints(config), {field.name: field.default for field in fields(config)}
    kind = reflection.Parameter.KEYWORD_ONLY

    def flag(name: str, section: str) -> reflection.Parameter:
        annotation, option = option_of(name, hints[name], docs[name])
        option.rich_help_panel = section
        return reflection.Parameter(name, kind, default=defaults[name], annotation=Annotated[annotation, option])

    source = "data" if "data" in hints else "photos"
    given = reflection.Parameter(source, kind, annotation=Annotated[list[Path], typer.Argument(help=docs[source])])
    target = typer.Option("-o", "--output", help=docs["output"])
    output = reflection.Parameter("output", kind, annotation=Annotated[Path, target])

    def add(command: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in parameters_of(command) if p.kind is not p.VAR_KEYWORD and p.name not in (source, "output")]
        flags = [flag(name, section) for section, names in sections.items() for name in names]
        parameters = [p.replace(kind=kind) for p in (given, output, *flags, *own)]
        command.__signature__ = reflection.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return add


def place(
    device: str, precision: Precision, display: Display, verified: bool = True
) -> tuple[str, Literal["fp32", "bf16"]]:
    """Device and precision of a training; ``verified``: ``auto`` may take bfloat16 on a GPU."""
    from selfhvd_tta.run.device import choose_device

    where = choose_device(device, display)
    half = precision == "bf16" or (precision == "auto" and where.type == "cuda" and verified)
    return str(where), "bf16" if half else "fp32"


def seconds(minutes: float | None) -> float | None:
    """The budget of a config."""
    return None if minutes is None else 60 * minutes


def follow(
    display: Display, phase: str, steps: int, figures: Callable[[Any], list[tuple[str, float | None]]]
) -> Callable[[Any], None]:
    """A listener for a training's progress.

    Args:
        display: shows it.
        phase: name of the training.
        steps: at most.
        figures: names and values of a validation; those that are None are left out.
    """

    def tell(report: Any) -> None:
        values = [("loss", report.loss)]
        if report.validation is not None:
            values += [(name, value) for name, value in figures(report.validation) if value is not None]
        display(Progress(phase, report.step, steps, "steps", tuple(values)))

    return tell


def making(display: Display, phase: str) -> Callable[[int, int], None]:
    """A listener for the making of data before a training."""
    return lambda done, total: display(Progress(phase, done, total, "clips"))


def write_weights(
    display: Display, step: int, export: Path, licence: str, write: Callable[[Path, Mapping[str, str]], str]
) -> None:
    """Export the weights of a training and say so."""
    write(export, {"licence": licence} if licence else {})
    display(Note(f"weights of step {step} written to {export}"))
