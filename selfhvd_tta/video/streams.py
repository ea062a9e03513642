"""The other streams of the source: copied packet by packet, converted only where the container demands it."""

from __future__ import annotations

import heapq
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import av.error

from selfhvd_tta.video.compat import disposition_bits, time_base_of
from selfhvd_tta.video.probe import DECODE_ERRORS, is_picture

# Tags about the old file that would be wrong, or that the muxer writes itself.
STALE_TAGS = {"encoder", "duration", "number_of_frames", "number_of_bytes", "bps", "rotate", "handler_vendor"}
STALE_PREFIXES = ("_statistics", "number_of_frames-", "number_of_bytes-", "bps-", "duration-")
BRAND_TAGS = {"major_brand", "minor_version", "compatible_brands"}
CONTAINER_NAMES = {"mp4": "MP4", "mov": "MOV", "matroska": "Matroska"}


@dataclass
class Copied:
    """A stream of the source and the one that it becomes.

    Attributes:
        source: PyAV stream of the input container.
        output: PyAV stream of the output container.
        convert: changes a packet of the source into packets of the output; None copies.
    """

    source: Any
    output: Any
    convert: Callable[[Any], list[Any]] | None = None


def clean_tags(tags: dict[str, str]) -> dict[str, str]:
    """Metadata without what describes the old file's coding."""
    return {
        key: value
        for key, value in tags.items()
        if key.lower() not in STALE_TAGS | BRAND_TAGS and not key.lower().startswith(STALE_PREFIXES)
    }


def add_streams(source: Any, output: Any, main_index: int, container: str, notes: list[str]) -> list[Copied]:
    """Give every stream of ``source`` but the main one a counterpart in ``output``.

    Args:
        source: open input container.
        output: output container that has its video stream already and is not started.
        main_index: index of the video stream that is replaced.
        container: muxer name of ``output``.
        notes: gets one line for each stream that is converted or left out.
    """
    copied: list[Copied] = []
    for stream in source.streams:
        if stream.index == main_index:
            continue
        if _is_chapter_track(source, stream):
            continue
        reason = why_not(stream, container)
        if reason is None:
            copied.append(Copied(stream, add_copy(output, stream)))
        else:
            notes.append(f"{describe(stream)} is left out: {reason}")
    return copied


def why_not(stream: Any, container: str) -> str | None:
    """None if the container takes this stream as it is, else what is in the way; found by trying."""
    trial = av.open(io.BytesIO(), "w", format=container)
    try:
        add_copy(trial, stream)
        trial.start_encoding()
    except (*DECODE_ERRORS, TypeError, AttributeError) as error:
        del error
        return f"{CONTAINER_NAMES[container]} cannot hold it"
    finally:
        _close_trial(trial)
    return None


def _close_trial(trial: Any) -> None:
    try:
        trial.close()
    except DECODE_ERRORS:
        # The trial was never meant to become a file.
        return


def add_copy(output: Any, stream: Any) -> Any:
    """Add a stream that takes the packets of ``stream`` unchanged."""
    copy = output.add_stream_from_template(stream, opaque=True)
    copy.metadata.clear()
    copy.metadata.update(clean_tags(dict(stream.metadata)))
    copy.time_base = stream.time_base
    copy.disposition = disposition_bits(stream)
    return copy


def describe(stream: Any) -> str:
    """A stream as the user knows it: ``subtitle stream 3 (hdmv_pgs_subtitle, eng)``."""
    context = getattr(stream, "codec_context", None)
    codec = (context.name if context is not None else getattr(stream, "name", None)) or "unknown codec"
    language = stream.metadata.get("language", "")
    kind = "picture" if is_picture(stream) else stream.type
    return f"{kind} stream {stream.index} ({codec}{', ' + language if language not in ('', 'und') else ''})"


def _is_chapter_track(source: Any, stream: Any) -> bool:
    """MP4 stores chapters as a text track too; the muxer makes a new one from the chapters."""
    chapters = getattr(source, "chapters", None)
    if chapters is None or not chapters() or "mp4" not in source.format.name:
        return False
    return bool(stream.type == "data" and (getattr(stream, "name", None) or "") in ("bin_data", ""))


def copied_packets(source: Any, streams: list[Copied], shift: Fraction) -> Iterator[tuple[Fraction, Any]]:
    """Packets of the copied streams with their time in seconds, in the file's order, moved by ``shift`` seconds."""
    if not streams:
        return
    by_index = {item.source.index: item for item in streams}
    for packet in source.demux([item.source for item in streams]):
        if not packet.size:
            continue
        item = by_index[packet.stream.index]
        if packet.dts is None:
            packet.dts = packet.pts
        if packet.dts is None:
            continue
        unit = time_base_of(packet)
        time = packet.dts * unit + shift
        if shift:
            ticks = round(shift / unit)
            packet.dts += ticks
            if packet.pts is not None:
                packet.pts += ticks
        if item.convert is None:
            packet.stream = item.output
            yield time, packet
        else:
            for converted in item.convert(packet):
                converted.stream = item.output
                yield time, converted


def interleave(video: Iterator[tuple[Fraction, Any]], others: Iterator[tuple[Fraction, Any]]) -> Iterator[Any]:
    """Packets of both in order of time."""
    for _, packet in heapq.merge(video, others, key=lambda pair: pair[0]):
        yield packet
