"""The command ``batch``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfhvd_tta.cli.deblur import CompareLayout
from selfhvd_tta.cli.options import ConfigFile, Debug, JsonLines, Quiet, settings_of, takes_settings
from selfhvd_tta.console import Display, Style, show_lines, show_table
from selfhvd_tta.events import Note
from selfhvd_tta.wording import duration

if TYPE_CHECKING:
    from selfhvd_tta.batch import BatchPlan, Summary
    from selfhvd_tta.batch.cluster.run import RayCrew

CLUSTER = "Cluster"


@takes_settings(without=("save_adapted",))
def batch(
    ctx: typer.Context,
    inputs: Annotated[
        list[str], typer.Argument(help="Folders (with all below them), videos, or patterns in quotes: 'trip/**/*.mov'.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the results; keeps the tree.")],
    suffix: Annotated[str, typer.Option(help="Appended to the name of each result, for example _sharp.")] = "",
    jobs: Annotated[
        int | None,
        typer.Option(
            help="Videos processed at the same time on the same device. Default: 1; with --ray, as many as the "
            "cluster has room for.",
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
            help="With --ray: how often a video whose worker was lost is tried again.",
            min=0,
            rich_help_panel=CLUSTER,
        ),
    ] = 3,
    report: Annotated[
        bool,
        typer.Option("--report", help="Also write a page about each run: a.mp4.html next to a.mp4."),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only show what would be done, and about how long it takes."),
    ] = False,
    compare: CompareLayout = None,
    config: ConfigFile = None,
    json_lines: JsonLines = False,
    quiet: Quiet = False,
    debug: Debug = False,
    **flags: Any,
) -> None:
    """Make many videos sharp: selfhvd-tta batch holiday -o sharp

    Each runs in its own process; run it again to continue.
    """
    from selfhvd_tta import batch as many

    plan = many.make_plan(inputs, output, settings_of(ctx, flags, config), suffix, report, compare)
    style: Style = "json" if json_lines else "quiet" if quiet else "auto"
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
