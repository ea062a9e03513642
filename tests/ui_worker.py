"""Stands in for the worker of the page: same protocol, same files, no networks; ``slow`` in a name waits for an end."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from selfhvd_tta.batch.worker import serve
from selfhvd_tta.errors import InputError
from selfhvd_tta.events import Finished, Listener, Note, Plan, Progress, Written
from selfhvd_tta.run.cancelling import CancelToken

FOUND = {
    "width": 80, "height": 64, "frames": 4, "length": 0.1, "sharpness": [9.0, 1.0, 1.0, 8.0],
    "sharp": [True, False, False, True], "shots": 1, "helpful": True, "verdict": "2 of 4 frames are softer",
    "exposure": 0.5, "blur": 6.0, "seconds": {"quick": 10, "balanced": 20, "best": 600},
}  # fmt: skip


def work(request: dict[str, Any], listen: Listener, cancel: CancelToken) -> None:
    video, output, pairs = (Path(request[name]) for name in ("video", "output", "pairs"))
    if "broken" in video.name:
        raise InputError(f"{video}: no frame could be decoded", "The file is damaged or empty.")
    if request["task"] == "look":
        Path(request["findings"]).write_text(json.dumps(FOUND))
        listen(Written("look", request["findings"]))
        return
    listen(Plan((("video", "tiny"),), 0.5))
    rounds = 400 if "slow" in video.name and request["task"] == "restore" else 3
    for number in range(rounds):
        cancel.check()
        listen(Progress("transfer", number, rounds))
        time.sleep(0.05 if rounds > 3 else 0)
    pairs.mkdir(exist_ok=True)
    for number in range(2):
        for which, value in (("before", 60), ("after", 200)):
            cv2.imwrite(str(pairs / f"{number:02d}-{which}.jpg"), np.full((64, 80, 3), value, np.uint8))
    if request["task"] == "preview":
        shutil.copyfile(video, output.with_name(f"{output.stem}-preview.mp4"))
        listen(Written("preview", str(output)))
        return
    shutil.copyfile(video, output)
    Path(request["report"]).write_text("<!doctype html><title>report</title>")
    listen(Note("a warning of the run", "warning"))
    listen(Finished(str(output), 1.0, action="transferred"))


if __name__ == "__main__":
    sys.exit(serve(work))
