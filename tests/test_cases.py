"""Small files of the kinds that phones, cameras and recorders make, each with what is right for it."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest
from typer.testing import CliRunner

from selfhvd_tta import deblur, inspect
from selfhvd_tta.cli import app
from selfhvd_tta.errors import InputError
from selfhvd_tta.events import Event, Note, ignore
from selfhvd_tta.run.scan import scan
from selfhvd_tta.settings import ClueSettings, OutputSettings, RuntimeSettings, Settings
from selfhvd_tta.times import TimeRange
from selfhvd_tta.video.compat import time_base_of
from selfhvd_tta.video.cropping import visible_crop
from selfhvd_tta.video.headers import unread
from selfhvd_tta.video.opening import open_reader
from selfhvd_tta.video.passthrough import pass_through
from selfhvd_tta.video.reader import VideoReader
from selfhvd_tta.video.writer import VideoWriter
from tests.conftest import shared_path
from tests.media import make_clip, sine, with_user_data

SOUNDS = ("pcm_u8", "pcm_s16le", "pcm_mulaw", "pcm_alaw", "adpcm_ms", "adpcm_ima_wav")
OUTPUTS = (".mp4", ".mov", ".mkv")
PTS = Fraction(1, 90000)
PTS_MKV = Fraction(1, 1000)


@dataclass(frozen=True)
class Written:
    """A file that was written, and what was said."""

    path: Path
    frames: int
    warnings: list[str]
    notes: list[str]

    def times(self, kind: str) -> list[tuple[Fraction, Fraction]]:
        """Start and end of the packets of all streams of a kind, in seconds, in order."""
        with av.open(str(self.path)) as container:
            streams = [s for s in container.streams if s.type == kind]
            found = [
                (p.pts * time_base_of(p), (p.pts + p.duration) * time_base_of(p))
                for p in (container.demux(streams) if streams else ())
                if p.size
            ]
        return sorted(found)


def case(name: str) -> Path:
    return shared_path(f"cases/{name}")


def written(source: Path, out: Path, part: TimeRange | None = None, **settings: Any) -> Written:
    """Read and write with the default coding tools, B-frames among them, as a restoration does."""
    reader = VideoReader(source, part)
    count = sum(1 for _ in reader.luma())
    with VideoWriter(out, reader.info, OutputSettings(**({"preset": "veryfast"} | settings))) as writer:
        for frame in reader:
            writer.write(frame.rgb, frame.pts)
    return Written(out, count, reader.warnings, writer.notes)


def passed_through(source: Path, out: Path) -> Written:
    reader = open_reader(source)
    count = len(reader.pts)
    notes = pass_through(reader, out, OutputSettings()).notes
    return Written(out, count, reader.warnings, notes)


def joined(path: Path, *starts: float, length: int = 30) -> Path:
    """Transport streams with sound, each on a clock that starts at its own time, one after the other."""
    parts = []
    for number, start in enumerate(starts):
        part = path.with_name(f"{number}-{path.name}")
        times = [round(start / PTS) + 3000 * i for i in range(length)]
        make_clip(part, times, PTS, audio_seconds=length / 30, audio_start=start, muxer={"muxdelay": "0"})
        parts.append(part.read_bytes())
    path.write_bytes(b"".join(parts))
    return path


def parts_of(source: Path) -> list[tuple[int, int, Fraction]]:
    """For each part of joined recordings: its first picture and first sound packet, and how much later that comes."""
    starts: dict[str, list[tuple[int, Fraction]]] = {"video": [], "audio": []}
    last: dict[str, Fraction] = {}
    count = dict.fromkeys(starts, 0)
    with av.open(str(source)) as container:
        for packet in container.demux(container.streams.video[0], container.streams.audio[0]):
            if not packet.size:
                continue
            kind, now = packet.stream.type, packet.dts * time_base_of(packet)
            if kind not in last or not 0 < now - last[kind] < 10:
                starts[kind].append((count[kind], packet.pts * time_base_of(packet)))
            last[kind], count[kind] = now, count[kind] + 1
    pairs = zip(starts["video"], starts["audio"], strict=True)
    return [(v, a, sound - picture) for (v, picture), (a, sound) in pairs]


def check_sync(source: Path, result: Written, frames: int) -> None:
    """The picture is complete and steady, the file starts at zero, and sound is in time in each part of the source."""
    video, audio = result.times("video"), result.times("audio")
    assert result.frames == len(video) == frames
    packet = audio[0][1] - audio[0][0]
    gaps = [b[0] - a[0] for a, b in pairwise(video)]
    assert min(gaps) > Fraction(1, 100)
    assert max(gaps) < Fraction(1, 30) + 2 * packet
    assert all(b[0] > a[0] for a, b in pairwise(audio))
    assert 0 <= min(audio[0][0], video[0][0]) <= Fraction(1, 1000)
    for picture, sound, later in parts_of(source):
        assert abs(audio[sound][0] - video[picture][0] - later) <= Fraction(2, 1000)


class TestClock:
    @pytest.mark.parametrize("suffix", OUTPUTS)
    @pytest.mark.parametrize("name", ["joined.ts", "joined2.ts"])
    def test_joined_recordings(self, tmp_path: Path, name: str, suffix: str) -> None:
        result = written(case(name), tmp_path / f"out{suffix}")
        check_sync(case(name), result, 60)
        assert result.warnings == ["the clock of the file jumps 1 time; all streams continue without a gap"]

    @pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
    @pytest.mark.parametrize(
        "starts",
        [(0.5, 0.5), (1.4, 1.2), (5, 20000), (36000, 1.4, 60), (0.9, 1.7), (50, 3, 50)],
        ids=["again", "a little back", "far ahead", "three", "overlapping", "there and back"],
    )
    def test_any_jump(self, tmp_path: Path, starts: tuple[float, ...], suffix: str) -> None:
        source = joined(tmp_path / "in.ts", *starts, length=40)
        result = written(source, tmp_path / f"out{suffix}")
        check_sync(source, result, 40 * len(starts))
        again = passed_through(source, tmp_path / f"passed{suffix}")
        check_sync(source, again, 40 * len(starts))

    def test_a_pause_of_the_recording_stays(self, tmp_path: Path) -> None:
        result = written(joined(tmp_path / "in.ts", 1, 5), tmp_path / "out.mp4")
        assert not [line for line in result.warnings if "clock" in line]
        assert max(b[0] - a[0] for a, b in pairwise(result.times("video"))) > 2

    def test_one_wrong_time_is_no_jump(self, tmp_path: Path) -> None:
        plain = make_clip(tmp_path / "plain.ts", [90000 + 3000 * i for i in range(30)], PTS, options={"bf": "0"})
        with av.open(str(plain)) as before, av.open(str(tmp_path / "in.ts"), "w") as after:
            stream = after.add_stream_from_template(before.streams.video[0])
            for number, packet in enumerate(p for p in before.demux(video=0) if p.size):
                if number == 12:
                    packet.pts = packet.dts = packet.pts + 9_000_000
                packet.stream = stream
                # A muxer refuses times that fall, so the later ones are in a file of their own.
                if number <= 12:
                    after.mux_one(packet)
        late = tmp_path / "late.ts"
        with av.open(str(plain)) as before, av.open(str(late), "w") as after:
            stream = after.add_stream_from_template(before.streams.video[0])
            for number, packet in enumerate(p for p in before.demux(video=0) if p.size):
                if number > 12:
                    packet.stream = stream
                    after.mux_one(packet)
        with (tmp_path / "in.ts").open("ab") as file:
            file.write(late.read_bytes())
        assert VideoReader(tmp_path / "in.ts").info.clock.starts == ()

    def test_a_part_of_joined_recordings(self, tmp_path: Path) -> None:
        result = written(case("joined2.ts"), tmp_path / "out.mp4", TimeRange(Fraction(3, 2), Fraction(3)))
        assert (result.frames, len(result.times("video"))) == (22, 22)
        assert not [line for line in result.warnings if "missing" in line]

    @pytest.mark.parametrize("suffix", OUTPUTS)
    def test_a_late_clock_starts_at_zero(self, tmp_path: Path, suffix: str) -> None:
        result = written(case("ts10h.ts"), tmp_path / f"out{suffix}")
        check_sync(case("ts10h.ts"), result, 18)
        assert any("36001.37" in note and "earlier" in note for note in result.notes)
        skew = result.times("video")[0][0] - result.times("audio")[0][0]
        assert abs(skew - Fraction(1920, 90000)) <= Fraction(1, 1000)
        check_sync(case("ts10h.ts"), passed_through(case("ts10h.ts"), tmp_path / f"passed{suffix}"), 18)

    @pytest.mark.parametrize("suffix", OUTPUTS)
    @pytest.mark.parametrize("name", ["vfr_start_1.mp4", "dup.mkv"])
    def test_irregular_times_from_a_late_start(self, tmp_path: Path, name: str, suffix: str) -> None:
        result = written(case(name), tmp_path / f"out{suffix}")
        assert result.times("video")[0][0] == pytest.approx(0.021, abs=1e-3)

    @pytest.mark.parametrize("suffix", OUTPUTS)
    def test_irregular_times_with_reordered_pictures(self, tmp_path: Path, suffix: str) -> None:
        times = [21, 23, 95, 47, 149, 131, 168, 301, 219, 212, 275, 314]
        options = {"bf": "3", "b-adapt": "0", "crf": "30"}
        source = make_clip(tmp_path / "in.mkv", sorted(times), Fraction(1, 1000), options=options)
        result = written(source, tmp_path / f"out{suffix}")
        start = 21 if suffix == ".mkv" else 0
        assert [round(1000 * a) for a, _ in result.times("video")] == [t - 21 + start for t in sorted(times)]

    def test_an_open_group_that_was_cut(self, tmp_path: Path) -> None:
        result = written(case("og_cut.ts"), tmp_path / "out.mp4")
        assert result.warnings == ["2 frames before the first complete picture cannot be decoded"]


class TestSound:
    @pytest.mark.parametrize("suffix", OUTPUTS)
    @pytest.mark.parametrize("name", ["p.wmv", "a_pcm_u8.avi", "a_adpcm_ima_wav.avi", "a_pcm_s24le.mkv"])
    def test_sound_that_has_to_be_converted(self, tmp_path: Path, name: str, suffix: str) -> None:
        result = written(case(name), tmp_path / f"out{suffix}")
        assert result.times("audio")[-1][1] == pytest.approx(result.times("video")[-1][1], abs=0.1)

    @pytest.mark.parametrize("codec", SOUNDS)
    def test_unnamed_layouts(self, tmp_path: Path, codec: str) -> None:
        source = sounding(tmp_path / "in.avi", codec)
        for suffix in OUTPUTS:
            result = written(source, tmp_path / f"out{suffix}")
            with av.open(str(result.path)) as container:
                heard = sum(frame.samples for frame in container.decode(audio=0))
                name = container.streams.audio[0].codec_context.name
            assert heard == pytest.approx(22050, abs=2100)
            if suffix == ".mp4":
                assert name == "aac"
                assert any("becomes AAC" in note for note in result.notes)


def sounding(path: Path, codec: str) -> Path:
    """A second of picture and of mono sound in a file that counts channels without naming them."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mjpeg", rate=30)
        video.width, video.height, video.pix_fmt = 64, 48, "yuvj420p"
        tone = container.add_stream(codec, rate=22050, layout="mono")
        tone.codec_context.open()
        for number in range(30):
            frame = av.VideoFrame(64, 48, "yuvj420p")
            frame.pts, frame.time_base = number, Fraction(1, 30)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        size = tone.codec_context.frame_size or 1024
        resampler = av.AudioResampler(tone.codec_context.format.name, "mono", 22050, size)
        for block in sine(1):
            for piece in resampler.resample(block):
                container.mux(tone.encode(piece))
        container.mux(tone.encode(None))
    return path


