"""The other streams of the source: copied packet by packet, converted only where the container demands it."""

from __future__ import annotations

import heapq
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av

from selfhvd_tta.video.clock import Clock
from selfhvd_tta.video.compat import KEEP_BYTES, disposition_bits, time_base_of
from selfhvd_tta.video.conversion import Convert, codec_name, convert_stream, named_layout
from selfhvd_tta.video.decoding import Timeline
from selfhvd_tta.video.source import DECODE_ERRORS, is_picture, open_input, path_of, sample_kind
from selfhvd_tta.video.span import Cut
from selfhvd_tta.wording import plural

# Tags about the old file that would be wrong, or that the muxer writes itself.
STALE_TAGS = {"encoder", "duration", "number_of_frames", "number_of_bytes", "bps", "rotate", "vendor_id"}
STALE_PREFIXES = ("_statistics", "number_of_frames-", "number_of_bytes-", "bps-", "duration-")
BRAND_TAGS = {"major_brand", "minor_version", "compatible_brands"}
# FFmpeg's MP4 reader gives a tag with a language twice, and its writer would take the second one for an unusual tag.
LANGUAGE_MARK = re.compile(r"-[a-z]{3}$")
CONTAINER_NAMES = {"mp4": "MP4", "mov": "MOV", "matroska": "Matroska"}
# MOV has its own list of languages, in which FFmpeg names these by another code than ISO 639-2/T.
MOV_LANGUAGES = {
    "bod": "tib", "cym": "wel", "cze": "ces", "deu": "ger", "ell": "gre", "eus": "baq", "fre": "fra", "hye": "arm",
    "isl": "ice", "kat": "geo", "mkd": "mac", "msa": "may", "mya": "bur", "nld": "dut", "rum": "ron", "slo": "slk",
    "sqi": "alb", "swe": "sve", "zho": "chi",
}  # fmt: skip
# What the names of samples in MP4 and MOV mean.
SAMPLE_NAMES = {"mebx": "timed metadata, mebx", "gpmd": "telemetry of the camera, gpmd", "camm": "motion data, camm"}
PICTURE_TYPES = {"mjpeg": ("jpg", "image/jpeg"), "png": ("png", "image/png"), "bmp": ("bmp", "image/bmp")}


@dataclass
class Copied:
    """A stream of the source and the one that it becomes.

    Attributes:
        source: PyAV stream of the input container.
        output: PyAV stream of the output container.
        convert: turns a packet of the source into packets of the output (None: flush); None copies.
        lost: packets that could not be converted or written.
        count: packets that were handed to the muxer.
        kind: as :func:`stream_kind`; the streams themselves are gone when their containers are closed.
        regroups: muxers or demuxers cut its content into packets as they like.
        name: for the user, as :func:`describe`.
        title: of the source; empty if there is none.
        language: of the source; empty if it is not known.
    """

    source: Any
    output: Any
    convert: Convert | None = None
    lost: int = 0
    count: int = 0
    kind: str = ""
    regroups: bool = False
    name: str = ""
    title: str = ""
    language: str = ""

    def __post_init__(self) -> None:
        self.name, self.title = describe(self.source), title_of(self.source.metadata)
        self.language = self.source.metadata.get("language", "").replace("und", "")
        self.kind = stream_kind(self.source)
        self.regroups = self.convert is None and codec_name(self.source).startswith(("pcm", "hdmv_pgs"))

    def refuse(self) -> None:
        """The muxer did not take the last packet."""
        self.count -= 1
        self.lost += 1


def clean_tags(tags: dict[str, str], container: str) -> dict[str, str]:
    """Metadata without what describes the old file's coding, by the names that the container's muxer knows."""
    kept: dict[str, str] = {}
    for key, value in tags.items():
        name = key.lower()
        if name in STALE_TAGS | BRAND_TAGS or name.startswith(STALE_PREFIXES):
            continue
        if name == "handler_name" and container == "matroska":
            continue
        if name == "language" and container == "mov":
            value = MOV_LANGUAGES.get(value, value)
        if LANGUAGE_MARK.search(name) and tags.get(key[: -len("-eng")]) == value:
            continue
        # Matroska's keys are in capitals; MP4's are not.
        kept[name if key.isupper() and container != "matroska" else key] = value
    return kept


def stream_tags(stream: Any, container: str) -> dict[str, str]:
    """Tags for the counterpart of a stream, its title by the name that muxers know."""
    tags = clean_tags(dict(stream.metadata), container)
    if title := title_of(tags):
        tags.pop("name", None)
        tags["title"] = title
    return tags


def title_of(tags: Mapping[str, str]) -> str:
    """Title of a stream; MOV's demuxer calls it a name."""
    return tags.get("title") or tags.get("name") or ""


