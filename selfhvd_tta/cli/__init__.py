"""The command line: maps flags to settings and errors to exit codes; no logic of its own."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from selfhvd_tta import __version__
from selfhvd_tta.cli.ablate import ablations
from selfhvd_tta.cli.batch import ConfigFile, add_commands, settings_of
from selfhvd_tta.cli.bench import lab
from selfhvd_tta.cli.train import train
from selfhvd_tta.cli.train_flow import flow_training
from selfhvd_tta.cli.train_merge import merge_training
from selfhvd_tta.cli.weights import weights_app
from selfhvd_tta.console import Display, Style, show_error, show_lines, show_table
from selfhvd_tta.errors import ExitCode, Interrupted, SelfHVDError, UsageError
from selfhvd_tta.run.interruption import Interruption
from selfhvd_tta.settings import (
    AdaptationSettings,
    AlignmentSettings,
    Chroma,
    ClueSettings,
    Codec,
    Layout,
    Merge,
    Method,
    OutputSettings,
    Precision,
    Preset,
    RuntimeSettings,
    Settings,
    Teacher,
)
from selfhvd_tta.times import seconds_of

app = typer.Typer(
    help="Makes a shaky, blurry video sharp, with the sharp frames that the video itself contains.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(weights_app, name="weights")
app.add_typer(train)
app.add_typer(lab)
app.add_typer(flow_training)
app.add_typer(merge_training)
app.add_typer(ablations)
# Newer releases of typer carry their own copy of click: its errors are not those of the package of that name.
CLICK_ERROR: type[Any] = sys.modules[typer.BadParameter.__module__].ClickException


A, P, R, W, D = AdaptationSettings(), AlignmentSettings(), RuntimeSettings(), OutputSettings(), Settings()
METHOD, TUNING, OUTPUT, RUN = "Method", "Fine tuning of the method", "Output", "Running"


def _version(value: bool) -> None:
    if value:
        show_lines([f"selfhvd-tta {__version__}"])
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def deblur(
    ctx: typer.Context,
    video: Annotated[Path, typer.Argument(help="The shaky video. It is only read.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Where the sharp video goes (.mp4, .mov, .mkv).")],
    method: Annotated[
        Method,
        typer.Option(
            help="adapt: fine-tune a network on this video. transfer: only merge aligned sharp frames into what a "
            "network makes of it, quick. refit: a baseline to compare with, fine-tune on the sharp frames blurred "
            "again.",
            rich_help_panel=METHOD,
        ),
    ] = D.method,
    backbone: Annotated[
        str,
        typer.Option(
            help="Network: an id of 'selfhvd-tta models', optionally id:variant, or hf:owner/name. auto: the strongest "
            "one whose weights are here or can be downloaded; with --method transfer the bundled one. none: only with "
            "--method transfer, which then merges into the frames as recorded.",
            rich_help_panel=METHOD,
        ),
    ] = D.backbone,
    iters: Annotated[
        int, typer.Option(help="Steps of adaptation. 0: the backbone alone.", rich_help_panel=METHOD)
    ] = A.iters,
    flow: Annotated[
        str,
        typer.Option(
            help="Optical flow: sea-raft, raft, shake, embedded, dis, optionally id:variant. auto: SEA-RAFT if its "
            "weights can be had, else shake (bundled).",
            rich_help_panel=METHOD,
        ),
    ] = P.flow,
    weights: Annotated[
        str | None, typer.Option(help="A .safetensors file for the backbone.", rich_help_panel=METHOD)
    ] = D.weights,
    save_adapted: Annotated[
        str | None,
        typer.Option(help="Write the weights adapted to this video (.safetensors).", rich_help_panel=METHOD),
    ] = None,
    adapted: Annotated[
        str | None,
        typer.Option(
            help="Start from weights that --save-adapted wrote; with --iters 0 only apply them.", rich_help_panel=METHOD
        ),
    ] = None,
    accept_non_commercial: Annotated[
        bool,
        typer.Option(
            "--accept-non-commercial",
            help="Weights whose licence forbids commercial use may be downloaded and used.",
            rich_help_panel=METHOD,
        ),
    ] = False,
    detail: Annotated[
        bool | None,
        typer.Option(
            help="Blend aligned sharp frames into the network's output at the end. Default: yes, but not with refit.",
            rich_help_panel=METHOD,
        ),
    ] = D.detail,
    force: Annotated[
        bool, typer.Option("--force", help="Adapt even where no frame is sharper.", rich_help_panel=METHOD)
    ] = False,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Fail (exit 5) instead of passing such a video through.", rich_help_panel=METHOD),
    ] = False,
    crop: Annotated[
        int | None,
        typer.Option(help="Side of the training crops in pixels. Default: 256, on a CPU 128.", rich_help_panel=TUNING),
    ] = A.crop,
    clip_length: Annotated[
        int | None, typer.Option(help="Frames of a training clip. Default: 10, on a CPU 6.", rich_help_panel=TUNING)
    ] = A.clip_length,
    batch: Annotated[int, typer.Option(help="Clips per step.", rich_help_panel=TUNING)] = A.batch,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="Rate at the first step; it falls as a cosine. Default: 1e-4, with few steps of nafnet up to 5e-4.",
            rich_help_panel=TUNING,
        ),
    ] = A.learning_rate,
    stage1: Annotated[
        float, typer.Option(help="Share of the steps spent in stage 1.", rich_help_panel=TUNING)
    ] = A.stage1,
    perceptual_weight: Annotated[
        float, typer.Option(help="Weight of the VGG term; 0 for none.", rich_help_panel=TUNING)
    ] = A.perceptual_weight,
    consistency_weight: Annotated[
        float, typer.Option(help="Weight of the SCSCM term.", rich_help_panel=TUNING)
    ] = A.consistency_weight,
    vgg_layer: Annotated[
        str, typer.Option(help="VGG19 layer of the perceptual term.", rich_help_panel=TUNING)
    ] = A.vgg_layer,
    rscr: Annotated[bool, typer.Option(help="Random sharp-clue removal (SEVD).", rich_help_panel=TUNING)] = A.rscr,
    sis: Annotated[bool, typer.Option(help="Supervision selection (SEVD).", rich_help_panel=TUNING)] = A.sis,
    scscm: Annotated[bool, typer.Option(help="Spatial-consistency maintenance.", rich_help_panel=TUNING)] = A.scscm,
    history_updates: Annotated[
        int, typer.Option(help="Renewals of the historical model at most.", rich_help_panel=TUNING)
    ] = A.history_updates,
    label_refresh: Annotated[
        int | None,
        typer.Option(
            help="Steps between two refreshes of the labels. Default: a sixth of the steps, at least 100.",
            rich_help_panel=TUNING,
        ),
    ] = A.label_refresh,
    teacher: Annotated[
        Teacher,
        typer.Option(
            help="bank: labels and teacher outputs of the last refresh. live, with --label-refresh 1: the literal "
            "method of the paper, many times slower.",
            rich_help_panel=TUNING,
        ),
    ] = A.teacher,
    teachers: Annotated[
        int, typer.Option(help="Sharp frames merged into one label; 1 as in the paper.", rich_help_panel=TUNING)
    ] = P.teachers,
    merge: Annotated[
        Merge,
        typer.Option(
            help="How sharp frames are blended in at the end: learned, by a bundled network; weighted, by the masks "
            "alone (quicker).",
            rich_help_panel=TUNING,
        ),
    ] = P.merge,
    merge_weights: Annotated[
        str | None,
        typer.Option(help="Weights for --merge learned, of 'pretrain-merge --export'.", rich_help_panel=TUNING),
    ] = P.merge_weights,
    uncertainty: Annotated[
        bool, typer.Option(help="Mask by the certainty of the flow (Eq. 4).", rich_help_panel=TUNING)
    ] = P.uncertainty,
    occlusion: Annotated[
        bool, typer.Option(help="Mask by forward-backward consistency (Eq. 5).", rich_help_panel=TUNING)
    ] = P.occlusion,
    global_motion: Annotated[
        bool | None,
        typer.Option(
            help="Estimate a homography per pair first, then flow for the rest. Default: only in shake and embedded.",
            rich_help_panel=TUNING,
        ),
    ] = P.global_motion,
    segment: Annotated[
        int, typer.Option(help="Frames per segment of the clue selection.", rich_help_panel=TUNING)
    ] = ClueSettings().segment,
    working_set: Annotated[
        int, typer.Option(help="Frames that adaptation draws from at most.", rich_help_panel=TUNING)
    ] = A.working_set,
    range: Annotated[
        str | None,
        typer.Option(
            help="Restore only this part, for example 0:05-0:12, 90- or -0:10; sound and all else is cut to match.",
            rich_help_panel=OUTPUT,
        ),
    ] = D.range,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing output.", rich_help_panel=OUTPUT)
    ] = False,
    codec: Annotated[
        Codec | None,
        typer.Option(help="Default: h264, or hevc for more than 8 bits. ffv1 is lossless.", rich_help_panel=OUTPUT),
    ] = None,
    crf: Annotated[
        int | None, typer.Option(help="Constant rate factor: smaller is better and larger.", rich_help_panel=OUTPUT)
    ] = W.crf,
    preset: Annotated[Preset, typer.Option(help="Preset of the encoder.", rich_help_panel=OUTPUT)] = W.preset,
    chroma: Annotated[
        Chroma,
        typer.Option(
            help="source: as the video has it. 420: what every player knows, also for 4:2:2 and 4:4:4.",
            rich_help_panel=OUTPUT,
        ),
    ] = W.chroma,
    faststart: Annotated[
        bool,
        typer.Option(help="Index of an MP4 or MOV in front: plays while it downloads.", rich_help_panel=OUTPUT),
    ] = W.faststart,
    report: Annotated[
        Path | None,
        typer.Option(help="Also write a page about the run: one .html file, no network.", rich_help_panel=OUTPUT),
    ] = None,
    compare: Annotated[
        Layout | None,
        typer.Option(
            help="Also write a comparison video beside the output (sharp-side.mp4): input and result side by side, "
            "stacked, or with a moving divider.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    preview: Annotated[
        bool,
        typer.Option(
            "--preview",
            help="Only three seconds around the blurriest passage, in a minute at most: writes them before and after "
            "(sharp-preview.mp4), and says how long the whole would take.",
            rich_help_panel=RUN,
        ),
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel=RUN)] = R.device,
    precision: Annotated[
        Precision, typer.Option(help="auto: bf16 on GPUs that are good at it.", rich_help_panel=RUN)
    ] = R.precision,
    window: Annotated[
        int | None, typer.Option(help="Frames restored at once. Default: what memory allows.", rich_help_panel=RUN)
    ] = R.window,
    budget: Annotated[
        float | None,
        typer.Option(
            help="Time for the whole job, such as 90s, 5m or 1h: steps, crop, refreshes and teachers are chosen to fit "
            "(--iters is then not used, but 0 stays 0).",
            parser=seconds_of,
            metavar="TIME",
            rich_help_panel=RUN,
        ),
    ] = None,
    early_stop: Annotated[
        bool,
        typer.Option(help="End when the error on held-out frames stops falling.", rich_help_panel=TUNING),
    ] = A.early_stop,
    tile: Annotated[
        int | None,
        typer.Option(
            help="Restore frames in overlapping tiles of so many pixels. Default: only when memory runs out.",
            rich_help_panel=RUN,
        ),
    ] = R.tile,
    seed: Annotated[int, typer.Option(help="Of every random draw.", rich_help_panel=RUN)] = R.seed,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew, do not continue an interrupted run.", rich_help_panel=RUN)
    ] = False,
    checkpoint_minutes: Annotated[
        float, typer.Option(help="Longest time between two checkpoints of the adaptation.", rich_help_panel=RUN)
    ] = R.checkpoint_minutes,
    offline: Annotated[
        bool, typer.Option("--offline", help="Use only weights that are on this machine.", rich_help_panel=RUN)
    ] = False,
    config: ConfigFile = None,
    json_lines: Annotated[
        bool, typer.Option("--json", help="Print events as JSON lines.", rich_help_panel=RUN)
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Only warnings and errors.", rich_help_panel=RUN)] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.", rich_help_panel=RUN)] = False,
) -> None:
    """Make a video sharp: selfhvd-tta deblur shaky.mp4 -o sharp.mp4"""
    settings = settings_of(ctx, config)
    style: Style = "json" if json_lines else "quiet" if quiet else "auto"
    with Interruption() as interruption, Display(style) as display:
        if preview:
            from selfhvd_tta.extras.preview import preview as show

            if report is not None:
                raise UsageError("--report: a preview has no report", "Leave one of them out.")
            show(video, output, settings, compare or "side", display, interruption.token)
            return
        from selfhvd_tta.extras import Extras, deblur_with

        deblur_with(video, output, settings, Extras(report, compare), display, interruption.token)


@app.command()
def inspect(
    video: Annotated[Path, typer.Argument(help="A video file.")],
    segment: Annotated[int, typer.Option(help="Frames per segment of the clue selection.")] = ClueSettings().segment,
    width: Annotated[int, typer.Option(help="Frames per line.", min=10)] = 80,
    plot: Annotated[
        Path | None, typer.Option(help="Draw it with thumbnails into this picture (.png, .jpg, .svg, .pdf).")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing picture.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Show which frames are sharp, where the cuts are, and whether adaptation can help."""
    from selfhvd_tta.cli.timeline import timeline
    from selfhvd_tta.run.scan import inspect as run

    if plot is not None:
        from selfhvd_tta.extras.report import need_extra

        need_extra("--plot")
        from selfhvd_tta.extras.report.clue_plot import check_plot, plot_clues

        check_plot(plot, overwrite)
    seen = run(video, ClueSettings(segment=segment))
    show_lines(timeline(seen, width))
    if plot is not None:
        show_lines(["", f"plot: {plot_clues(seen, plot, overwrite)}"])


