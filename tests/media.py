"""Small clips for tests, made with PyAV."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from selfhvd_tta.video.color import BT709, PixelLayout, YuvCoding, rgb_to_yuv
from selfhvd_tta.video.planes import frame_from_planes
from tests.tiny import blurry_clip

Planes = tuple[np.ndarray, ...]


def smooth_planes(index: int, width: int, height: int, pix_fmt: str) -> Planes:
    """Codes of a smooth moving picture that every matrix and range maps into the RGB cube."""
    layout = PixelLayout.of(pix_fmt)
    unit = 1 << (layout.bits - 8)
    dtype = np.uint8 if layout.bits == 8 else np.uint16

    def wave(rows: int, columns: int, centre: float, swing: float, phase: float) -> np.ndarray:
        y, x = np.mgrid[0:rows, 0:columns]
        values = np.sin(2 * np.pi * x / max(columns, 2) + phase + 0.3 * index) + np.cos(2 * np.pi * y / max(rows, 2))
        return np.rint((centre + swing * values / 2) * unit).astype(dtype)

    if layout.kind == "gray":
        return (wave(height, width, 120, 80, 0),)
    if layout.kind == "rgb":
        return tuple(wave(height, width, 120, 90, phase) for phase in (0, 1, 2))
    rows, columns = -(-height >> layout.sub_y), -(-width >> layout.sub_x)
    return wave(height, width, 120, 40, 0), wave(rows, columns, 128, 20, 1), wave(rows, columns, 128, 20, 2)


def make_clip(
    path: Path,
    pts: Sequence[int] = tuple(512 * i for i in range(8)),
    time_base: Fraction = Fraction(1, 15360),
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    size: tuple[int, int] = (64, 48),
    color: tuple[int, int, int, int] = (2, 0, 2, 2),
    sar: Fraction | None = None,
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    planes: Callable[[int, int, int, str], Planes] = smooth_planes,
    prepare: Callable[[Any, Any], None] | None = None,
    audio_seconds: float = 0,
    audio_start: float = 0,
    audio_codec: str = "aac",
    rate: Fraction | None = None,
) -> Path:
    """Encode a clip whose frame i shows ``planes(i, ...)`` at ``pts[i]``.

    Args:
        color: matrix, range, primaries, transfer tags.
        prepare: called with the container and the video stream before anything is encoded.
        audio_seconds: length of a tone next to the video; 0 leaves it out.
        audio_start: when it begins, in seconds.
        audio_codec: encoder of the tone.
    """
    width, height = size
    scale = {"video_track_timescale": str(time_base.denominator), "movie_timescale": str(time_base.denominator)}
    options = {"crf": "0"} if codec == "libx264" and options is None else (options or {})
    if path.suffix in (".mp4", ".mov"):
        muxer = scale | (muxer or {})
    with av.open(str(path), "w", container_options=muxer or {}) as container:
        stream = container.add_stream(
            codec, rate=rate or 1 / ((pts[1] - pts[0]) * time_base if len(pts) > 1 else Fraction(1, 30))
        )
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.time_base = stream.time_base = time_base
        context = stream.codec_context
        context.colorspace, context.color_range, context.color_primaries, context.color_trc = color
        if sar is not None:
            context.sample_aspect_ratio = sar
        context.options = options
        if prepare is not None:
            prepare(container, stream)
        tone = container.add_stream(audio_codec, rate=48000, layout="stereo") if audio_seconds else None
        if tone is not None:
            tone.codec_context.bit_rate = 128_000
            tone.codec_context.options = {"strict": "experimental"}  # FFmpeg's own Vorbis
            tone.codec_context.open()
        for i, time in enumerate(pts):
            frame = picture(planes(i, width, height, pix_fmt), pix_fmt, width, height)
            frame.colorspace, frame.color_range = color[0], color[1]
            frame.pts, frame.time_base = time, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if tone is not None:
            size = tone.codec_context.frame_size or 1024
            fitting = av.AudioResampler(tone.codec_context.format.name, "stereo", 48000, size)
            for block in [*sine(audio_seconds, start_s=audio_start), None]:
                for piece in fitting.resample(block):
                    container.mux(tone.encode(piece))
            container.mux(tone.encode(None))
    return path


def with_user_data(source: Path, path: Path, name: bytes, payload: bytes) -> Path:
    """A copy of an MP4 file, whose header lies at its end, with one more box in its user data."""
    data = bytearray(source.read_bytes())
    added = struct.pack(">I4s", 8 + len(payload), name) + payload
    places = [data.index(box) - 4 for box in (b"moov", b"udta")]
    end = places[1] + struct.unpack_from(">I", data, places[1])[0]
    for at in places:
        struct.pack_into(">I", data, at, struct.unpack_from(">I", data, at)[0] + len(added))
    data[end:end] = added
    path.write_bytes(data)
    return path


def picture(codes: Planes, pix_fmt: str, width: int, height: int) -> Any:
    """A frame of any format, packed and with opaque alpha too, with these codes."""
    layout = PixelLayout.of(pix_fmt)
    frame = frame_from_planes(codes, pix_fmt if "yuvj" in pix_fmt else layout.planar, width, height)
    if frame.format.name == pix_fmt:
        return frame
    same = {"src_colorspace": 5, "dst_colorspace": 5, "src_color_range": 2, "dst_color_range": 2}
    return frame.reformat(format=pix_fmt, **same)


def sine(seconds: float, rate: int = 48000, start_s: float = 0) -> list[Any]:
    """A stereo 440 Hz tone in blocks of 1024 samples."""
    blocks = []
    for start in range(0, int(seconds * rate), 1024):
        t = (start + np.arange(1024)) / rate
        wave = (0.2 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)
        block = av.AudioFrame.from_ndarray(np.stack([wave, wave]), format="fltp", layout="stereo")
        block.sample_rate, block.pts, block.time_base = rate, start + round(start_s * rate), Fraction(1, rate)
        blocks.append(block)
    return blocks


def decode_planes(path: Path) -> list[tuple[int, Planes]]:
    """All frames of a file as (pts, planes), by PyAV alone."""
    from selfhvd_tta.video.planes import coded_planes

    with av.open(str(path)) as container:
        return [(f.pts, tuple(p.copy() for p in coded_planes(f)[0])) for f in container.decode(video=0)]


def packets(path: Path, kind: str) -> list[list[tuple[Any, Any, bytes]]]:
    """For each stream of a kind its packets as (pts, dts, bytes)."""
    with av.open(str(path)) as container:
        streams = [s for s in container.streams if s.type == kind]
        found: dict[int, list[tuple[Any, Any, bytes]]] = {s.index: [] for s in streams}
        for packet in container.demux(streams):
            if packet.size:
                found[packet.stream.index].append((packet.pts, packet.dts, bytes(packet)))
        return list(found.values())


def shaky_file(path: Path, count: int = 12, seconds: float = 0.4, size: tuple[int, int] = (80, 64)) -> Path:
    """A clip of still texture, every third frame sharp, with sound."""
    frames = blurry_clip(count, size[1], size[0])
    coding = YuvCoding(matrix=BT709, full_range=False, bits=8)

    def planes(index: int, width: int, height: int, pix_fmt: str) -> tuple[np.ndarray, ...]:
        return rgb_to_yuv(frames[index], coding)

    return make_clip(
        path,
        tuple(512 * i for i in range(count)),
        size=size,
        planes=planes,
        color=(1, 1, 1, 1),
        audio_seconds=seconds,
    )


def check_media(source: Path, result: Path) -> None:
    """The same times, sizes and sound packets."""
    before, after = decode_planes(source), decode_planes(result)
    assert [pts for pts, _ in before] == [pts for pts, _ in after]
    assert all(a[0].shape == b[0].shape for (_, a), (_, b) in zip(before, after, strict=True))
    assert [p[2] for p in packets(source, "audio")[0]] == [p[2] for p in packets(result, "audio")[0]]
