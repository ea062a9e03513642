"""What cannot be read or written is said in one line and a hint, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from selfhvd_tta.errors import DiskError, InputError, SelfHVDError, UsageError
from selfhvd_tta.settings import OutputSettings
from selfhvd_tta.video import target as target_module
from selfhvd_tta.video.reader import VideoReader
from selfhvd_tta.video.target import check_target
from selfhvd_tta.video.writer import VideoWriter, check_output
from tests.conftest import ROOT
from tests.media import decode_planes, make_clip, sine
from tests.test_video_roundtrip import identity


def refused(kind: type[SelfHVDError], call: Any) -> SelfHVDError:
    """The error that ``call()`` raises, checked for its form."""
    with pytest.raises(kind) as caught:
        call()
    error = caught.value
    assert "\n" not in error.message
    assert "\n" not in error.hint
    assert error.message
    assert error.hint
    return error


def read_all(path: Path) -> int:
    return sum(1 for _ in VideoReader(path))


class TestInput:
    def test_missing(self, tmp_path: Path) -> None:
        assert "no such file" in refused(InputError, lambda: read_all(tmp_path / "nothing.mp4")).message

    def test_empty(self, tmp_path: Path) -> None:
        (tmp_path / "a.mp4").touch()
        assert "empty" in refused(InputError, lambda: read_all(tmp_path / "a.mp4")).message

    def test_text_by_the_name_of_a_video(self, tmp_path: Path) -> None:
        (tmp_path / "a.mp4").write_text("This is no video.\n" * 100)
        assert "cannot be read as a video" in refused(InputError, lambda: read_all(tmp_path / "a.mp4")).message

    def test_folder_without_images(self, tmp_path: Path) -> None:
        refused(InputError, lambda: read_all(tmp_path))

    def test_cut_off_before_its_index(self, tmp_path: Path) -> None:
        whole = make_clip(tmp_path / "whole.mp4").read_bytes()
        (tmp_path / "a.mp4").write_bytes(whole[: len(whole) // 2])
        error = refused(InputError, lambda: read_all(tmp_path / "a.mp4"))
        assert "moov" in error.message
        assert "cut off" in error.hint

    @pytest.mark.parametrize("suffix", [".mp4", ".wav", ".mp3"])
    def test_audio_only(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"a{suffix}"
        with av.open(str(path), "w") as container:
            codec = {".mp4": "aac", ".wav": "pcm_s16le", ".mp3": "libmp3lame"}[suffix]
            tone = container.add_stream(codec, rate=48000)
            resampler = av.AudioResampler(format=tone.codec_context.format, layout="stereo", rate=48000)
            for block in sine(0.5):
                for piece in resampler.resample(block):
                    container.mux(tone.encode(piece))
            container.mux(tone.encode(None))
        assert "holds no video (audio)" in refused(InputError, lambda: read_all(path)).message

    def test_interlaced(self, tmp_path: Path) -> None:
        path = make_clip(tmp_path / "a.mp4", options={"x264-params": "interlaced=1"})
        error = refused(InputError, lambda: read_all(path))
        assert "interlaced" in error.message
        assert "bwdif" in error.hint
        assert "--progressive" in error.hint

    def test_change_of_size(self, tmp_path: Path) -> None:
        parts = [make_clip(tmp_path / f"{w}.ts", size=(w, 48), time_base=Fraction(1, 90000)) for w in (64, 96)]
        (tmp_path / "a.ts").write_bytes(b"".join(p.read_bytes() for p in parts))
        error = refused(InputError, lambda: read_all(tmp_path / "a.ts"))
        assert "from 64x48 to 96x48" in error.message

    def test_not_one_frame(self, tmp_path: Path) -> None:
        data = bytearray(make_clip(tmp_path / "whole.mp4", muxer={"movflags": "faststart"}).read_bytes())
        start = data.index(b"mdat") + 4
        data[start:] = bytes(len(data) - start)
        (tmp_path / "a.mp4").write_bytes(data)
        assert "not one frame" in refused(InputError, lambda: read_all(tmp_path / "a.mp4")).message

    def test_unreadable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = make_clip(tmp_path / "a.mp4")

        def deny(*_: Any, **__: Any) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(av, "open", deny)
        assert "may not be read" in refused(InputError, lambda: read_all(path)).message

    @pytest.mark.parametrize(
        "name", ["with space.mp4", "üñí – 日本 🎬.mp4", "-dash.mp4", "per%cent%03d.mp4", "a'b\"c.mp4"]
    )
    def test_any_name(self, tmp_path: Path, name: str) -> None:
        source = make_clip(tmp_path / "plain.mp4").rename(tmp_path / name)
        identity(source, tmp_path / f"out {name}")
        assert len(decode_planes(tmp_path / f"out {name}")) == 8

    def test_indices_of_read(self, tmp_path: Path) -> None:
        reader = VideoReader(make_clip(tmp_path / "a.mp4"))
        for wrong in ([8], [-1], [3, 2], [2, 2]):
            with pytest.raises(IndexError):
                list(reader.read(wrong))
        assert list(reader.read([])) == []


class TestOutput:
    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        return make_clip(tmp_path / "in.mp4")

    def test_is_the_input(self, source: Path, tmp_path: Path) -> None:
        (tmp_path / "link.mp4").symlink_to(source)
        os.link(source, tmp_path / "hard.mp4")
        (tmp_path / "sub").mkdir()
        before = source.read_bytes()
        for name in ("in.mp4", "link.mp4", "hard.mp4", "sub/../in.mp4"):
            error = refused(UsageError, lambda name=name: check_target(tmp_path / name, source, overwrite=True))
            assert "same file" in error.message
        assert source.read_bytes() == before

    def test_exists(self, source: Path, tmp_path: Path) -> None:
        (tmp_path / "out.mp4").write_text("precious")
        error = refused(UsageError, lambda: check_target(tmp_path / "out.mp4", source))
        assert "--overwrite" in error.hint
        identity(source, tmp_path / "out.mp4", overwrite=True)
        assert len(decode_planes(tmp_path / "out.mp4")) == 8

    def test_appears_meanwhile(self, source: Path, tmp_path: Path) -> None:
        out = tmp_path / "out.mp4"
        reader = VideoReader(source)

        def run() -> None:
            with VideoWriter(out, reader.info, OutputSettings()) as writer:
                for frame in reader:
                    writer.write(frame.rgb, frame.pts)
                out.write_text("precious")

        refused(UsageError, run)
        assert out.read_text() == "precious"
        assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]

    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            ("missing/out.mp4", DiskError),
            ("folder.mp4", UsageError),
            ("folder", UsageError),
            ("out.webm", UsageError),
            ("out.xyz", UsageError),
        ],
    )
    def test_impossible_places(self, source: Path, tmp_path: Path, name: str, kind: type[SelfHVDError]) -> None:
        (tmp_path / "folder.mp4").mkdir()
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "letter.txt").touch()
        refused(kind, lambda: check_target(tmp_path / name, source, overwrite=True))

    def test_unwritable_folder(self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "access", lambda *_: False)
        refused(DiskError, lambda: check_target(tmp_path / "out.mp4", source))

    def test_folder_refuses_only_when_tried(
        self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def deny(*_: Any, **__: Any) -> str:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(target_module.tempfile, "mkdtemp", deny)
        error = refused(DiskError, lambda: identity(source, tmp_path / "out.mp4"))
        assert "permissions" in error.hint

    def test_ffv1_in_mp4(self, source: Path, tmp_path: Path) -> None:
        info = VideoReader(source).info
        refused(UsageError, lambda: check_output(tmp_path / "out.mp4", info, OutputSettings(codec="ffv1")))

    def test_quality_out_of_range(self, source: Path, tmp_path: Path) -> None:
        info = VideoReader(source).info
        error = refused(
            UsageError, lambda: check_output(tmp_path / "out.mp4", info, OutputSettings(codec="h264", crf=60))
        )
        assert "within 0..51" in error.message
        assert check_output(tmp_path / "out.mp4", info, OutputSettings(codec="av1", crf=60)).container == "mp4"

    def test_no_frames(self, source: Path, tmp_path: Path) -> None:
        def run() -> None:
            with VideoWriter(tmp_path / "out.mp4", VideoReader(source).info, OutputSettings()):
                pass

        refused(InputError, run)
        assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]

    @pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()])
    def test_an_exception_leaves_nothing(self, source: Path, tmp_path: Path, error: BaseException) -> None:
        def run() -> None:
            reader = VideoReader(source)
            with VideoWriter(tmp_path / "out.mp4", reader.info, OutputSettings()) as writer:
                for frame in reader:
                    writer.write(frame.rgb, frame.pts)
                raise error

        with pytest.raises(type(error)):
            run()
        assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]

    @pytest.mark.parametrize(("times", "height", "complaint"), [([0], 47, "shape"), ([5, 5], 48, "increase")])
    def test_mistakes_of_the_caller(
        self, source: Path, tmp_path: Path, times: list[int], height: int, complaint: str
    ) -> None:
        def run() -> None:
            with VideoWriter(tmp_path / "a.mp4", VideoReader(source).info, OutputSettings()) as writer:
                for time in times:
                    writer.write(np.zeros((height, 64, 3), np.uint8), time)

        with pytest.raises(ValueError, match=complaint):
            run()
        assert not (tmp_path / "a.mp4").exists()


FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from selfhvd_tta.errors import DiskError
from selfhvd_tta.settings import OutputSettings
from selfhvd_tta.video.reader import VideoReader
from selfhvd_tta.video.writer import VideoWriter

source, out, limit = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
reader = VideoReader(source)
frames = list(reader)
rng = np.random.default_rng(0)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    with VideoWriter(out, reader.info, OutputSettings(overwrite=True, crf=1), segment_length=4) as writer:
        for frame in frames:
            writer.write(rng.integers(0, 256, frame.rgb.shape, dtype=np.uint8), frame.pts)
except DiskError as error:
    print(error.message, "|", error.hint)
    sys.exit(6)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
@pytest.mark.parametrize("limit", [2_000, 40_000])
def test_full_disk(tmp_path: Path, limit: int) -> None:
    """The limit strikes while a segment is written, or when all are joined."""
    source = make_clip(tmp_path / "in.mp4", [512 * i for i in range(20)])
    out = tmp_path / "out.mp4"
    out.write_text("precious")
    command = [sys.executable, "-c", FULL_DISK, str(source), str(out), str(limit)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 6, done.stderr
    assert "cannot be written" in done.stdout
    assert out.read_text() == "precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]