@app.command()
def models(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """List networks and flows, and the weights that are here or can be downloaded."""
    from selfhvd_tta import backbones, flows
    from selfhvd_tta.weights import models_overview

    rows = [(b.id, ", ".join(v.name for v in b.variants), b.licence, b.summary) for b in backbones.discover().values()]
    show_table("Backbones (--backbone)", ("id", "variants", "code licence", "what"), rows)
    rows = [(f.id, ", ".join(v.name for v in f.variants), f.licence, f.summary) for f in flows.discover().values()]
    show_table("\nFlows (--flow)", ("id", "variants", "code licence", "what"), rows)
    table = [(r.name, r.kind, r.state, r.size, r.licence, r.note) for r in models_overview()]
    show_table("\nWeights", ("name", "kind", "state", "size", "licence", "note"), table)


add_commands(app, deblur)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: runs a command and turns errors into one line and an exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    json_lines, debug = "--json" in arguments, "--debug" in arguments
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = app(args=list(arguments), standalone_mode=False, prog_name="selfhvd-tta")
        if code == ExitCode.INTERRUPTED:
            raise KeyboardInterrupt  # newer releases of typer swallow it
        sys.exit(code if isinstance(code, int) else ExitCode.OK)
    except (typer.Abort, KeyboardInterrupt):
        error: SelfHVDError = Interrupted("interrupted; the output was not written", "")
    except CLICK_ERROR as usage:
        usage.show()
        sys.exit(ExitCode.USAGE)
    except SelfHVDError as known:
        if debug:
            raise
        error = known
    except Exception as unexpected:  # the last resort: a user sees no traceback unasked
        if debug:
            raise
        text = f"{type(unexpected).__name__}: {unexpected}".splitlines()[0]
        error = SelfHVDError(f"unexpected failure, {text}", "Run again with --debug and report what it prints.")
    show_error(error, json_lines)
    sys.exit(int(error.exit_code))


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt
