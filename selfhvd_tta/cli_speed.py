"""``bench --speed``: from flags to what is measured, and the result on the screen."""

from __future__ import annotations

import re

import typer

from selfhvd_tta.console import Display, show_lines
from selfhvd_tta.errors import UsageError
from selfhvd_tta.settings import AdaptationSettings, AlignmentSettings, RuntimeSettings, Settings


def bench_speed(ctx: typer.Context, json_lines: bool) -> None:
    """Time the parts of the work, by the flags of ``bench``."""
    given = ctx.params
    with Display("quiet" if json_lines else "auto") as display:
        from selfhvd_tta.backbones import discover
        from selfhvd_tta.benchmarks.report import as_json, as_markdown
        from selfhvd_tta.benchmarks.speed import SpeedSettings, run_speed
        from selfhvd_tta.models import choose_device

        gpu = choose_device(given["device"], lambda event: None).type != "cpu"
        width, height = parse_size(given["size"] or ("1280x720" if gpu else "384x256"))
        if given["backbone"] == "all":
            names = tuple(discover())
        elif given["backbone"] == "auto":
            names = ("estrnn:c80b15", "estrnn:lite", "dstnetplus") if gpu else ("estrnn:lite",)
        else:
            names = tuple(given["backbone"].split(","))
        source = ctx.get_parameter_source("iters")
        chosen = source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT")
        run = Settings(
            detail=given["detail"],
            force=True,
            alignment=AlignmentSettings(flow=given["flow"], teachers=given["teachers"]),
            adaptation=AdaptationSettings(
                iters=given["iters"] if chosen or gpu else 24,
                crop=given["crop"],
                clip_length=given["clip_length"],
                label_refresh=given["label_refresh"],
            ),
            runtime=RuntimeSettings(
                device=given["device"], precision=given["precision"], seed=given["seed"], offline=given["offline"]
            ),
        )
        settings = SpeedSettings(
            backbones=names,
            width=width,
            height=height,
            frames=given["frames"] or (100 if gpu else 24),
            repeats=given["repeats"],
            end_to_end=given["whole_job"],
            run=run,
        )
        report = run_speed(settings, display)
    show_lines([as_json(report) if json_lines else as_markdown(report)])


def parse_size(text: str) -> tuple[int, int]:
    """Width and height of ``1280x720``.

    Raises:
        UsageError: the text is not of that form.
    """
    found = re.fullmatch(r"(\d+)[xX](\d+)", text.strip())
    if found is None:
        raise UsageError(f"--size is {text!r}, but it must be of the form 1280x720")
    return int(found[1]), int(found[2])
