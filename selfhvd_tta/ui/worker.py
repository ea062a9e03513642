"""One task of a job in a process of its own: ``python -m selfhvd_tta.ui.worker``, as :mod:`selfhvd_tta.batch.worker`.

The request has ``task``, ``video``, ``output``, ``quality``, ``report``, ``findings`` and ``pairs``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from selfhvd_tta.batch.worker import serve
from selfhvd_tta.config import QUALITY, from_table
from selfhvd_tta.events import Listener, Written
from selfhvd_tta.files import write_atomically
from selfhvd_tta.run.cancelling import CancelToken

PAIRS = 12
LONGEST = 1280


def work(request: dict[str, Any], listen: Listener, cancel: CancelToken) -> None:
    """Do what the request asks for; a look and a preview tell of what they wrote as :class:`Written`."""
    settings = from_table({QUALITY: request["quality"], "output": {"overwrite": True}})
    video, output, pairs = (Path(request[name]) for name in ("video", "output", "pairs"))
    if request["task"] == "look":
        from selfhvd_tta.extras.outlook import outlook
        from selfhvd_tta.ui.findings import as_json

        text = as_json(outlook(video, settings, listen, cancel))
        with write_atomically(Path(request["findings"])) as part:
            part.write_text(text)
        listen(Written("look", request["findings"]))
    elif request["task"] == "preview":
        from selfhvd_tta.extras.preview import preview

        shown = preview(video, output, settings, "side", listen, cancel)
        keep_pairs(_halves(shown.path), len(shown.frames), pairs)
    else:
        from selfhvd_tta.extras import Extras, deblur_with

        result = deblur_with(video, output, settings, Extras(report=Path(request["report"])), listen, cancel)
        if result.action != "passed through":
            keep_pairs(_before_and_after(video, output), result.frames, pairs)


def keep_pairs(frames: Iterable[tuple[Any, Any]], total: int, folder: Path) -> None:
    """Save the blurriest frame of each of twelve stretches, before and after, as ``00-before.jpg``, ``00-after.jpg``.

    Args:
        frames: all of them in order; pairs of (H, W, 3) uint8.
        total: their number.
        folder: made if it is missing.
    """
    import cv2

    from selfhvd_tta.method.clues import laplacian_variance
    from selfhvd_tta.video.images import save_image

    folder.mkdir(exist_ok=True)
    kept: dict[int, tuple[float, Any, Any]] = {}
    for index, (before, after) in enumerate(frames):
        stretch = index * PAIRS // max(total, 1)
        sharpness = laplacian_variance(cv2.cvtColor(before, cv2.COLOR_RGB2GRAY))
        if stretch not in kept or sharpness < kept[stretch][0]:
            kept[stretch] = sharpness, before, after
    for number, (_, before, after) in enumerate(kept.values()):
        save_image(folder / f"{number:02d}-before.jpg", before)
        save_image(folder / f"{number:02d}-after.jpg", after)


def _before_and_after(video: Path, output: Path) -> Iterator[tuple[Any, Any]]:
    from selfhvd_tta.video.opening import open_reader
    from selfhvd_tta.video.orientation import picture

    before, after = open_reader(video), open_reader(output)
    for old, new in zip(before, after, strict=True):
        yield picture(old.rgb, before.info, LONGEST), picture(new.rgb, after.info, LONGEST)


def _halves(comparison: Path) -> Iterator[tuple[Any, Any]]:
    from selfhvd_tta.video.opening import open_reader
    from selfhvd_tta.video.orientation import picture

    reader = open_reader(comparison)
    for frame in reader:
        both = picture(frame.rgb, reader.info, 2 * LONGEST)
        middle = both.shape[1] // 2
        yield both[:, :middle].copy(), both[:, middle : 2 * middle].copy()


if __name__ == "__main__":
    sys.exit(serve(work))
