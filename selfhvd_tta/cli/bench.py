"""Commands for those who measure: simulate, bench."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from selfhvd_tta.console import Display, show_lines
from selfhvd_tta.errors import ExitCode, UsageError
from selfhvd_tta.settings import AdaptationSettings, AlignmentSettings, Merge, Precision, RuntimeSettings, Settings

lab = typer.Typer()
SPEED = "With --speed"
A = AdaptationSettings()


@lab.command()
def simulate(
    output: Annotated[Path, typer.Option("-o", "--output", help="Where the data set goes, in BSD layout.")],
    photos: Annotated[Path | None, typer.Argument(help="A folder of sharp photographs.")] = None,
    regression: Annotated[
        bool, typer.Option("--regression", help="The project's own three clips instead (needs scikit-image).")
    ] = False,
    kind: Annotated[
        Literal["camera", "texture", "object"],
        typer.Option(help="camera: shake. texture: stronger shake. object: shake and a moving object."),
    ] = "camera",
    clips: Annotated[int | None, typer.Option(help="How many; default: one per photograph.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Of the first clip.")] = 0,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Write shaky clips with ground truth and labels of the sharp frames."""
    if regression == (photos is not None):
        raise UsageError("simulate needs either a folder of photographs or --regression", "Give one of the two.")
    with Display() as display:
        from selfhvd_tta.lab.evaluation.dataset import write_dataset, write_regression_set
        from selfhvd_tta.lab.simulation.simulate import preset

        if photos is None:
            made = write_regression_set(output)
        else:
            made = write_dataset(photos, output, preset(kind), clips, seed, display)
    show_lines([f"{len(made)} clips in {output}; measure on them: selfhvd-tta bench {output} -o results"])


@lab.command()
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
    precision: Annotated[Precision, typer.Option(help="As for deblur.", rich_help_panel=SPEED)] = "auto",
    json_lines: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON.", rich_help_panel=SPEED)
    ] = False,
    protocol: Annotated[str, typer.Option(help="bsd, realblur, rbvd or folder (pairs of blurry and sharp).")] = "bsd",
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="adapt (the default), transfer, refit (as for deblur) or unsharp (masking, no network); repeatable: "
            "beside each other in one table. all: all of them.",
        ),
    ] = None,
    unsharp: Annotated[
        tuple[float, float] | None,
        typer.Option(help="Radius (sigma, pixels) and amount of --method unsharp. Default: 1 0.5."),
    ] = None,
    backbone: Annotated[str, typer.Option(help="As for deblur. With --speed: several by commas, or all.")] = "auto",
    iters: Annotated[int, typer.Option(help="Steps per video; with --joint, altogether.")] = A.iters,
    crop: Annotated[
        int | None, typer.Option(help="Side of the training crops in pixels. Default: 256, on a CPU 128.")
    ] = A.crop,
    clip_length: Annotated[
        int | None, typer.Option(help="Frames of a training clip. Default: 10, on a CPU 6.")
    ] = A.clip_length,
    learning_rate: Annotated[float | None, typer.Option(help="As for deblur.")] = A.learning_rate,
    flow: Annotated[str, typer.Option(help="As for deblur.")] = "auto",
    detail: Annotated[bool | None, typer.Option(help="As for deblur.")] = None,
    joint: Annotated[bool, typer.Option("--joint", help="Adapt one model to all videos, as DADeblur does.")] = False,
    teachers: Annotated[int, typer.Option(help="As for deblur.")] = AlignmentSettings().teachers,
    merge: Annotated[Merge, typer.Option(help="As for deblur.")] = AlignmentSettings().merge,
    merge_weights: Annotated[str | None, typer.Option(help="As for deblur.")] = None,
    label_refresh: Annotated[int | None, typer.Option(help="As for deblur.")] = None,
    force: Annotated[bool, typer.Option("--force", help="As for deblur.")] = False,
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
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of every random draw.")] = 0,
    offline: Annotated[bool, typer.Option("--offline", help="Use only weights that are on this machine.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Adapt to every video of a data set and score the results; no ground truth is read before that.

    With --speed: time every part of the work on this machine instead.
    """
    if speed:
        if root is not None or output is not None:
            raise UsageError("bench --speed takes no data set and no --output", "It prints its result; redirect it.")
        source = ctx.get_parameter_source("iters")
        asked = source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT")
        with Display("quiet" if json_lines else "auto") as display:
            from selfhvd_tta.lab.speed.flags import speed_settings
            from selfhvd_tta.lab.speed.report import as_json, as_markdown
            from selfhvd_tta.lab.speed.speed import run_speed

            report = run_speed(speed_settings(ctx.params, iters if asked else None), display)
        show_lines([as_json(report) if json_lines else as_markdown(report)])
        return
    if root is None or output is None:
        raise UsageError(
            "bench needs the folder of a data set and --output", "Or --speed, to time this machine without any."
        )
    with Display() as display:
        from selfhvd_tta.lab.evaluation.bench import BenchSettings, run_bench
        from selfhvd_tta.lab.evaluation.unsharp import Unsharp

        settings = Settings(
            backbone=backbone,
            detail=detail,
            force=force,
            alignment=AlignmentSettings(flow=flow, teachers=teachers, merge=merge, merge_weights=merge_weights),
            adaptation=AdaptationSettings(
                iters=iters,
                crop=crop,
                clip_length=clip_length,
                label_refresh=label_refresh,
                learning_rate=learning_rate,
                final_learning_rate=min(A.final_learning_rate, learning_rate or A.final_learning_rate),
            ),
            runtime=RuntimeSettings(device=device, seed=seed, offline=offline),
        )
        plan = BenchSettings(
            protocol=protocol,
            joint=joint,
            skip=skip_ends,
            temporal=temporal,
            metrics=tuple(metric or ()),
            niqe=niqe,
            videos=tuple(video or ()),
            save_frames=save_frames,
            methods=tuple(method or ()),
            unsharp=Unsharp(*unsharp) if unsharp else Unsharp(),
        )
        result = run_bench(root, output, plan, settings, display)
    show_lines([result.markdown, *(f"failed: {name}: {why}" for name, why in result.failed.items())])
    if result.failed:
        raise typer.Exit(ExitCode.BATCH_PARTLY_FAILED)
