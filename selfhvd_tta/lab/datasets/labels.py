"""Which frames of a video with ground truth are sharp, as its data set says."""

from __future__ import annotations

import json
from pathlib import Path

from selfhvd_tta.errors import InputError

LABELS = "labels.json"


def read_labels(folder: Path) -> tuple[bool, ...]:
    """One entry per frame, True where the frame is sharp.

    ``labels.json`` has the labels as ``sharp``, or the recorded frames per exposure as ``exposure_subframes``, of which
    one is sharp.

    Raises:
        InputError: there are no labels, or they cannot be read.
    """
    path = folder / LABELS
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        if "sharp" in about:
            return tuple(bool(label) for label in about["sharp"])
        return tuple(int(count) == 1 for count in about["exposure_subframes"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: cannot be read ({error})", "Write the data set again.") from error
