"""The command ``learn``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from selfhvd_tta.cli.options import Debug, settings_of, takes_settings
from selfhvd_tta.console import Display, show_lines
from selfhvd_tta.settings import Settings

FLAGS = (
    *("backbone", "weights", "adapted", "iters", "stage1", "crop", "clip_length", "batch", "learning_rate", "flow"),
    *("teachers", "working_set", "label_refresh", "literal", "force", "device", "seed", "offline", "precision"),
    "restart",
)


@takes_settings(only=FLAGS)
def learn(
    ctx: typer.Context,
    folder: Annotated[
        Path,
        typer.Argument(help="Folder of videos of one camera, or a data set as for bench; ground truth is not read."),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="Learned weights (.safetensors), for --adapted.")
    ],
    val: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Score the pretrained and the learned network on these videos at the end."),
    ] = None,
    debug: Debug = False,
    **flags: Any,
) -> None:
    """Adapt one network on many videos of one camera. An interrupted run resumes with the same command."""
    with Display() as display:
        from selfhvd_tta.lab.evaluation.learning import learn as run
        from selfhvd_tta.lab.evaluation.table import in_words

        settings = settings_of(ctx, flags, base=Settings(method="adapt", detail=False))
        done = run(folder, output, settings, val, display)
    show_lines(
        [
            f"{output}: learned from {done.videos} videos in {len(done.record.steps)} steps",
            *(f"{name}: {in_words(scores)}" for name, scores in done.scores.items()),
            f"apply it: selfhvd-tta deblur shaky.mp4 --adapted {output} --iters 0",
        ]
    )
