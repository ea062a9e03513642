"""Audio, subtitles, attachments, chapters and tags come along; what a container cannot hold is converted or named."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from selfhvd_tta.video.compat import disposition_bits, time_base_of
from selfhvd_tta.video.conversion import subtitle_text
from selfhvd_tta.video.probe import probe
from selfhvd_tta.video.streams import Copied, lost_labels, missing_streams
from tests.media import decode_planes, make_clip, packets, sine
from tests.test_video_roundtrip import identity

MS = Fraction(1, 1000)
CUES = [(100, 300, "Hello"), (500, 200, "zweite\nZeile äöü")]
ASS_HEADER = (
    b"[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\nFormat: Name\nStyle: Default\n\n[Events]\nFormat: Text\n"
)
CHAPTERS = [
    {"id": 1, "start": 0, "end": 400, "time_base": MS, "metadata": {"title": "Intro"}},
    {"id": 2, "start": 400, "end": 1000, "time_base": MS, "metadata": {"title": "Rest"}},
]


def cover() -> bytes:
    return bytes(cv2.imencode(".jpg", np.full((32, 32, 3), 90, np.uint8))[1])


def rich_clip(path: Path) -> Path:
    """A Matroska file with everything: two audio tracks, two subtitles, an attachment, cover art, chapters, tags."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height = 64, 48
        german = container.add_stream("aac", rate=48000)
        french = container.add_stream("libopus", rate=48000)
        french.disposition = 8
        plain = container.add_mux_stream("subrip")
        styled = container.add_stream("ass")
        styled.codec_context.subtitle_header = ASS_HEADER
        for stream, language in ((german, "deu"), (french, "fra"), (plain, "eng"), (styled, "spa")):
            stream.metadata["language"] = language
        french.metadata["title"] = "Kommentar"
        plain.time_base = styled.time_base = styled.codec_context.time_base = MS
        container.add_attachment("font.ttf", "application/x-truetype-font", bytes(range(200)))
        container.add_attachment("cover.jpg", "image/jpeg", cover())
        container.set_chapters(CHAPTERS)
        container.metadata.update({"title": "My film", "ARTIST": "Someone", "CUSTOM_KEY": "value 1"})
        for i in range(25):
            frame = av.VideoFrame(64, 48, "yuv420p")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for track in (german, french):
            for block in sine(1):
                block.pts = None
                container.mux(track.encode(block))
            container.mux(track.encode(None))
        for stream, pattern in ((plain, "{}"), (styled, "0,0,Default,,0,0,0,,{{\\i1}}{}")):
            for start, duration, text in CUES:
                text = text.replace("\n", "\\N") if stream is styled else text
                packet = av.Packet(pattern.format(text).encode())
                packet.pts = packet.dts = start
                packet.duration, packet.time_base, packet.stream = duration, MS, stream
                container.mux_one(packet)
    return path


def timed_metadata(folder: Path) -> Path:
    """A MOV file with two tracks of timed metadata, as iPhones write them: text by another name."""
    rich = folder / "rich.mov"
    identity(rich_clip(folder / "rich.mkv"), rich)
    data = re.sub(rb"(?s)(stsd.{12})text", rb"\1mebx", rich.read_bytes().replace(b"mhlrtext", b"mhlrmeta"))
    source = folder / "phone.mov"
    source.write_bytes(data)
    return source


def streams(path: Path) -> list[tuple[str, str, str, int]]:
    """Kind, codec, language and disposition of every stream but data."""
    with av.open(str(path)) as container:
        return [
            (
                s.type,
                s.codec_context.codec.canonical_name if s.codec_context else "",
                s.language or "",
                disposition_bits(s),
            )
            for s in container.streams
            if s.type != "data"
        ]


def cues(path: Path, number: int) -> list[tuple[int, int, str]]:
    """Subtitle track ``number`` as (start ms, duration ms, text)."""
    with av.open(str(path)) as container:
        stream = container.streams.subtitles[number]
        name = stream.codec_context.codec.canonical_name
        found = []
        for packet in container.demux(stream):
            text = subtitle_text(bytes(packet), name) if packet.size else ""
            if text:
                unit = time_base_of(packet) / MS
                found.append((round(packet.pts * unit), round(packet.duration * unit), text))
        return found


def chapters(path: Path) -> list[tuple[Fraction, Fraction, str]]:
    with av.open(str(path)) as container:
        return [
            (c["start"] * time_base_of_chapter(c), c["end"] * time_base_of_chapter(c), c["metadata"]["title"])
            for c in container.chapters()
        ]


def time_base_of_chapter(chapter: Any) -> Fraction:
    return Fraction(chapter["time_base"].numerator, chapter["time_base"].denominator)


