"""Where the chroma samples of a video lie, as its own headers state it.

PyAV does not deliver it before release 19. FFmpeg's bitstream filter ``trace_headers`` reads every field of the headers
and logs it, so the log is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import av.logging
from av.bitstream import BitStreamFilterContext

from selfhvd_tta.video.conversion import codec_name
from selfhvd_tta.video.source import DECODE_ERRORS, open_input

SITING = "where the chroma samples lie"
# Field of the headers and what its values mean as AVChromaLocation; 0 is unspecified.
H26X = ("chroma_sample_loc_type_top_field", {value: value + 1 for value in range(6)})
FIELDS: Mapping[str, tuple[str, Mapping[int, int]]] = {
    "h264": H26X,
    "hevc": H26X,
    "av1": ("chroma_sample_position", {1: 1, 2: 3}),
}


def chroma_location(path: Path, index: int) -> int:
    """AVChromaLocation that the headers of a video stream state; 0 if they do not, or are damaged.

    Args:
        path: a video file.
        index: of the stream.

    Raises:
        InputError: the file cannot be opened.
    """
    try:
        with open_input(path) as container:
            stream = container.streams[index]
            if (name := codec_name(stream)) not in FIELDS:
                return 0
            packet = next((p for p in container.demux(stream) if p.size), None)
            before = av.logging.get_level()
            av.logging.set_level(av.logging.INFO)
            try:
                with av.logging.Capture() as lines:
                    BitStreamFilterContext("trace_headers", stream).filter(packet)
            finally:
                av.logging.set_level(before)
    except DECODE_ERRORS:
        return 0
    field, meanings = FIELDS[name]
    found = re.search(rf"\b{field}\s.*= (\d+)\s*$", "".join(line[2] for line in lines), re.MULTILINE)
    return meanings.get(int(found[1]), 0) if found else 0
