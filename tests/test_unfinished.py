"""A full disk and a kill, from every container that is read to every one that is written: all or nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.mutants import CONTAINERS, FRAMES, make
from selfhvd_tta.errors import DiskError
from selfhvd_tta.settings import OutputSettings
from selfhvd_tta.video.opening import open_reader, open_writer
from tests.conftest import ROOT
from tests.media import decode_planes

resource = pytest.importorskip("resource", reason="needs limits of processes")
OUTPUTS = (".mp4", ".mov", ".mkv")
PAIRS = [(container, OUTPUTS[number % 3]) for number, container in enumerate(CONTAINERS)]
OLDER = b"an older output, which may only be replaced by a complete one"


def write(source: Path, out: Path, job: Path | None = None) -> int:
    """Read and write the video, going on where a killed run stopped; returns the frames that one had finished."""
    reader = open_reader(source)
    settings = OutputSettings(preset="ultrafast", overwrite=True, crf=10)
    with open_writer(out, reader, settings, segments=job, segment_length=8) as writer:
        for frame in reader:
            if frame.index >= writer.frames_done:
                writer.write(frame.rgb, frame.pts)
    return writer.frames_done


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """No file may grow beyond that many bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(("container", "suffix"), PAIRS)
def test_a_full_disk_leaves_everything_as_it_was(container: str, suffix: str, tmp_path: Path) -> None:
    source = make(tmp_path, container)
    data = source.read_bytes()
    out = tmp_path / f"out{suffix}"
    write(source, out)
    size = out.stat().st_size
    for share in (0.02, 0.95):  # while a segment is written, and while all are joined
        out.write_bytes(OLDER)
        with file_limit(round(share * size)), pytest.raises(DiskError, match="cannot be written"):
            write(source, out)
        assert out.read_bytes() == OLDER
        assert source.read_bytes() == data
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted([source.name, out.name])


KILLED = """
import os, signal, sys
from pathlib import Path
from selfhvd_tta.video import writer
from tests.test_unfinished import write

def end(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def counting(write, last):
    def counted(self, rgb, pts):
        write(self, rgb, pts)
        counted.frames += 1
        if counted.frames == last:
            end()
    counted.frames = 0
    return counted

for line in sys.stdin.read().splitlines():
    source, out, job, last = line.split("|")
    pid = os.fork()
    if pid == 0:
        if last == "publish":
            writer.publish = end
        else:
            writer.VideoWriter.write = counting(writer.VideoWriter.write, int(last))
        write(Path(source), Path(out), Path(job))
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, line
"""
"""For each line: source, output, job folder and when to kill the process that writes it."""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """A folder for each pair in which one run was killed between frames, and another before its file had its name."""
    folders: dict[tuple[str, str], Path] = {}
    lines = []
    for number, (container, suffix) in enumerate(PAIRS):
        folder = folders[container, suffix] = tmp_path_factory.mktemp(container)
        source = make(folder, container)
        for name, last in (("early", 1 + 7 * number % FRAMES), ("late", "publish")):
            (folder / f"{name}{suffix}").write_bytes(OLDER)
            (folder / f"{name}-job").mkdir()
            lines.append(f"{source}|{folder / name}{suffix}|{folder / name}-job|{last}")
    command = [sys.executable, "-c", KILLED]
    subprocess.run(command, input="\n".join(lines), cwd=ROOT, text=True, timeout=120, check=True)
    return folders


@pytest.mark.parametrize(("container", "suffix"), PAIRS)
def test_a_killed_run_leaves_nothing_half_done_and_goes_on(
    container: str, suffix: str, killed: dict[tuple[str, str], Path]
) -> None:
    folder = killed[container, suffix]
    source, whole = folder / f"whole.{container}", folder / f"uninterrupted{suffix}"
    data = source.read_bytes()
    names = {"early", "late"}
    expected = {source.name, *(f"{name}{suffix}" for name in names), *(f"{name}-job" for name in names)}
    assert {p.name for p in folder.iterdir()} == expected
    write(source, whole)
    assert len(decode_planes(whole)) == FRAMES
    for name, least in (("early", 0), ("late", FRAMES)):
        out = folder / f"{name}{suffix}"
        assert out.read_bytes() == OLDER
        assert write(source, out, folder / f"{name}-job") >= least
        assert out.read_bytes() == whole.read_bytes()
        assert not list((folder / f"{name}-job").glob("partial*"))
    assert source.read_bytes() == data