class TestInput:
    @pytest.mark.parametrize("name", ["clip:1.mp4", "http:x.mp4", "C:clip.mp4"])
    def test_a_colon_is_part_of_a_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.chdir(tmp_path)
        make_clip(tmp_path / "plain.mp4").rename(name)
        assert written(Path(name), Path(f"sharp:{name}")).frames == 8

    @pytest.mark.parametrize("name", ["http://host/a.mp4", "rtsp://host/stream"])
    def test_an_address_has_to_be_downloaded(self, name: str) -> None:
        with pytest.raises(InputError, match="is an address") as caught:
            open_reader(Path(name))
        assert "Download" in caught.value.hint

    def test_pipes_are_refused_at_once(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        for name in (tmp_path / "pipe", Path("-"), Path("/dev/zero")):
            with pytest.raises(InputError, match="is a stream"):
                open_reader(name)

    @pytest.mark.parametrize(("kind", "words"), [("encv", "is encrypted"), ("zz9p", "of the codec zz9p, which FFmpeg")])
    def test_what_cannot_be_decoded_is_named(self, kind: str, words: str, tmp_path: Path) -> None:
        data = make_clip(tmp_path / "plain.mp4").read_bytes()
        (tmp_path / "in.mp4").write_bytes(data.replace(b"avc1\0\0\0", kind.encode() + b"\0\0\0"))
        with pytest.raises(InputError, match=words):
            open_reader(tmp_path / "in.mp4")

    @pytest.mark.parametrize(("name", "words"), [("unknownv.mp4", "of the codec"), ("encv.mp4", "is encrypted")])
    def test_what_cannot_be_decoded_is_named_in_the_cases(self, name: str, words: str) -> None:
        with pytest.raises(InputError, match=words):
            open_reader(case(name))

    def test_the_larger_of_two_pictures_is_restored(self, tmp_path: Path) -> None:
        info = open_reader(case("lowfirst_both.mp4")).info
        with av.open(str(info.path)) as container:
            sizes = [s.width * s.height for s in container.streams.video]
        assert info.width * info.height == max(sizes) > min(sizes)

    def test_a_tiny_picture(self) -> None:
        with pytest.raises(InputError, match="2x2 pixels are too few"):
            scan(open_reader(case("s_2x2.mkv")), ClueSettings(), ignore)

    def test_lists_of_files_are_not_followed(self, tmp_path: Path) -> None:
        target = make_clip(tmp_path / "secret.ts", [3000 * i for i in range(8)], PTS)
        lists = {
            "a.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n",
            "b.mp4": f"ffconcat version 1.0\nfile '{target.name}'\n",
            "c.mp4": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
        }
        for name, text in lists.items():
            (tmp_path / name).write_text(text)
            with pytest.raises(InputError, match="is a list of other files"):
                open_reader(tmp_path / name)

    def test_every_frame_has_its_own_range(self, tmp_path: Path) -> None:
        limited = make_clip(tmp_path / "a.ts", [3000 * i for i in range(8)], PTS, color=(1, 1, 1, 1))
        full = make_clip(tmp_path / "b.ts", [3000 * i for i in range(8)], PTS, color=(1, 2, 1, 1))
        (tmp_path / "in.ts").write_bytes(limited.read_bytes() + full.read_bytes())
        whole = [frame.rgb.mean() for frame in VideoReader(tmp_path / "in.ts")]
        apart = [frame.rgb.mean() for path in (limited, full) for frame in VideoReader(path)]
        assert whole == pytest.approx(apart, abs=0.05)


class TestFlaggedInterlaced:
    def test_it_is_restored_if_the_user_insists(self, tmp_path: Path) -> None:
        source, out = case("psf.mp4"), tmp_path / "out.mp4"
        options = ["--iters", "0", "--backbone", "estrnn:lite", "--offline", "--force"]
        refused = CliRunner().invoke(app, ["deblur", str(source), "-o", str(out), *options])
        assert isinstance(refused.exception, InputError)
        assert "--progressive" in refused.exception.hint
        assert (
            CliRunner().invoke(app, ["deblur", str(source), "-o", str(out), *options, "--progressive"]).exit_code == 0
        )
        assert not open_reader(out).info.interlaced
        assert len(open_reader(out).pts) == len(open_reader(source, progressive=True).pts)

    def test_looking_at_it_needs_no_option(self) -> None:
        told: list[Event] = []
        inspect(case("psf.mp4"), listen=told.append)
        assert any(isinstance(event, Note) and "flagged interlaced" in event.text for event in told)


class TestSaid:
    def test_a_video_that_is_passed_through_has_one_story(self, tmp_path: Path) -> None:
        still = make_clip(tmp_path / "in.mkv", [40 * i for i in range(8)], PTS_MKV, codec="libvpx")
        for name, how in (
            ("out.mkv", "passed through unchanged"),
            ("out.mov", "passed through, encoded again because"),
        ):
            result = deblur(still, tmp_path / name, Settings(runtime=RuntimeSettings(offline=True)))
            (story,) = [note for note in result.notes if "encoded" in note or "passed" in note]
            assert story.startswith(how)

    def test_odd_pictures_are_not_offered_what_they_cannot_have(self, tmp_path: Path) -> None:
        odd = make_clip(tmp_path / "in.mkv", [0, 40], PTS_MKV, codec="ffv1", size=(65, 49), options={})
        notes = written(odd, tmp_path / "out.mp4").notes
        assert "H.264 in 4:4:4 does not play everywhere" in notes

    def test_alpha_in_side_data(self, tmp_path: Path) -> None:
        notes = written(case("p_vp9a.webm"), tmp_path / "out.mp4").notes
        assert "left out: the alpha channel, which lies in side data" in notes

    def test_data_that_mov_only_pretends_to_take(self, tmp_path: Path) -> None:
        result = written(case("klv.ts"), tmp_path / "out.mov")
        assert "data stream 2 (bin_data) is left out: MOV cannot hold it" in result.notes
        with av.open(str(result.path)) as container:
            assert [s.type for s in container.streams] == ["video", "audio"]

    def test_merged_subtitles_are_no_loss(self, tmp_path: Path) -> None:
        notes = written(case("avchd.m2ts"), tmp_path / "out.mkv").notes
        assert not [note for note in notes if "did not make it" in note]

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("amve.mp4", "the ambient viewing environment of HDR"),
            ("android_fps.mp4", "the types of metadata values: 2 become text or are lost"),
        ],
    )
    def test_what_no_result_can_have(self, name: str, words: str, tmp_path: Path) -> None:
        assert f"left out: {words}" in written(case(name), tmp_path / "out.mp4").notes

    @pytest.mark.parametrize(
        ("suffix", "settings"),
        [
            (".mp4", {}),
            (".mov", {"codec": "hevc"}),
            (".mkv", {}),
            (".mp4", {"codec": "av1"}),
            (".mkv", {"codec": "ffv1"}),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("name", ["clap.mp4", "crop.mkv"])
    def test_the_visible_crop_is_kept(self, name: str, suffix: str, settings: dict[str, Any], tmp_path: Path) -> None:
        result = written(case(name), tmp_path / f"out{suffix}", preset="ultrafast", **settings)
        assert not [note for note in result.notes if "crop" in note]
        crops = []
        for path in (case(name), result.path):
            with av.open(str(path)) as container:
                crops.append(visible_crop(path, container.format.name, 0, 128, 96))
        assert crops[0] == crops[1]
        assert crops[0] is not None

    def test_a_crop_that_hides_everything_is_damage(self, tmp_path: Path) -> None:
        data = bytearray(case("clap.mp4").read_bytes())
        at = data.index(b"clap") + 4
        data[at : at + 4] = struct.pack(">I", 100_000)
        path = tmp_path / "in.mp4"
        path.write_bytes(data)
        assert visible_crop(path, "mov,mp4", 0, 128, 96) is None
        assert written(path, tmp_path / "out.mp4").frames == 18

    @pytest.mark.parametrize("suffix", OUTPUTS)
    def test_where_a_phone_was(self, suffix: str, tmp_path: Path) -> None:
        place = b"+48.8577+002.2950/"
        source = with_user_data(
            case("base.mp4"), tmp_path / "in.mp4", b"\xa9xyz", struct.pack(">HH", len(place), 0x15C7) + place
        )
        result = written(source, tmp_path / f"out{suffix}", preset="ultrafast")
        with av.open(str(result.path)) as container:
            assert {k.lower(): v for k, v in container.metadata.items()}["location"] == place.decode()
        assert not [note for note in result.notes if "left out" in note or "did not" in note]
        assert (b"\xa9xyz" in result.path.read_bytes()) == (suffix == ".mov")

    def test_data_of_the_maker(self, tmp_path: Path) -> None:
        source = with_user_data(case("base.mp4"), tmp_path / "in.mp4", b"GPMF", bytes(60))
        notes = written(source, tmp_path / "out.mp4", preset="ultrafast").notes
        assert notes == ["left out: data of the camera's maker in the header: GPMF"]

    def test_plain_files_lose_nothing_of_their_header(self, tmp_path: Path) -> None:
        assert not [note for note in written(case("base.mp4"), tmp_path / "out.mp4").notes if "left out" in note]

    def test_a_damaged_header_ends_the_search(self, tmp_path: Path) -> None:
        path = tmp_path / "x"
        for name, kind in (("clap.mp4", "mov,mp4"), ("crop.mkv", "matroska,webm")):
            whole = case(name).read_bytes()
            for cut in range(8, 600, 7):
                path.write_bytes(whole[:cut])
                assert unread(path, kind) == []
                assert visible_crop(path, kind, 0, 128, 96) is None
            path.write_bytes(whole[:4] + b"\xff" * 400)
            assert unread(path, kind) == []
            assert visible_crop(path, kind, 0, 128, 96) is None

    @pytest.mark.parametrize(("ending", "said"), [(".mkv", False), (".mp4", True)])
    def test_stereoscopic_tags(self, ending: str, said: bool, tmp_path: Path) -> None:
        result = written(case("stereo.mkv"), tmp_path / f"out{ending}")
        assert ("left out: stereoscopic tags" in result.notes) == said
        with av.open(str(result.path)) as container:
            assert ("stereo_mode" in container.streams.video[0].metadata) != said
