"""Commands around the main one: batch, config, doctor; and how flags and a job file become settings."""

from __future__ import annotations

import inspect as reflection
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfhvd_tta.console import Display, Style, show_lines, show_table
from selfhvd_tta.events import Note, duration
from selfhvd_tta.settings import Settings

if TYPE_CHECKING:
    from selfhvd_tta.batch import BatchPlan, Summary
    from selfhvd_tta.batch.cluster.run import RayCrew

OUTPUT, RUN, CLUSTER = "Output", "Running", "Cluster"
ConfigFile = Annotated[
    Path | None,
    typer.Option(help="TOML file with settings ('selfhvd-tta config show'); flags win.", rich_help_panel=RUN),
]


def settings_of(ctx: typer.Context, config: Path | None) -> Settings:
    """The flags that were given, over the job file, over the defaults.

    Flags are the settings' by their last name (``--learning-rate`` is ``adaptation.learning_rate``).
    """
    from selfhvd_tta.config import load, override, setting_names

    names = {name.rpartition(".")[2] for name in setting_names()}
    given = {}
    for name, value in ctx.params.items():
        source = ctx.get_parameter_source(name)
        if name in names and source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT"):
            given[name] = value
    return override(load(config) if config else Settings(), given)


def with_flags_of(other: Callable[..., None], *left_out: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the flags of another command to one that takes them as ``**flags``: typer reads them from its signature."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in _parameters(command) if p.kind is not p.VAR_KEYWORD]
        taken = {*left_out, *(p.name for p in own)}
        flags = [p for p in _parameters(other) if p.name not in taken]
        parameters = [p.replace(kind=p.KEYWORD_ONLY) for p in (*own, *flags)]
        command.__signature__ = reflection.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return add


def _parameters(command: Callable[..., None]) -> list[reflection.Parameter]:
    return list(reflection.signature(command, eval_str=True).parameters.values())


def add_commands(app: typer.Typer, deblur: Callable[..., None]) -> None:
    """Add batch, config and doctor.

    Args:
        app: the program.
        deblur: its main command, whose flags ``batch`` and ``config show`` take too.
    """
    app.command("batch")(with_flags_of(deblur, "video", "save_adapted", "preview")(_batch))
    config = typer.Typer(help="Settings as a TOML file.", no_args_is_help=True)
    config.command("show")(
        with_flags_of(deblur, "video", "output", "report", "compare", "preview", "json_lines", "quiet")(_config_show)
    )
    app.add_typer(config, name="config")
    app.command("doctor")(_doctor)


def _batch(
    ctx: typer.Context,
    inputs: Annotated[
        list[str], typer.Argument(help="Folders (with all below them), videos, or patterns in quotes: 'trip/**/*.mov'.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the results; keeps the tree.")],
    suffix: Annotated[
        str, typer.Option(help="Put behind each result's name, for example _sharp.", rich_help_panel=OUTPUT)
    ] = "",
    jobs: Annotated[
        int | None,
        typer.Option(
            help="Videos at the same time, on the same device. Default: 1; with --ray what the cluster has room for.",
            rich_help_panel=RUN,
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            help="Work on a Ray cluster: local (started on this machine), auto (the one this machine belongs to) or "
            "ray://host:10001.",
            rich_help_panel=CLUSTER,
        ),
    ] = None,
    gpus_per_video: Annotated[
        float | None,
        typer.Option(help="With --ray. Default: 1 if the cluster has any.", min=0, rich_help_panel=CLUSTER),
    ] = None,
    cpus_per_video: Annotated[float, typer.Option(help="With --ray.", min=0, rich_help_panel=CLUSTER)] = 1,
    retries: Annotated[
        int,
        typer.Option(
            help="With --ray: how often a video whose worker was lost is taken up again.",
            min=0,
            rich_help_panel=CLUSTER,
        ),
    ] = 3,
    report: Annotated[
        bool,
        typer.Option(
            "--report", help="Also write a page about each run: a.mp4.html beside a.mp4.", rich_help_panel=OUTPUT
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Only show what would be done, and about how long it takes.", rich_help_panel=RUN
        ),
    ] = False,
    config: ConfigFile = None,
    **flags: Any,
) -> None:
    """Make many videos sharp, each in its own process; run it again to continue."""
    from selfhvd_tta import batch as many

    plan = many.make_plan(inputs, output, settings_of(ctx, config), suffix, report, flags["compare"])
    json_lines = flags["json_lines"]
    style: Style = "json" if json_lines else "quiet" if flags["quiet"] else "auto"
    if report:
        from selfhvd_tta.extras.report import need_extra

        need_extra("--report")
    if dry_run:
        with Display("plain") as display:
            rows, seconds = many.describe(plan, display)
        show_table("", ("video", "what", "about", "plan"), rows)
        todo = sum(task.state == "to do" for task in plan.tasks)
        about = f", about {duration(seconds)} one after the other on this machine" if seconds else ""
        show_lines([f"{todo} of {len(plan.tasks)} videos to do{about}"])
        return
    with Display(style) as display:
        for text in plan.notes:
            display(Note(text, "warning"))
        if ray is None:
            summary = _run(plan, display, jobs or 1, None)
        else:
            from selfhvd_tta.batch.cluster.run import RayCrew

            with RayCrew(plan, ray, gpus_per_video, cpus_per_video, jobs, retries) as crew:
                for text in crew.notes:
                    display(Note(text))
                summary = _run(plan, display, crew.slots, crew)
    if not json_lines:
        show_table("", ("video", "state", "details"), summary.rows())
    summary.check()


def _run(plan: BatchPlan, display: Display, jobs: int, crew: RayCrew | None) -> Summary:
    from selfhvd_tta import batch as many

    if display.style == "json":
        return many.run(plan, lambda event: show_lines([many.as_json(event)]), jobs, crew=crew)
    if display.style != "live":
        return many.run(plan, many.forward(display, jobs), jobs, crew=crew)
    from selfhvd_tta.cli.batch_table import BatchTable

    with BatchTable(sum(task.state != "finished" for task in plan.tasks)) as table:
        return many.run(plan, table, jobs, crew=crew)


def _config_show(
    ctx: typer.Context,
    config: Annotated[Path | None, typer.Option(help="A job file to start from.")] = None,
    **flags: Any,
) -> None:
    """Print every setting as TOML, with these flags in effect and what each one means."""
    from selfhvd_tta.config import dumps

    show_lines(dumps(settings_of(ctx, config)).splitlines())


def _doctor(
    folder: Annotated[Path, typer.Argument(help="Where results shall go.")] = Path(),
    hub: Annotated[bool, typer.Option("--hub", help="Also try to reach the Hub.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Check this machine, and say what to do about what is missing. Exit status 1 if deblur cannot work."""
    from selfhvd_tta.cli.doctor import examine, exit_code

    checks = list(examine(folder, hub))
    show_table("", ("check", "state", "found", "what to do"), [(c.name, c.state, c.found, c.advice) for c in checks])
    raise typer.Exit(exit_code(checks))
