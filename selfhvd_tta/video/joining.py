"""The final file: the coded video with its frame times, muxed with everything else that the source holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import av
import av.error

from selfhvd_tta.video.color import LEFT
from selfhvd_tta.video.compat import KEEP_BYTES, as_fraction, disposition_bits
from selfhvd_tta.video.cropping import CROP, Crop, visible_crop, with_crop
from selfhvd_tta.video.headers import unread
from selfhvd_tta.video.probe import VideoInfo
from selfhvd_tta.video.segments import CodedPacket
from selfhvd_tta.video.siting import SITING, chroma_location
from selfhvd_tta.video.source import open_input
from selfhvd_tta.video.span import Cut
from selfhvd_tta.video.streams import (
    Copied,
    Schedule,
    add_streams,
    clean_tags,
    copied_packets,
    interleave,
    lost_labels,
    missing_streams,
    stream_tags,
)
from selfhvd_tta.video.target import DISK_ERRNOS, disk_errors
from selfhvd_tta.video.timing import needed_shift, output_time_base, output_times

# What FFmpeg's MP4 muxer writes by itself; other keys need its "mdta" form.
MP4_TAGS = frozenset({
    "title", "artist", "album_artist", "composer", "album", "date", "comment", "genre", "copyright", "grouping",
    "lyrics", "description", "synopsis", "show", "episode_id", "network", "keywords", "creation_time", "track", "disc",
    "year", "sort_name", "location", "timecode",
})  # fmt: skip
CONTAINER_DEMUXERS = {"mp4": "mov,mp4", "mov": "mov,mp4", "matroska": "matroska,webm"}
# Packets of the source that a trial looks at: enough for the first one of each stream in files that interleave well.
SAMPLE = 300
# Kinds of streams that are left out, one by one, when a muxer accepts their headers but not their packets.
EXPENDABLE = ("data", "attachment", "subtitle", "picture")


class CodedVideo(Protocol):
    """A video stream that is encoded already.

    Attributes:
        pts: presentation times of its frames in the source's time base, in order.
        rate: nominal frames per second.
        codec: ``h264``, ``hevc`` and so on.
    """

    @property
    def pts(self) -> list[int]: ...
    @property
    def rate(self) -> Fraction: ...
    @property
    def codec(self) -> str: ...
    def template(self) -> AbstractContextManager[Any]:
        """A PyAV stream with its parameters."""

    def packets(self) -> Iterator[CodedPacket]:
        """Its packets in decoding order, as often as asked for."""


@dataclass(frozen=True)
class FinalFile:
    """What the final file is made of.

    Attributes:
        video: the coded video.
        info: of the source, whose other streams, chapters and metadata are copied.
        container: muxer name.
        path: where to write it, replaced if it exists.
        faststart: MP4's index in front.
        sample: take only the first packets of the other streams, for a trial before the work.
    """

    video: CodedVideo
    info: VideoInfo
    container: str
    path: Path
    faststart: bool
    sample: bool = False


def join(final: FinalFile, notes: list[str]) -> Fraction:
    """Write the final file.

    Args:
        final: what and where.
        notes: gets one line for each thing that had to be converted or left out.

    Returns:
        Seconds by which all times were moved, see :func:`needed_shift`.

    Raises:
        DiskError: it cannot be written.
        UsageError: this kind of file cannot hold the video.
        InputError: the source cannot be read any more.
    """
    info = final.info
    shift = needed_shift(final.video.pts[0], info, final.container)
    expendable = [kind for kind in EXPENDABLE if any(other.kind == kind for other in info.others)]
    left_out: frozenset[int] = frozenset()
    while True:
        said: list[str] = []
        try:
            with disk_errors(final.path) if not expendable else ExitStack():
                copies = _write(final, shift, left_out, said)
                said += [] if final.sample else missing_streams(final.path, copies)
                said += _lost_of_header(info, final.container, final.path) + lost_labels(final.path, copies)
        except av.error.FFmpegError as error:
            if error.errno in DISK_ERRNOS:
                with disk_errors(final.path):
                    raise
            kind = expendable.pop(0)
            left_out |= {other.index for other in info.others if other.kind == kind}
            continue
        break
    if final.sample or info.span is not None:
        pass  # the first frame's time is not known yet, or a part begins at zero anyway
    elif shift > 0:
        notes.append(f"all streams start {float(shift):.3f} s later, because the container has no negative times")
    elif shift:
        notes.append(f"all streams start {-float(shift):.3f} s earlier, so that the first one starts at zero")
    notes += said
    return shift


def _crop_of(info: VideoInfo) -> Crop | None:
    return visible_crop(info.path, info.container, info.stream_index, info.width, info.height)


def _lost_of_header(info: VideoInfo, container: str, out: Path) -> list[str]:
    """One line for each thing that the source's header holds and the written file's does not."""
    if not info.path.is_file():
        return []
    lines = [f"left out: {words}" for words in unread(info.path, info.container)]
    crop = _crop_of(info)
    if crop is not None and visible_crop(out, CONTAINER_DEMUXERS[container], 0, info.width, info.height) != crop:
        lines.append(f"left out: {CROP}")
    with open_input(info.path) as source, av.open(f"file:{out}", **KEEP_BYTES) as written:
        wanted = clean_tags(dict(source.metadata), container)
        stereo = "stereo_mode" in source.streams[info.stream_index].metadata
        found = {key.lower() for stream in (written, *written.streams) for key in stream.metadata}
    # Tags displaced by cover art are reported when the muxer is set up, and a part has no time code.
    art = container != "matroska" and any(other.kind == "picture" for other in info.others)
    names = {key for key in wanted if not art or key.lower() in MP4_TAGS}
    lost = sorted(key for key in names if key.lower() not in found and key.lower() != "timecode")
    if lost:
        lines.append(f"tags that could not be written to the file: {', '.join(lost)}")
    # Left is what every decoder assumes.
    if info.layout.sub_y and info.chroma_location > LEFT and chroma_location(out, 0) != info.chroma_location:
        lines.append(f"left out: {SITING}")
    if stereo and container != "matroska":
        lines.append("left out: stereoscopic tags")
    return lines


def _write(final: FinalFile, shift: Fraction, left_out: frozenset[int], notes: list[str]) -> list[Copied]:
    video, info, container = final.video, final.info, final.container
    unit = output_time_base(info, container)
    times = output_times(video.pts, info, container, shift)
    with ExitStack() as stack:
        template = stack.enter_context(video.template())
        source = stack.enter_context(open_input(info.path)) if info.path.is_file() else None
        if source is not None and (crop := _crop_of(info)) is not None:
            template = stack.enter_context(with_crop(template, crop))
        cut = None
        if info.span is not None:
            cut = Cut(video.pts[0] * info.time_base, info.span.stop)
        tags = clean_tags(dict(source.metadata), container) if source else {}
        if cut is not None and source is not None and _drop_time_code(tags, source):
            notes.append("the time code is left out, because it is that of the file's first frame")
        options = _muxer_options(info, container, final.faststart, times[0], tags, notes)
        output = stack.enter_context(
            av.open(f"file:{final.path}", "w", format=container, container_options=options, **KEEP_BYTES)
        )
        output.metadata.update(tags)
        stream = _add_video(output, template, video, info, container, source)
        others: Iterator[tuple[Fraction, Any]] = iter(())
        copies: list[Copied] = []
        if source is not None:
            copies = add_streams(source, output, info.stream_index, container, left_out, notes)
            _copy_chapters(source, output, shift, cut)
            timing = Schedule(info.clock, shift, cut, SAMPLE if final.sample else None)
            others = copied_packets(source, copies, timing, [] if final.sample else notes)
        last = max(1, round(_last_duration(source, video, info) / unit))
        for packet in interleave(_video_packets(video, stream, times, unit, last), others):
            try:
                output.mux_one(packet)
            except (av.error.InvalidDataError, av.error.PatchWelcomeError):
                # Muxers look into packets of sound, and refuse damaged ones.
                item = next((item for item in copies if item.output.index == packet.stream.index), None)
                if item is None or item.kind != "audio":
                    raise
                item.refuse()
    return copies


def _muxer_options(
    info: VideoInfo, container: str, faststart: bool, start: int, tags: dict[str, str], notes: list[str]
) -> dict[str, str]:
    # Without random identifiers and version strings the same input gives the same bytes.
    options = {"fflags": "+bitexact"}
    if container == "matroska":
        return options
    flags = ["faststart"] if faststart else []
    unknown = sorted(key for key in tags if key.lower() not in MP4_TAGS)
    if unknown and any(other.kind == "picture" for other in info.others):
        notes.append(f"uncommon tags are left out because of the cover art: {', '.join(unknown)}")
    elif unknown:
        flags.append("use_metadata_tags")
    options["movflags"] = "+".join(flags) or "0"
    scale = info.time_base.denominator
    options["video_track_timescale"] = str(scale)
    # A late start is an edit in the movie's own unit, milliseconds by default: too coarse for most frame times.
    if start * 1000 % scale:
        options["movie_timescale"] = str(scale)
    return options


def _add_video(output: Any, template: Any, video: CodedVideo, info: VideoInfo, container: str, source: Any) -> Any:
    stream = output.add_stream_from_template(template, opaque=True)
    stream.time_base = output_time_base(info, container)
    stream.codec_context.framerate = video.rate
    if video.codec == "hevc" and container != "matroska":
        stream.codec_context.codec_tag = "hvc1"  # the tag that Apple's players want
    if info.sar is not None:
        stream.codec_context.sample_aspect_ratio = info.sar
    if info.display_matrix is not None:
        stream.set_display_matrix(info.display_matrix)
    stream.metadata.clear()
    if source is not None:
        original = source.streams[info.stream_index]
        tags = stream_tags(original, container)
        if info.span is not None:
            tags.pop("timecode", None)
        stream.metadata.update(tags)
        stream.disposition = disposition_bits(original)
    return stream


def _drop_time_code(tags: dict[str, str], source: Any) -> bool:
    """Whether there is one; removes it from the tags."""
    found = [key for key in tags if key.lower() == "timecode"]
    for key in found:
        del tags[key]
    return bool(found) or any("timecode" in stream.metadata for stream in source.streams)


def _copy_chapters(source: Any, output: Any, shift: Fraction, cut: Cut | None) -> None:
    chapters = source.chapters()
    if cut is not None:
        chapters = list(cut.chapters(chapters))
    for chapter in chapters:
        ticks = round(shift / (as_fraction(chapter["time_base"]) or Fraction(1, 1000)))
        chapter["start"] += ticks
        chapter["end"] += ticks
    if chapters:
        output.set_chapters(chapters)


def _last_duration(source: Any, video: CodedVideo, info: VideoInfo) -> Fraction:
    """Seconds that the last frame is shown: what the source's stream says, if that is plausible, else one frame."""
    step = 1 / video.rate
    original = source.streams[info.stream_index] if source is not None else None
    if info.span is not None and info.span.stop is not None:
        return min(step, max(step / 2, info.span.stop - video.pts[-1] * info.time_base))
    if original is None or not original.duration:
        return step
    end = ((original.start_time or 0) + original.duration) * info.time_base
    rest = end - video.pts[-1] * info.time_base
    return rest if 0 < rest < 60 * step else step


def _video_packets(
    video: CodedVideo, stream: Any, times: list[int], unit: Fraction, last: int
) -> Iterator[tuple[Fraction, Any]]:
    """The joined stream's packets with their decoding time in seconds.

    Decoding times are the presentation times, delayed by as many frames as the deepest reordering needs. That keeps
    them increasing across segment borders and below the presentation times, for any spacing of the frames.
    """
    delay = max((order - coded.frame for order, coded in enumerate(video.packets())), default=0)
    step = max(1, round(1 / (video.rate * unit)))
    if times[0] > 0:
        # If the picture starts late, FFmpeg's MP4 reader misplaces it when decoding times are negative.
        step = max(1, min(step, times[0] // (delay + 1)))
    for order, coded in enumerate(video.packets()):
        packet, frame = coded.packet, coded.frame
        packet.time_base = unit
        packet.pts = times[frame]
        packet.dts = times[order - delay] if order >= delay else times[0] - (delay - order) * step
        packet.duration = times[frame + 1] - times[frame] if frame + 1 < len(times) else last
        packet.stream = stream
        yield packet.dts * unit, packet
