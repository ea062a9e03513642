"""What the flags of ``bench --speed`` mean: what is not given depends on whether there is a GPU."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from selfhvd_tta.backbones import discover
from selfhvd_tta.errors import UsageError
from selfhvd_tta.lab.speed.results import SpeedSettings
from selfhvd_tta.run.device import choose_device
from selfhvd_tta.run.networks import OFFLINE_BACKBONE
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
    mine = ":".join(OFFLINE_BACKBONE)
    others = tuple(name for name in discover() if name != "estrnn")
    if flags["backbone"] == "all" or (flags["backbone"] == "auto" and gpu):
        # The first one whose weights are here does the whole job.
        names = ("estrnn:c80b15", "estrnn:lite", mine, *others)
    elif flags["backbone"] == "auto":
        names = (mine, "estrnn:lite")
    else:
        names = tuple(flags["backbone"].split(","))
    large = flags["large"] or ("1920x1080" if gpu else "none")
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
        large=None if large == "none" else parse_size(large, "--large"),
        end_to_end=flags["whole_job"],
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
