"""What the flags of ``bench --speed`` mean: what is not given depends on whether there is a GPU."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from selfhvd_tta.backbones import discover
from selfhvd_tta.errors import UsageError
from selfhvd_tta.lab.speed.results import SpeedSettings
from selfhvd_tta.run.device import choose_device
from selfhvd_tta.run.networks import OFFLINE_BACKBONE
from selfhvd_tta.settings import Settings

STEPS_ON_A_CPU = 24
GPU_MINUTES = 10.0


def speed_settings(flags: Mapping[str, Any], base: Settings, steps_given: bool) -> SpeedSettings:
    """What to measure.

    Args:
        flags: of the command, by parameter name.
        base: settings of the whole job, as the flags have them.
        steps_given: whether the user chose its steps.

    Raises:
        UsageError: a flag makes no sense.
    """
    device = choose_device(base.runtime.device, lambda event: None).type
    gpu = device != "cpu"
    width, height = parse_size(flags["size"] or ("1280x720" if gpu else "384x256"))
    mine = ":".join(OFFLINE_BACKBONE)
    others = tuple(name for name in discover() if name != "estrnn")
    if base.backbone == "all" or (base.backbone == "auto" and gpu):
        # The first one whose weights are here does the whole job.
        names = ("estrnn:c80b15", "estrnn:lite", mine, *others)
    elif base.backbone == "auto":
        names = (mine, "estrnn:lite")
    else:
        names = tuple(base.backbone.split(","))
    large = flags["large"] or ("1920x1080" if gpu else "none")
    plan = base.adaptation if steps_given else replace(base.adaptation, iters=2000 if gpu else STEPS_ON_A_CPU)
    run = replace(base, method="adapt", backbone="auto", force=True, adaptation=plan.on(device))
    return SpeedSettings(
        backbones=names,
        width=width,
        height=height,
        frames=flags["frames"] or (100 if gpu else 24),
        repeats=flags["repeats"],
        large=None if large == "none" else parse_size(large, "--large"),
        end_to_end=flags["whole_job"],
        minutes=flags["minutes"] or (GPU_MINUTES if gpu else None),
        run=run,
    )


def parse_size(text: str, flag: str = "--size") -> tuple[int, int]:
    """Width and height of ``1280x720``.

    Raises:
        UsageError: the text is not of that form.
    """
    found = re.fullmatch(r"(\d+)[xX](\d+)", text.strip())
    if found is None:
        raise UsageError(f"{flag} is {text!r}, but it must be of the form 1280x720")
    return int(found[1]), int(found[2])
