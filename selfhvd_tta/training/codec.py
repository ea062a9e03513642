"""What a video codec does to frames: encode and decode in memory."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray

from selfhvd_tta.video.color import BT709, YuvCoding, rgb_to_yuv
from selfhvd_tta.video.planes import frame_from_planes, to_rgb

Image = NDArray[np.uint8]
# The tool's own conversion, not the scaler's default one: that darkens by a code value and smears chroma, and a network
# would learn to undo what no video of a user has.
CODING = YuvCoding(matrix=BT709, full_range=False, bits=8)


def h264_round_trip(frames: Image, crf: int) -> Image:
    """Encode (T, H, W, 3) RGB frames as H.264 4:2:0 and decode them again.

    Args:
        frames: uint8; odd sizes are extended by a row or column for the encoder and cut again.
        crf: constant rate factor of x264, 0..51.
    """
    count, height, width, _ = frames.shape
    padded = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(30))
        stream.width, stream.height, stream.pix_fmt = padded.shape[2], padded.shape[1], "yuv420p"
        # With its macroblock tree x264 gives different bits from run to run on processors with AVX-512.
        stream.options = {"crf": str(crf), "preset": "veryfast", "threads": "1", "x264-params": "no-mbtree=1"}
        for frame in padded:
            planes = rgb_to_yuv(frame, CODING)
            container.mux(stream.encode(frame_from_planes(planes, "yuv420p", stream.width, stream.height)))
        container.mux(stream.encode())
    buffer.seek(0)
    with av.open(buffer, "r") as reader:
        decoded = [to_rgb(frame, CODING) for frame in reader.decode(video=0)]
    if len(decoded) != count:
        raise RuntimeError(f"{count} frames went into the encoder, {len(decoded)} came back")
    return np.stack(decoded)[:, :height, :width].astype(np.uint8, copy=False)
