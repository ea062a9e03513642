"""A trial of the final file before the work: what a container or an encoder refuses is known after a second.

One gray frame is encoded, and joined with the names, chapters and first packets of everything else in the source, as
the result will be in the end; the file is read back and removed.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from selfhvd_tta.settings import OutputSettings
from selfhvd_tta.video.encoding import choose_encoding
from selfhvd_tta.video.images import FOLDER
from selfhvd_tta.video.joining import FinalFile, join
from selfhvd_tta.video.probe import IMAGES, VideoInfo
from selfhvd_tta.video.segments import SegmentStore
from selfhvd_tta.video.target import Target, disk_errors, make_workplace
from selfhvd_tta.video.writer import check_output, to_planes, verify


def rehearse(out: str | Path, info: VideoInfo, settings: OutputSettings, job: Path | None = None) -> list[str]:
    """Write a small file like the result next to its place, and remove it.

    Args:
        out: as for :class:`VideoWriter`; a folder of images, for which there is nothing to try, is said to be one.
        info: of the source.
        settings: codec, quality, overwriting.
        job: folder next to the output to work in, see :func:`make_workplace`.

    Returns:
        One line for each thing that will have to be converted or left out.

    Raises:
        UsageError: the result could not be written as this kind of file.
        DiskError: nothing can be written there, or what was written does not read back.
        InputError: the source cannot be read.
    """
    target = check_output(out, info, settings)
    if target.container is None:
        return [] if info.container == IMAGES else [FOLDER.format(target.path.name)]
    workplace = make_workplace(target, job)
    try:
        return _written(target, target.container, info, settings, workplace)
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


def _written(target: Target, container: str, info: VideoInfo, settings: OutputSettings, workplace: Path) -> list[str]:
    encoding = choose_encoding(info, settings)
    notes = list(encoding.notes)
    with disk_errors(target.path):
        (workplace / "segments").mkdir()
    store = SegmentStore(workplace / "segments", encoding, 1)
    begins = info.origin if info.span is None else info.span.start
    gray = np.full((info.height, info.width, 3), 128, np.uint8)
    store.write(to_planes(gray, encoding), round(begins / info.time_base))
    store.finish()
    part = workplace / f"trial{target.path.suffix}"
    shift = join(FinalFile(store, info, container, part, settings.faststart, sample=True), notes)
    verify(part, store, info, container, shift)
    return notes
