"""Batches on a real Ray cluster on this machine: lost workers, lost nodes, files that have to travel."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from selfhvd_tta import batch
from selfhvd_tta.batch import BatchEvent, VideoEnded, VideoEvent
from selfhvd_tta.batch.cluster.depot import JOB, Depot, DepotClient, Mirror
from selfhvd_tta.errors import DeviceError, Interrupted, UsageError
from selfhvd_tta.events import Note, Progress
from selfhvd_tta.settings import Settings
from tests.commands import QUICK, run
from tests.media import decode_planes, shaky_file
from tests.test_batch import FAKE, fill

S = Settings()


@pytest.fixture(autouse=True)
def _no_lower_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's workers run at niceness 15: on a machine with other work they would hardly run at all."""
    monkeypatch.setenv("RAY_worker_niceness", "0")


class Killer:
    """A listener that kills the cluster's worker of a video as soon as the video is in mid-work."""

    def __init__(self, name: str) -> None:
        self.name, self.told = name, list[BatchEvent]()
        self.pid = 0
        self.killed = 0

    def __call__(self, event: BatchEvent) -> None:
        self.told.append(event)
        if not isinstance(event, VideoEvent) or event.name != self.name:
            return
        if isinstance(event.event, Note) and "running on" in event.event.text:
            self.pid = int(event.event.text.rpartition(" ")[2])
        if isinstance(event.event, Progress) and event.event.phase == "stage 1" and not self.killed:
            self.killed = self.pid
            os.kill(self.pid, signal.SIGKILL)


def check(out: Path, summary: batch.Summary, killer: Killer) -> None:
    """Every output is there once and complete, nothing else is, and the user was told."""
    assert killer.killed
    assert {o.name: o.state for o in summary.outcomes} == {
        "a.mp4": "done",
        "b.mp4": "done",
        "c.mp4": "failed",
        "d.mp4": "done",
    }
    assert (out / "b.mp4").read_text() == "B continued from half"
    assert [(out / f"{n}.mp4").read_text() for n in "ad"] == ["A2000", "D2000"]
    assert sorted(os.listdir(out)) == [".batch.lock", "a.mp4", "b.mp4", "batch.json", "d.mp4"]
    ended = [e.outcome.name for e in killer.told if isinstance(e, VideoEnded)]
    assert sorted(ended) == ["a.mp4", "b.mp4", "c.mp4", "d.mp4"], "each once"
    warnings = [
        e.event.text
        for e in killer.told
        if isinstance(e, VideoEvent) and e.name == "b.mp4" and isinstance(e.event, Note)
    ]
    assert any("its worker was lost" in text for text in warnings)


@pytest.mark.cluster
@pytest.mark.parametrize("staged", [False, True], ids=["shared folders", "travelling files"])
def test_a_killed_workers_video_is_continued_elsewhere(
    tmp_path: Path, staged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="the extra 'cluster' is not installed")
    from selfhvd_tta.batch.cluster import run as cluster

    folder = fill(tmp_path / "in", a_mp4="good A", b_mp4="once B", c_mp4="error", d_mp4="good D")
    plan = batch.make_plan([folder], tmp_path / "out", S)
    if staged:
        monkeypatch.setattr(cluster.RayCrew, "_nodes_see_our_folders", lambda self, nodes: False)
        monkeypatch.setenv("SELFHVD_TTA_MIRROR_S", "0.1")
    killer = Killer("b.mp4")
    with cluster.RayCrew(plan, "local", cpus=0.5, worker=FAKE) as crew:
        assert crew.staged == staged
        assert crew.slots >= 2
        summary = batch.run(plan, killer, crew.slots, crew=crew)
    check(tmp_path / "out", summary, killer)
    assert all(t.state in ("finished", "to do") for t in batch.make_plan([folder], tmp_path / "out", S).tasks)


@pytest.mark.cluster
def test_a_real_video_by_the_command_line(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra 'cluster' is not installed")
    (tmp_path / "in").mkdir()
    shaky_file(tmp_path / "in" / "a.mp4")
    flags = ["--ray", "local", "--method", "transfer", "--compare", "side"]
    done = run("batch", tmp_path / "in", "-o", tmp_path / "out", *QUICK, *flags)
    assert done.returncode == 0, done.stderr
    assert "all nodes see the folders" in done.stderr
    assert len(decode_planes(tmp_path / "out" / "a.mp4")) == 12
    assert (tmp_path / "out" / "a-side.mp4").exists()


def test_addresses_and_rooms() -> None:
    from selfhvd_tta.batch.cluster.run import _room

    assert _room({"CPU": 8, "GPU": 2}, 1, 1) == 2
    assert _room({"CPU": 8, "GPU": 2}, 1, 0.5) == 4
    assert _room({"CPU": 8}, 1, 1) == 0
    assert _room({"CPU": 3}, 2, 0) == 1


def test_wrong_addresses_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from selfhvd_tta.batch.cluster.run import RayCrew

    plan = batch.make_plan([fill(tmp_path / "in", a_mp4="good")], tmp_path / "out", S)
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UsageError, match="not installed") as caught, RayCrew(plan, "local"):
        pass
    assert "'.[cluster]'" in caught.value.hint
    monkeypatch.undo()
    pytest.importorskip("ray", reason="the extra 'cluster' is not installed")
    with pytest.raises(UsageError, match="not the address of a cluster"), RayCrew(plan, "10.0.0.1"):
        pass