def add_streams(
    source: Any, output: Any, main_index: int, container: str, leave_out: frozenset[int], notes: list[str]
) -> list[Copied]:
    """Add a counterpart of every stream of ``source`` but the main one to ``output``.

    Args:
        source: open input container.
        output: output container that has its video stream already and is not started.
        main_index: index of the video stream that is replaced.
        container: muxer name of ``output``.
        leave_out: indices of streams that proved impossible to write.
        notes: gets one line for each stream that is converted or left out.
    """
    copied: list[Copied] = []
    for stream in source.streams:
        if stream.index == main_index or _is_remade(source, stream):
            continue
        refused = f"{CONTAINER_NAMES[container]} cannot hold it"
        if container == "mp4" and codec_name(stream).startswith("pcm"):
            refused = "few players know PCM in MP4"
        if stream.index in leave_out or (is_picture(stream) and container == "mov"):
            notes.append(f"{describe(stream)} is left out: {refused}")
        elif is_picture(stream) and container == "matroska":
            _attach_picture(source, output, stream)
        elif _fits(stream, container):
            copied.append(Copied(stream, _add_copy(output, stream, container)))
        else:
            converted = convert_stream(stream, output, container)
            if converted is None:
                notes.append(f"{describe(stream)} is left out: {refused}")
                continue
            added, convert, name = converted
            _label(added, stream, container)
            copied.append(Copied(stream, added, convert))
            notes.append(f"{describe(stream)} becomes {name}: {refused}")
    return copied


def _attach_picture(source: Any, output: Any, stream: Any) -> None:
    """Matroska keeps cover art as an attachment; a demuxer shows it as a picture stream again."""
    with open_input(path_of(source)) as again:
        payload = next((bytes(p) for p in again.demux(again.streams[stream.index]) if p.size), b"")
    suffix, kind = PICTURE_TYPES.get(codec_name(stream), ("bin", "application/octet-stream"))
    name = stream.metadata.get("filename", f"cover.{suffix}")
    output.add_attachment(name, stream.metadata.get("mimetype", kind), payload)


def describe(stream: Any) -> str:
    """A stream as users know it: ``subtitle stream 3 (hdmv_pgs_subtitle, eng)``."""
    language = stream.metadata.get("language", "")
    codec = codec_name(stream) or _unknown_codec(stream)
    return (
        f"{stream_kind(stream)} stream {stream.index} ({codec}{', ' + language if language not in ('', 'und') else ''})"
    )


def _unknown_codec(stream: Any) -> str:
    """What the header calls a stream that FFmpeg does not know, such as the timed metadata of phones."""
    kind = sample_kind(stream.container, stream.index)
    return SAMPLE_NAMES.get(kind, kind) or "unknown codec"


def _fits(stream: Any, container: str) -> bool:
    """Whether the container takes this stream as it is; found by trying, because nothing else knows."""
    if container == "mp4" and codec_name(stream).startswith("pcm"):
        return False  # FFmpeg writes what few players know
    if container == "mov" and stream.type == "data":
        return False  # FFmpeg writes the track without its sample description
    try:
        with av.open(io.BytesIO(), "w", format=container) as trial:
            _add_copy(trial, stream, container)
            trial.start_encoding()
    except (*DECODE_ERRORS, TypeError):
        return False
    return True


def _add_copy(output: Any, stream: Any, container: str) -> Any:
    copy = output.add_stream_from_template(stream, opaque=True)
    copy.time_base = time_base_of(stream)
    if stream.type == "audio":
        # AVI and WAV count channels without naming them; muxers that write names need the usual ones.
        copy.codec_context.layout = named_layout(copy.codec_context.layout)
    _label(copy, stream, container)
    return copy


def _label(added: Any, stream: Any, container: str) -> None:
    added.metadata.clear()
    added.metadata.update(stream_tags(stream, container))
    added.disposition = disposition_bits(stream)


def _is_remade(source: Any, stream: Any) -> bool:
    """Tracks that the muxer makes itself: MP4's chapters as text, and the time code, which is a tag as well."""
    if stream.type != "data" or "mp4" not in source.format.name:
        return False
    if stream.metadata.get("timecode") and any(
        "timecode" in tags for tags in (source.metadata, *(v.metadata for v in source.streams.video))
    ):
        return True
    return bool(source.chapters()) and codec_name(stream) == "bin_data"


def earliest_packet(source: Any, streams: list[Any]) -> Fraction:
    """Earliest presentation time in seconds among the first packets of these streams."""
    waiting = {stream.index for stream in streams}
    times: list[Fraction] = []
    for count, packet in enumerate(_demux(source, streams, [], None)):
        if packet.size and packet.pts is not None and packet.stream.index in waiting:
            times.append(packet.pts * time_base_of(packet))
            waiting.discard(packet.stream.index)
        if not waiting or count > 500:
            break
    return min(times, default=Fraction(0))


@dataclass(frozen=True)
class Schedule:
    """Which packets of the source's other streams are taken, and when they come.

    Attributes:
        clock: corrections of the times of all streams.
        shift: seconds to add to every time.
        cut: the part that is kept; None for all of it.
        most: packets of the source to look at; None for all of them.
    """

    clock: Clock
    shift: Fraction
    cut: Cut | None = None
    most: int | None = None


def copied_packets(
    source: Any, streams: list[Copied], timing: Schedule, notes: list[str]
) -> Iterator[tuple[Fraction, Any]]:
    """Packets of the copied streams with their time in seconds, in the file's order.

    Damage ends up in ``notes``: what cannot be read or converted is left out.
    """
    shift, cut = timing.shift, timing.cut
    by_index = {item.source.index: item for item in streams}
    timelines = {item.source.index: Timeline(1, round(1 / time_base_of(item.source))) for item in streams}
    reached = Fraction(0)
    opened: set[int] = set()
    for packet in _demux(source, [item.source for item in streams], notes, timing.most):
        item = by_index[packet.stream.index]
        timing.clock.retime(packet)
        unit = time_base_of(packet)
        if cut is not None and item.kind == "picture":
            packet.pts = packet.dts = -round(shift / unit)  # cover art has no time of its own: it stays at zero
        elif cut is not None and not cut.keep(packet, opened):
            continue
        late = (packet.pts - packet.dts) if packet.pts is not None else None
        packet.dts = (timelines[packet.stream.index].place(packet.dts) or 0) + round(shift / unit)
        if late is not None:
            packet.pts = packet.dts + late
        reached = packet.dts * unit
        for made in [packet] if item.convert is None else _converted(item, packet):
            made.stream = item.output
            item.count += 1
            yield reached, made
    for item in streams:
        for made in _converted(item, None) if item.convert is not None else ():
            made.stream = item.output
            item.count += 1
            yield reached, made
        if item.lost:
            notes.append(f"{describe(item.source)} has {plural(item.lost, 'damaged packet')}, left out")


def missing_streams(path: Path, streams: list[Copied]) -> list[str]:
    """One line for each kind of stream of which the written file holds less than the muxer was given.

    Some muxers silently drop what they cannot hold.
    """
    wanted: Counter[str] = Counter()
    for item in streams:
        wanted[item.kind] += min(item.count, 1) if item.regroups else item.count
    found: Counter[str] = Counter()
    with av.open(f"file:{path}", **KEEP_BYTES) as written:
        others = [s for s in written.streams if stream_kind(s) != "video" and s.type != "attachment"]
        for packet in written.demux(others) if others else ():
            if packet.size:
                found[stream_kind(packet.stream)] += 1
    return [
        f"{kind}: {plural(wanted[kind] - found[kind], 'packet')} of {wanted[kind]} could not be written to the file"
        for kind in wanted
        if kind != "video" and found[kind] < wanted[kind]
    ]


def lost_labels(path: Path, streams: list[Copied]) -> list[str]:
    """One line for each title or language of sound or subtitles that the written file lacks."""
    lost: list[str] = []
    with av.open(f"file:{path}", **KEEP_BYTES) as written:
        for kind in ("audio", "subtitle"):
            items = [item for item in streams if item.kind == kind]
            for item, found in zip(items, [s for s in written.streams if s.type == kind], strict=False):
                if item.title and item.title != title_of(found.metadata):
                    lost.append(f"{item.name}: its title could not be written to the file ({item.title})")
                spoken = found.metadata.get("language", "")
                if item.language and spoken not in (item.language, MOV_LANGUAGES.get(item.language)):
                    lost.append(f"{item.name}: its language could not be written to the file")
    return lost


def stream_kind(stream: Any) -> str:
    """``picture`` for cover art, else PyAV's type."""
    return "picture" if is_picture(stream) else str(stream.type)


def _demux(source: Any, streams: list[Any], notes: list[str], most: int | None) -> Iterator[Any]:
    """Packets with a time, up to the end of the file or of what can be read, or among its first ``most``."""
    packets = source.demux(streams) if streams else iter(())
    if most is not None and streams:
        wanted = {stream.index for stream in streams}
        everything = [stream for stream in source.streams if stream.type != "attachment"]
        packets = (p for p in islice(source.demux(everything), most) if p.stream.index in wanted)
    while True:
        try:
            packet = next(packets, None)
        except DECODE_ERRORS as error:
            reason = getattr(error, "strerror", None) or error
            notes.append(f"the other streams end early, because the rest of the file cannot be read ({reason})")
            return
        if packet is None:
            return
        if packet.size and packet.dts is None:
            packet.dts = packet.pts
            if packet.dts is None and is_picture(packet.stream):
                packet.pts = packet.dts = 0
        if packet.size and packet.dts is not None:
            yield packet


def _converted(item: Copied, packet: Any) -> list[Any]:
    assert item.convert is not None
    try:
        return item.convert(packet)
    except DECODE_ERRORS:
        item.lost += 1
        return []


def interleave(video: Iterator[tuple[Fraction, Any]], others: Iterator[tuple[Fraction, Any]]) -> Iterator[Any]:
    """Packets of both in order of time."""
    for _, packet in heapq.merge(video, others, key=lambda pair: pair[0]):
        yield packet
