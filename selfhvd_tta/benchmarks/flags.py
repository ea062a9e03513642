"""What the flags of ``bench --speed`` mean: what is not given depends on whether there is a GPU."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from selfhvd_tta.backbones import discover
from selfhvd_tta.benchmarks.speed import SpeedSettings
from selfhvd_tta.errors import UsageError
from selfhvd_tta.models import choose_device
from selfhvd_tta.settings import AdaptationSettings, AlignmentSettings, RuntimeSettings, Settings

STEPS_ON_A_CPU = 24


def speed_settings(flags: Mapping[str, Any], iters: int | None) -> SpeedSettings:
    """What to measure.

    Args:
        flags: of the command, by parameter name.
        iters: steps of the whole job, if they were asked for.

    Raises:
        UsageError: a flag makes no sense.
    """
    device = choose_device(flags["device"], lambda event: None).type
    gpu = device != "cpu"
    width, height = parse_size(flags["size"] or ("1280x720" if gpu else "384x256"))
    if flags["backbone"] == "all":
        names = tuple(discover())
    elif flags["backbone"] == "auto":
        names = ("estrnn:c80b15", "estrnn:lite", "dstnetplus") if gpu else ("estrnn:lite",)
    else:
        names = tuple(flags["backbone"].split(","))
    run = Settings(
        detail=flags["detail"],
        force=True,
        alignment=AlignmentSettings(flow=flags["flow"], teachers=flags["teachers"], merge=flags["merge"]),
        adaptation=AdaptationSettings(
            iters=iters if iters is not None else 2000 if gpu else STEPS_ON_A_CPU,
            crop=flags["crop"],
            clip_length=flags["clip_length"],
            label_refresh=flags["label_refresh"],
        ).on(device),
        runtime=RuntimeSettings(
            device=flags["device"], precision=flags["precision"], seed=flags["seed"], offline=flags["offline"]
        ),
    )
    return SpeedSettings(
        backbones=names,
        width=width,
        height=height,
        frames=flags["frames"] or (100 if gpu else 24),
        repeats=flags["repeats"],
        end_to_end=flags["whole_job"],
        run=run,
    )


def parse_size(text: str) -> tuple[int, int]:
    """Width and height of ``1280x720``.

    Raises:
        UsageError: the text is not of that form.
    """
    found = re.fullmatch(r"(\d+)[xX](\d+)", text.strip())
    if found is None:
        raise UsageError(f"--size is {text!r}, but it must be of the form 1280x720")
    return int(found[1]), int(found[2])