# -- files that travel, without a cluster


def local_depot() -> tuple[Depot, DepotClient]:
    depot = Depot()
    return depot, DepotClient(lambda method, *args: getattr(depot, method)(*args), "key")


def test_files_travel_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfhvd_tta.batch.cluster.depot.PIECE", 10)
    monkeypatch.setattr(Depot.read, "__defaults__", (10,))
    depot, client = local_depot()
    for size in (0, 1, 10, 25, 30):
        data = os.urandom(size)
        (tmp_path / "source").write_bytes(data)
        client.send(tmp_path / "source", "in/x")
        client.fetch("in/x", tmp_path / "there" / "x")
        assert (tmp_path / "there" / "x").read_bytes() == data
    assert os.listdir(tmp_path / "there") == ["x"], "no partial file stays"
    with pytest.raises(ValueError, match="leads out"):
        client.fetch("../other", tmp_path / "y")
    depot.close()
    assert not depot.root.exists()


def test_a_failing_transfer_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("old")

    def broken(method: str, *args: Any) -> bytes:
        if args[2]:
            raise OSError("gone")
        return b"new"

    with pytest.raises(OSError, match="gone"):
        DepotClient(broken, "key").fetch("x", tmp_path / "x")
    assert os.listdir(tmp_path) == ["x"]
    assert (tmp_path / "x").read_text() == "old"


def test_job_directories_are_mirrored(tmp_path: Path) -> None:
    depot, client = local_depot()
    job = tmp_path / ".sharp.mp4.job"
    mirror = Mirror(client, job, 60)
    mirror.update()
    assert client.names(JOB) == []
    (job / "segments").mkdir(parents=True)
    for number, name in enumerate(["segments/0.mp4", "ledger.json", "lock", "old"]):
        (job / name).write_text(name)
        os.utime(job / name, (number, number))
    mirror.update()
    assert sorted(client.names(JOB)) == ["ledger.json", "old", "segments/0.mp4"], "the lock stays at home"
    (job / "old").unlink()
    (job / "ledger.json").write_text("two segments")
    mirror.update()
    other = tmp_path / "elsewhere" / ".sharp.mp4.job"
    assert Mirror(client, other, 60).restore()
    assert (other / "ledger.json").read_text() == "two segments"
    assert sorted(p.name for p in other.rglob("*") if p.is_file()) == ["0.mp4", "ledger.json"]
    depot.close()


def test_the_mirror_looks_by_itself(tmp_path: Path) -> None:
    depot, client = local_depot()
    before = threading.active_count()
    (tmp_path / "job").mkdir()
    with Mirror(client, tmp_path / "job", 0.02):
        (tmp_path / "job" / "x").write_text("x")
        deadline = time.monotonic() + 10
        while client.names(JOB) != ["x"] and time.monotonic() < deadline:
            time.sleep(0.01)
    assert client.names(JOB) == ["x"]
    assert threading.active_count() == before
    depot.close()


def test_no_room_is_said(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra 'cluster' is not installed")
    from selfhvd_tta.batch.cluster.run import RayCrew

    class Small:
        def nodes(self) -> list[dict[str, Any]]:
            return [{"Alive": True, "Resources": {"CPU": 2.0}}]

    crew = RayCrew(batch.make_plan([fill(tmp_path / "in", a_mp4="good")], tmp_path / "out", S), "auto", gpus=1)
    crew.ray = Small()
    with pytest.raises(DeviceError, match="no node of the Ray cluster") as caught:
        crew._look_around()
    assert "--gpus-per-video" in caught.value.hint


@pytest.mark.cluster
@pytest.mark.parametrize("background", [False, True])
def test_an_interrupt_ends_the_workers_processes_cleanly(tmp_path: Path, background: bool) -> None:
    pytest.importorskip("ray", reason="the extra 'cluster' is not installed")
    from selfhvd_tta.batch.cluster import run as cluster

    folder = fill(tmp_path / "in", a_mp4="slow A", b_mp4="slow B")
    plan = batch.make_plan([folder], tmp_path / "out", S)
    at_work: set[str] = set()

    def listen(event: BatchEvent) -> None:
        if isinstance(event, VideoEvent) and isinstance(event.event, Progress):
            at_work.add(event.name)
            if len(at_work) == 2:
                raise KeyboardInterrupt

    # As in a script's background: then Ray's workers ignore SIGINT too, which is how it cancels.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if background else signal.getsignal(signal.SIGINT)
    try:
        with cluster.RayCrew(plan, "local", cpus=0.5, worker=FAKE) as crew, pytest.raises(Interrupted):
            batch.run(plan, listen, crew.slots, crew=crew)
    finally:
        signal.signal(signal.SIGINT, before)
    left = set(os.listdir(tmp_path / "out"))
    assert {"a.interrupted", "b.interrupted"} <= left
    assert not {"a.mp4", "b.mp4"} & left, "nobody waited for them to end by themselves"