def test_everything_survives_in_matroska(tmp_path: Path) -> None:
    source, out = rich_clip(tmp_path / "in.mkv"), tmp_path / "out.mkv"
    assert identity(source, out) == []
    assert streams(out) == streams(source)
    for kind in ("audio", "subtitle"):
        assert packets(out, kind) == packets(source, kind)
    assert chapters(out) == chapters(source) == [(0, Fraction(2, 5), "Intro"), (Fraction(2, 5), 1, "Rest")]
    with av.open(str(source)) as before, av.open(str(out)) as after:
        attachments = [[s.data for s in c.streams if s.type == "attachment"] for c in (before, after)]
        assert attachments[0] == attachments[1] == [bytes(range(200))]
        for key in ("title", "ARTIST", "CUSTOM_KEY"):
            assert after.metadata[key] == before.metadata[key]
        assert after.streams[2].metadata["title"] == "Kommentar"


def test_matroska_to_mp4(tmp_path: Path) -> None:
    source, out = rich_clip(tmp_path / "in.mkv"), tmp_path / "out.mp4"
    notes = identity(source, out)
    assert sorted(notes) == [
        "attachment stream 5 (font.ttf) is left out: MP4 cannot hold it",
        "subtitle stream 3 (subrip, eng) becomes MPEG-4 timed text: MP4 cannot hold it",
        "subtitle stream 4 (ass, spa) becomes MPEG-4 timed text: MP4 cannot hold it",
        "uncommon tags are left out because of the cover art: custom_key",
    ]
    assert [s[:3] for s in streams(out)] == [
        ("video", "h264", "und"),
        ("audio", "aac", "deu"),
        ("audio", "opus", "fra"),
        ("subtitle", "mov_text", "eng"),
        ("subtitle", "mov_text", "spa"),
        ("video", "mjpeg", ""),
    ]
    for before, after in zip(packets(source, "audio"), packets(out, "audio"), strict=True):
        assert [data for *_, data in after] == [data for *_, data in before]
    assert cues(source, 0) == cues(source, 1) == cues(out, 0) == cues(out, 1) == CUES
    assert chapters(out) == chapters(source)
    assert [data for *_, data in packets(out, "video")[1]] == [cover()]
    with av.open(str(out)) as container:
        assert (container.metadata["title"], container.metadata["artist"]) == ("My film", "Someone")


def test_audio_is_converted_where_it_must_be(tmp_path: Path) -> None:
    """MOV holds no Opus: AAC of the same length that starts at the same time and sounds the same."""
    source, out = rich_clip(tmp_path / "in.mkv"), tmp_path / "out.mov"
    notes = identity(source, out)
    assert "audio stream 2 (opus, fra) becomes AAC: MOV cannot hold it" in notes
    assert [s[:3] for s in streams(out)][:3] == [
        ("video", "h264", ""),
        ("audio", "aac", "ger"),
        ("audio", "aac", "fra"),
    ]
    waves = [decode_audio(path, 1) for path in (source, out)]
    (start, before), (again, after) = waves
    assert again == pytest.approx(start, abs=0.03)
    offset = round((again - start) * 48000)
    length = min(len(before) - abs(offset), len(after)) - 4000
    a = before[max(0, offset) + 2000 :][:length]
    b = after[max(0, -offset) + 2000 :][:length]
    assert np.corrcoef(a, b)[0, 1] > 0.99


def decode_audio(path: Path, number: int) -> tuple[float, np.ndarray]:
    """Start in seconds and left channel of an audio track."""
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=number))
        start = float(frames[0].pts * time_base_of(frames[0]))
        return start, np.concatenate([f.to_ndarray()[0] for f in frames])


def test_converted_subtitles_come_back(tmp_path: Path) -> None:
    identity(rich_clip(tmp_path / "in.mkv"), tmp_path / "middle.mp4")
    notes = identity(tmp_path / "middle.mp4", tmp_path / "out.mkv")
    assert any("becomes SubRip" in note for note in notes)
    shift = round(first_time(tmp_path / "out.mkv", "video") / MS)
    assert cues(tmp_path / "out.mkv", 0) == [(start + shift, duration, text) for start, duration, text in CUES]
    assert [data for *_, data in packets(tmp_path / "out.mkv", "video")[1]] == [cover()]


def first_time(path: Path, kind: str) -> Fraction:
    with av.open(str(path)) as container:
        stream = next(s for s in container.streams if s.type == kind)
        return min(p.pts for p in container.demux(stream) if p.size) * time_base_of(stream)


