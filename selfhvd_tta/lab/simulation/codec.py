"""What a video codec does to frames: encode and decode in memory."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from selfhvd_tta.lab.simulation.shake import Compression
from selfhvd_tta.video.color import BT709, YuvCoding, rgb_to_yuv
from selfhvd_tta.video.planes import frame_from_planes, to_rgb

Image = NDArray[np.uint8]
# The tool's own conversion, not the scaler's default one: that darkens by a code value and smears chroma, and a network
# would learn to undo what no video of a user has.
CODING = YuvCoding(matrix=BT709, full_range=False, bits=8)


def compress(frames: Image, compression: Compression) -> Image:
    """Write (T, H, W, 3) RGB frames to a lossy file and read them again."""
    if compression.jpeg is not None:
        frames = jpeg_round_trip(frames, compression.jpeg)
    if compression.bits_per_pixel is not None:
        rate = round(compression.bits_per_pixel * frames.shape[1] * frames.shape[2] * 30)
        # Phones' encoders use no B frames, and hold the rate over about a second.
        options = {"bf": "0", "maxrate": str(2 * rate), "bufsize": str(rate)}
        frames = _h264(frames, options, rate)
    return frames


def jpeg_round_trip(frames: Image, quality: int) -> Image:
    """Encode (T, H, W, 3) RGB frames one by one as JPEG 4:2:0 and decode them again."""
    decoded = []
    for frame in frames:
        done, data = cv2.imencode(".jpg", np.ascontiguousarray(frame[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if done else None
        if picture is None:
            raise RuntimeError(f"a frame of {frame.shape} could not be encoded as JPEG")
        decoded.append(picture[..., ::-1])
    return np.stack(decoded).astype(np.uint8, copy=False)


def h264_round_trip(frames: Image, crf: int) -> Image:
    """Encode (T, H, W, 3) RGB frames as H.264 4:2:0 and decode them again.

    Args:
        frames: uint8; odd sizes are extended by a row or column for the encoder and cut again.
        crf: constant rate factor of x264, 0..51.
    """
    return _h264(frames, {"crf": str(crf)}, None)


def _h264(frames: Image, options: dict[str, str], rate: int | None) -> Image:
    count, height, width, _ = frames.shape
    padded = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(30))
        stream.width, stream.height, stream.pix_fmt = padded.shape[2], padded.shape[1], "yuv420p"
        # With its macroblock tree x264 gives different bits from run to run on processors with AVX-512.
        stream.options = {**options, "preset": "veryfast", "threads": "1", "x264-params": "no-mbtree=1"}
        if rate is not None:
            stream.bit_rate = rate
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
