"""The final file: segments joined, given their times, and muxed with everything else that the source holds."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import ceil, lcm
from pathlib import Path
from typing import Any

import av

from selfhvd_tta.video.compat import KEEP_BYTES, disposition_bits, time_base_of
from selfhvd_tta.video.probe import VideoInfo, open_input
from selfhvd_tta.video.segments import SegmentStore
from selfhvd_tta.video.streams import add_streams, clean_tags, copied_packets, interleave
from selfhvd_tta.video.target import disk_errors

# What FFmpeg's MP4 muxer writes by itself; other keys need its "mdta" form.
MP4_TAGS = frozenset({
    "title", "artist", "album_artist", "composer", "album", "date", "comment", "genre", "copyright", "grouping",
    "lyrics", "description", "synopsis", "show", "episode_id", "network", "keywords", "creation_time", "track", "disc",
    "year", "sort_name", "location",
})  # fmt: skip
MILLISECOND = Fraction(1, 1000)


def output_time_base(info: VideoInfo, container: str) -> Fraction:
    """Unit of time of the video stream in the output: the source's, as far as the container can state it."""
    if container == "matroska":
        return MILLISECOND
    return Fraction(1, info.time_base.denominator)


def output_times(pts: list[int], info: VideoInfo, container: str, shift: Fraction) -> list[int]:
    """Presentation times in units of :func:`output_time_base`."""
    unit = output_time_base(info, container)
    return [round((p * info.time_base + shift) / unit) for p in pts]


def needed_shift(pts: list[int], info: VideoInfo, container: str, notes: list[str]) -> Fraction:
    """Seconds by which all streams have to move, because the container cannot hold what comes before zero.

    MP4 would hide frames before zero (an edit list starts there), Matroska has no negative times for any stream.
    """
    start = pts[0] * info.time_base
    if container == "matroska":
        start = min(start, _earliest_of_others(info))
    if start >= 0:
        return Fraction(0)
    unit = lcm(1000, info.time_base.denominator) if container != "matroska" else 1000
    shift = Fraction(ceil(-start * unit), unit)
    notes.append(f"all streams start {float(shift):.3f} s later, because the container has no negative times")
    return shift


def _earliest_of_others(info: VideoInfo) -> Fraction:
    starts = [Fraction(0)]
    if info.others:
        with open_input(info.path) as source:
            for stream in source.streams:
                if stream.index != info.stream_index and stream.start_time is not None and stream.type == "audio":
                    starts.append(stream.start_time * time_base_of(stream))
    return min(starts)


def join(
    store: SegmentStore, info: VideoInfo, container: str, out: Path, faststart: bool, notes: list[str]
) -> Fraction:
    """Write the final file.

    Args:
        store: finished segments.
        info: of the source, whose other streams, chapters and metadata are taken along.
        container: muxer name.
        out: path to write, replaced if it exists.
        faststart: MP4's index in front.
        notes: gets one line for each thing that had to be converted or left out.

    Returns:
        Seconds by which all times were moved; zero but for negative ones.

    Raises:
        DiskError: it cannot be written.
        InputError: the source cannot be read any more.
    """
    pts = store.pts
    shift = needed_shift(pts, info, container, notes)
    times = output_times(pts, info, container, shift)
    source = open_input(info.path) if info.path.is_file() else None
    try:
        with disk_errors(out), store.open_first() as first:
            tags = clean_tags(dict(source.metadata)) if source else {}
            options = _muxer_options(info, container, faststart, times[0], tags)
            with av.open(str(out), "w", format=container, container_options=options, **KEEP_BYTES) as output:
                output.metadata.update(tags)
                stream = _add_video(output, first.streams.video[0], store, info, container, source)
                copies = add_streams(source, output, info.stream_index, container, notes) if source else []
                _copy_chapters(source, output, shift, notes)
                unit = output_time_base(info, container)
                last = max(1, round(_last_duration(source, store, info) / unit))
                video = _video_packets(store, stream, times, unit, last)
                others = copied_packets(source, copies, shift) if source else iter(())
                for packet in interleave(video, others):
                    output.mux_one(packet)
    finally:
        if source is not None:
            source.close()
    return shift


def _muxer_options(
    info: VideoInfo, container: str, faststart: bool, start: int, tags: dict[str, str]
) -> dict[str, str]:
    options = {"fflags": "+bitexact"}
    if container == "matroska":
        return options
    scale = info.time_base.denominator
    flags = ["faststart"] if faststart else []
    if any(key not in MP4_TAGS for key in tags):
        flags.append("use_metadata_tags")
    options["movflags"] = "+".join(flags) or "0"
    options["video_track_timescale"] = str(scale)
    # A late start is an edit counted in the movie's own unit, milliseconds by default: too coarse for most frame times.
    if start * 1000 % scale:
        options["movie_timescale"] = str(scale)
    return options


def _add_video(output: Any, template: Any, store: SegmentStore, info: VideoInfo, container: str, source: Any) -> Any:
    stream = output.add_stream_from_template(template, opaque=True)
    stream.time_base = output_time_base(info, container)
    stream.codec_context.framerate = store.encoding.rate
    if store.encoding.codec == "hevc" and container != "matroska":
        stream.codec_context.codec_tag = "hvc1"  # the tag that Apple's players want
    if info.sar is not None:
        stream.codec_context.sample_aspect_ratio = info.sar
    if info.display_matrix is not None:
        stream.set_display_matrix(info.display_matrix)
    stream.metadata.clear()
    if source is not None:
        original = source.streams[info.stream_index]
        stream.metadata.update(clean_tags(dict(original.metadata)))
        stream.disposition = disposition_bits(original)
    return stream


def _copy_chapters(source: Any, output: Any, shift: Fraction, notes: list[str]) -> None:
    chapters = source.chapters() if source is not None and hasattr(source, "chapters") else []
    if not chapters:
        return
    for chapter in chapters:
        ticks = round(shift / Fraction(chapter["time_base"].numerator, chapter["time_base"].denominator))
        chapter["start"] += ticks
        chapter["end"] += ticks
    output.set_chapters(chapters)


def _last_duration(source: Any, store: SegmentStore, info: VideoInfo) -> Fraction:
    """Seconds that the last frame is shown: what the source's stream says, if that is plausible, else one frame."""
    step = 1 / store.encoding.rate
    if source is None:
        return step
    original = source.streams[info.stream_index]
    if not original.duration:
        return step
    end = ((original.start_time or 0) + original.duration) * info.time_base
    rest = end - store.pts[-1] * info.time_base
    return rest if 0 < rest < 60 * step else step


def _video_packets(
    store: SegmentStore, stream: Any, times: list[int], unit: Fraction, last: int
) -> Iterator[tuple[Fraction, Any]]:
    """The joined stream's packets with their decoding time in seconds.

    Decoding times are the presentation times, delayed by as many frames as the deepest reordering needs. That keeps
    them increasing across segment borders and below the presentation times, for any spacing of the frames.
    """
    delay = max((order - coded.frame for order, coded in enumerate(store.packets())), default=0)
    step = max(1, round(1 / (store.encoding.rate * unit)))
    for order, coded in enumerate(store.packets()):
        packet, frame = coded.packet, coded.frame
        packet.time_base = unit
        packet.pts = times[frame]
        packet.dts = times[order - delay] if order >= delay else times[0] - (delay - order) * step
        packet.duration = times[frame + 1] - times[frame] if frame + 1 < len(times) else last
        packet.stream = stream
        yield packet.dts * unit, packet