def test_sound_stays_with_the_picture_where_times_must_move(tmp_path: Path) -> None:
    """AAC's priming lies before zero in MP4; Matroska has no such times."""
    source = make_clip(tmp_path / "in.mp4", [512 * i for i in range(30)], audio_seconds=1)
    assert first_time(source, "audio") < 0
    notes = identity(source, tmp_path / "out.mkv")
    assert any("later" in note for note in notes)
    skew = [first_time(p, "audio") - first_time(p, "video") for p in (source, tmp_path / "out.mkv")]
    assert abs(skew[1] - skew[0]) <= MS
    assert first_time(tmp_path / "out.mkv", "audio") >= 0


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_frames_before_zero_are_not_lost(tmp_path: Path, suffix: str) -> None:
    pts = [40 * i - 100 for i in range(12)]
    source = make_clip(tmp_path / "in.mkv", pts, MS, codec="ffv1", muxer={"avoid_negative_ts": "disabled"})
    assert [p for p, _ in decode_planes(source)] == pts
    notes = identity(source, tmp_path / f"out{suffix}")
    assert notes == ["all streams start 0.100 s later, because the container has no negative times"]
    assert [p for p, _ in decode_planes(tmp_path / f"out{suffix}")] == [p + 100 for p in pts]


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_time_code_and_tags(tmp_path: Path, suffix: str) -> None:
    def label(container: Any, _: Any) -> None:
        container.metadata.update(
            {
                "timecode": "01:02:03:04",
                "creation_time": "2024-05-06T07:08:09.000000Z",
                "com.apple.quicktime.make": "Apple",
            }
        )

    source = make_clip(tmp_path / "in.mov", muxer={"movflags": "use_metadata_tags"}, prepare=label)
    assert identity(source, tmp_path / f"out{suffix}") == []
    with av.open(str(source)) as before, av.open(str(tmp_path / f"out{suffix}")) as after:
        for key in ("timecode", "creation_time", "com.apple.quicktime.make"):
            assert after.metadata[key] == before.metadata[key]
        # PyAV 17 does not hand the frame rate on to the muxer, which then writes the tag but no time code track.
        assert len(after.streams) == len(before.streams) or int(av.__version__.split(".")[0]) < 18


def test_pcm_and_avi(tmp_path: Path) -> None:
    source = tmp_path / "in.avi"
    with av.open(str(source), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width, video.height = 64, 48
        tone = container.add_stream("pcm_s16le", rate=48000)
        for i in range(25):
            frame = av.VideoFrame(64, 48, "yuv420p")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        resampler = av.AudioResampler(format="s16", layout="stereo", rate=48000)
        for block in sine(1):
            for piece in resampler.resample(block):
                container.mux(tone.encode(piece))
    for suffix in (".mp4", ".mov", ".mkv"):
        out = tmp_path / f"out{suffix}"
        notes = identity(source, out)
        if suffix == ".mp4":
            assert notes == ["audio stream 1 (pcm_s16le) becomes AAC: few players know PCM in MP4"]
            assert streams(out)[1][1] == "aac"
            continue
        assert notes == []
        sound_in, sound_out = (b"".join(d for *_, d in packets(p, "audio")[0]) for p in (source, out))
        assert sound_in == sound_out
        assert probe(out).frames in (25, None)
        assert len(decode_planes(out)) == 25


def test_what_a_muxer_drops_silently_is_said(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", audio_seconds=0.2)
    with av.open(str(source)) as container:
        sound = Copied(container.streams.audio[0], None, count=len(packets(source, "audio")[0]))
        assert missing_streams(source, [sound]) == []
        sound.count += 3
        text = Copied(container.streams.audio[0], None, count=2)
        text.kind = "subtitle"
        assert missing_streams(source, [sound, text]) == [
            f"audio: 3 packets of {sound.count} could not be written to the file",
            "subtitle: 2 packets of 2 could not be written to the file",
        ]


@pytest.mark.parametrize(("suffix", "name"), [(".mp4", "MP4"), (".mov", "MOV"), (".mkv", "Matroska")])
def test_timed_metadata_is_left_out_whole(suffix: str, name: str, tmp_path: Path) -> None:
    out = tmp_path / f"out{suffix}"
    notes = identity(timed_metadata(tmp_path), out)
    for number, language in ((3, "eng"), (4, "spa")):
        line = f"data stream {number} (timed metadata, mebx, {language}) is left out: {name} cannot hold it"
        assert line in notes
    assert not any("titles" in note or "language" in note for note in notes)
    with av.open(str(out)) as container:
        kinds = [s.type for s in container.streams]
        chapters_only = [s for s in container.streams if s.type == "data"]
        assert len(chapters_only) <= 1
        assert chapters_only == [] or container.chapters()
    assert kinds[:3] == ["video", "audio", "audio"]


def test_titles_and_languages_that_a_muxer_drops_are_said(tmp_path: Path) -> None:
    source = rich_clip(tmp_path / "in.mkv")
    with av.open(str(source)) as container:
        sound = [Copied(stream, None) for stream in container.streams.audio]
        assert lost_labels(source, sound) == []
        sound[0].title, sound[1].language = "Erzähler", "spa"
        assert lost_labels(source, sound) == [
            "audio stream 1 (aac, deu): its title could not be written to the file (Erzähler)",
            "audio stream 2 (opus, fra): its language could not be written to the file",
        ]
