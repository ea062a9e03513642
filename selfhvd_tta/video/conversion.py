"""Converts streams that a container cannot hold: text subtitles and audio."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import av
from av.audio.resampler import AudioResampler

TEXT_SUBTITLES = ("subrip", "ass", "webvtt", "mov_text", "text")
MILLISECOND = Fraction(1, 1000)
# The mov_text encoder builds the sample description from it.
_STYLE = b"""[Script Info]
ScriptType: v4.00+
PlayResX: 384
PlayResY: 288

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, \
StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,1

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""

UNNAMED_LAYOUTS = {
    "1 channels": "mono", "2 channels": "stereo", "3 channels": "2.1", "4 channels": "4.0", "5 channels": "5.0",
    "6 channels": "5.1", "7 channels": "6.1", "8 channels": "7.1",
}  # fmt: skip
Convert = Callable[[Any], list[Any]]


def codec_name(stream: Any) -> str:
    """FFmpeg's name of a stream's codec (not of the decoder); empty if unknown."""
    context = getattr(stream, "codec_context", None)
    if context is not None:
        return str(context.codec.canonical_name)
    return str(getattr(stream, "name", None) or "")


def named_layout(layout: Any) -> Any:
    """The usual layout for a number of channels without names, as AVI, WAV and ASF count them; others as they are."""
    name = UNNAMED_LAYOUTS.get(layout.name)
    return layout if name is None else av.AudioLayout(name)


def _named(frame: Any) -> Any:
    """The same sound with a named layout."""
    if frame.layout.name not in UNNAMED_LAYOUTS:
        return frame
    layout = UNNAMED_LAYOUTS[frame.layout.name]
    again = av.AudioFrame.from_ndarray(frame.to_ndarray(), format=frame.format.name, layout=layout)
    again.sample_rate, again.pts = frame.sample_rate, frame.pts
    if frame.pts is not None:
        again.time_base = frame.time_base
    return again


def convert_stream(stream: Any, output: Any, container: str) -> tuple[Any, Convert, str] | None:
    """Add a stream to ``output`` that holds the content of ``stream`` in another codec.

    Args:
        stream: of the source, which ``container`` cannot hold as it is.
        output: not started yet.
        container: its muxer's name.

    Returns:
        The added stream, the function that turns each source packet (None: the end) into packets for it, and the
        codec's name for the user; None if there is no way.
    """
    if stream.type == "subtitle" and codec_name(stream) in TEXT_SUBTITLES:
        return _text(stream, output, container)
    if stream.type == "audio" and stream.codec_context is not None:
        return _audio(stream, output)
    return None


def subtitle_text(payload: bytes, codec: str) -> str:
    """Plain text of one subtitle packet; empty for a packet that ends the previous one."""
    if codec == "mov_text":
        if len(payload) < 2:
            return ""
        return payload[2 : 2 + struct.unpack(">H", payload[:2])[0]].decode("utf-8", "replace")
    text = payload.decode("utf-8", "replace")
    if codec == "ass":
        # ReadOrder, Layer, Style, Name, MarginL, MarginR, MarginV, Effect, Text
        text = text.split(",", 8)[-1]
        text = re.sub(r"\{[^}]*\}", "", text).replace("\\N", "\n").replace("\\n", "\n").replace("\\h", " ")
    return re.sub(r"</?[a-zA-Z][^>]*>", "", text).strip("\r\n")


def _text(stream: Any, output: Any, container: str) -> tuple[Any, Convert, str]:
    codec = codec_name(stream)
    added: Any
    if container == "matroska":
        added = output.add_mux_stream("subrip")
    else:
        added = output.add_stream("mov_text")
        added.codec_context.subtitle_header = _STYLE
        added.codec_context.time_base = MILLISECOND
    added.time_base = MILLISECOND

    def convert(packet: Any) -> list[Any]:
        text = subtitle_text(bytes(packet), codec).encode() if packet is not None else b""
        if not text:
            return []
        payload = text if container == "matroska" else struct.pack(">H", len(text)) + text
        made = av.Packet(payload)
        made.pts, made.dts, made.duration = packet.pts, packet.pts, packet.duration
        made.time_base = packet.time_base
        return [made]

    return added, convert, "SubRip" if container == "matroska" else "MPEG-4 timed text"


def _audio(stream: Any, output: Any) -> tuple[Any, Convert, str]:
    context = stream.codec_context
    layout = named_layout(context.layout)
    rate = min((r for r in (*_AAC_RATES,) if r >= context.sample_rate), default=_AAC_RATES[-1])
    added = output.add_stream("aac", rate=rate, layout=layout)
    added.codec_context.bit_rate = 128_000 * max(1, layout.nb_channels)
    added.codec_context.time_base = Fraction(1, rate)
    resampler = AudioResampler(format="fltp", layout=layout, rate=rate)

    def convert(packet: Any) -> list[Any]:
        frames = [_named(frame) for frame in stream.decode(packet)]
        pieces = [piece for frame in frames for piece in resampler.resample(frame)]
        if packet is None:
            pieces += resampler.resample(None)
        made = [coded for piece in pieces if piece.samples for coded in added.encode(piece)]
        return made + (added.encode(None) if packet is None else [])

    return added, convert, "AAC"


_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
