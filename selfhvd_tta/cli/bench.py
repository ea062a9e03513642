"""The command ``bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from selfhvd_tta.cli.options import Debug, settings_of, takes_settings, was_given
from selfhvd_tta.console import Display, show_lines
from selfhvd_tta.errors import ExitCode, UsageError
from selfhvd_tta.settings import Settings

SPEED = "With --speed"
FLAGS = (
    *(
        "backbone",
        "weights",
        "adapted",
        "iters",
        "crop",
        "clip_length",
        "learning_rate",
        "flow",
        "detail",
        "teachers",
        "merge",
    ),
    *("merge_weights", "label_refresh", "force", "device", "seed", "offline", "precision"),
)


@takes_settings(only=FLAGS)
def bench(
    ctx: typer.Context,
    root: Annotated[Path | None, typer.Argument(help="Folder of the data set (quality; not with --speed).")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for results.json and results.md.")
    ] = None,
    speed: Annotated[
        bool,
        typer.Option(
            "--speed", help="Time every part on this machine, on a clip made on the spot.", rich_help_panel=SPEED
        ),
    ] = False,
    size: Annotated[
        str | None,
        typer.Option(
            help="Of the clip. Default: 384x256 on a CPU, 1280x720 on a GPU.", metavar="WxH", rich_help_panel=SPEED
        ),
    ] = None,
    frames: Annotated[
        int | None, typer.Option(help="Of the clip. Default: 24 on a CPU, 100 on a GPU.", rich_help_panel=SPEED)
    ] = None,
    repeats: Annotated[int, typer.Option(help="Timed rounds.", rich_help_panel=SPEED)] = 5,
    large: Annotated[
        str | None,
        typer.Option(
            help="Restoration, a label, steps and memory at this size, too; or none. Default on a GPU: 1920x1080.",
            metavar="WxH",
            rich_help_panel=SPEED,
        ),
    ] = None,
    whole_job: Annotated[
        bool, typer.Option(help="Also run one job with --iters steps (default 24 on a CPU).", rich_help_panel=SPEED)
    ] = True,
    minutes: Annotated[
        float | None,
        typer.Option(help="Begin nothing new after this time. Default on a GPU: 10.", rich_help_panel=SPEED),
    ] = None,
    json_lines: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON.", rich_help_panel=SPEED)
    ] = False,
    protocol: Annotated[str, typer.Option(help="bsd, realblur, rbvd or folder (pairs of blurry and sharp).")] = "bsd",
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="adapt (the default), transfer, refit (as for deblur), reblur (after DADeblur) or unsharp (masking, "
            "no network); repeatable: all of them in one table. all: every one.",
        ),
    ] = None,
    unsharp: Annotated[
        tuple[float, float] | None,
        typer.Option(help="Radius (sigma, pixels) and amount of --method unsharp. Default: 1 0.5."),
    ] = None,
    outputs: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FOLDER",
            help="Score what another program wrote, too: FOLDER/VIDEO/N.png or FOLDER/VIDEO.mp4; repeatable. Alone "
            "unless --method is given.",
        ),
    ] = None,
    joint: Annotated[bool, typer.Option("--joint", help="Adapt one model to all videos, as DADeblur does.")] = False,
    train: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Adapt one model to this data set instead (same layout) and test it on the videos, as in Table 1.",
        ),
    ] = None,
    as_dadeblur: Annotated[
        bool,
        typer.Option(
            "--as-dadeblur",
            help="Evaluate as DADeblur's code does: every output from five frames alone, nothing blended in, means "
            "over frames; with --protocol realblur four outputs of a scene meet another frame's truth.",
        ),
    ] = False,
    temporal: Annotated[bool, typer.Option(help="Measure warping error, flicker and shift as well.")] = True,
    skip_ends: Annotated[
        tuple[int, int] | None,
        typer.Option(help="Frames left out of the score at the beginning and the end; default: as published."),
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="A measure of pyiqa without reference, such as musiq; repeatable.")
    ] = None,
    video: Annotated[list[str] | None, typer.Option(help="Only videos whose name contains this.")] = None,
    niqe: Annotated[Path | None, typer.Option(help="Parameter file (.npz) of NIQE, to report it.")] = None,
    save_frames: Annotated[bool, typer.Option("--save-frames", help="Write the outputs as PNG.")] = False,
    debug: Debug = False,
    **flags: Any,
) -> None:
    """Adapt to every video of a data set and score the results; no ground truth is read before that.

    With --speed: time every part of the work on this machine instead.
    """
    if speed:
        if root is not None or output is not None:
            raise UsageError("bench --speed takes no data set and no --output", "It prints its result; redirect it.")
        with Display("quiet" if json_lines else "auto") as display:
            from selfhvd_tta.lab.speed.flags import speed_settings
            from selfhvd_tta.lab.speed.report import as_json, as_markdown
            from selfhvd_tta.lab.speed.speed import run_speed

            report = run_speed(speed_settings(ctx.params, settings_of(ctx, flags), was_given(ctx, "iters")), display)
        show_lines([as_json(report) if json_lines else as_markdown(report)])
        return
    if root is None or output is None:
        raise UsageError(
            "bench needs the folder of a data set and --output", "Or --speed, to time this machine without any."
        )
    with Display() as display:
        from selfhvd_tta.lab.evaluation.bench import BenchSettings, run_bench
        from selfhvd_tta.lab.evaluation.outputs import Outputs
        from selfhvd_tta.lab.evaluation.unsharp import Unsharp

        settings = settings_of(ctx, flags, base=Settings(method="adapt"))
        plan = BenchSettings(
            protocol=protocol,
            joint=joint,
            train=train,
            as_dadeblur=as_dadeblur,
            skip=skip_ends,
            temporal=temporal,
            metrics=tuple(metric or ()),
            niqe=niqe,
            videos=tuple(video or ()),
            save_frames=save_frames,
            methods=tuple(method or ()),
            unsharp=Unsharp(*unsharp) if unsharp else Unsharp(),
            outputs=tuple(map(Outputs.parse, outputs or ())),
        )
        result = run_bench(root, output, plan, settings, display)
    show_lines([result.markdown, *(f"failed: {name}: {why}" for name, why in result.failed.items())])
    if result.failed:
        raise typer.Exit(ExitCode.BATCH_PARTLY_FAILED)
