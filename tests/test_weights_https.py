"""Downloads from plain addresses: resumed, hashed, complete or absent."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selfhvd_tta import weights
from selfhvd_tta.weights import https
from selfhvd_tta.weights.rows import Download, Row
from tests.hub_server import HubServer, hub, sha256  # noqa: F401 (a fixture)
from tests.test_weights_hub import PTH, assert_fails, assert_loaded

CONTENT = bytes(torch.randint(0, 256, (5000,), generator=torch.Generator().manual_seed(0)).tolist())


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(https, "PAUSE", 0.0)
    monkeypatch.setattr(https, "_BLOCK", 100)


def fetch(server: HubServer, target: Path, names: tuple[str, ...] = ("x.pth",), **more: object) -> str:
    arguments = {"sha256": sha256(CONTENT), "size": len(CONTENT), "progress": None} | more
    return https.fetch(tuple(f"{server.url}/plain/{name}" for name in names), target, **arguments)  # type: ignore[arg-type]


@pytest.fixture
def server(hub: HubServer) -> HubServer:  # noqa: F811
    hub.plain["x.pth"] = CONTENT
    return hub


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "downloads" / "x.pth"


def test_a_file_arrives_whole_and_alone(server: HubServer, target: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    assert fetch(server, target, progress=lambda *step: seen.append(step)) == sha256(CONTENT)
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == ["x.pth"]
    assert seen[-1] == (5000, 5000)
    assert seen == sorted(seen)
    assert len(seen) == 50


@given(cuts=st.lists(st.integers(1, 4000), max_size=6), pinned=st.booleans())
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_connection_may_break_often_as_long_as_bytes_arrive(
    server: HubServer, tmp_path: Path, cuts: list[int], pinned: bool
) -> None:
    server.requests.clear()
    server.drops["x.pth"] = list(cuts)
    fetch(server, tmp_path / "x.pth", sha256=sha256(CONTENT) if pinned else "")
    assert (tmp_path / "x.pth").read_bytes() == CONTENT
    # Nothing that arrived is asked for again.
    starts = [int(request.range[6:-1] or 0) if request.range else 0 for request in server.requests]
    assert starts == sorted(set(starts))


def test_a_connection_that_brings_nothing_is_given_up(server: HubServer, target: Path) -> None:
    server.drops["x.pth"] = [1500] + [0] * 20
    assert_fails(lambda: fetch(server, target), r"cannot be reached: .*1,500 of 5,000|cannot be reached")
    assert len(server.requests) == 1 + https.ATTEMPTS
    assert not target.exists()
    server.drops.clear()
    server.requests.clear()
    fetch(server, target)  # another day
    assert server.requests[0].range == "bytes=1500-"
    assert target.read_bytes() == CONTENT


def test_a_rest_of_other_content_is_not_continued(server: HubServer, target: Path) -> None:
    server.drops["x.pth"] = [1500] + [0] * 20
    assert_fails(lambda: fetch(server, target), "cannot be reached")
    server.drops.clear()
    other = CONTENT[::-1]
    server.plain["x.pth"] = other
    server.requests.clear()
    fetch(server, target, sha256=sha256(other))
    assert server.requests[0].range == ""
    assert target.read_bytes() == other


@pytest.mark.parametrize("pinned", [True, False])
def test_a_file_replaced_while_half_of_it_was_here(server: HubServer, target: Path, pinned: bool) -> None:
    server.drops["x.pth"] = [1500] + [0] * 20
    new = CONTENT[::-1]
    expected = sha256(new) if pinned else ""
    assert_fails(lambda: fetch(server, target, sha256=expected), "cannot be reached")
    server.drops.clear()
    server.plain["x.pth"] = new
    fetch(server, target, sha256=expected)
    assert target.read_bytes() == new


def test_without_anything_to_compare_a_rest_is_not_continued(server: HubServer, target: Path) -> None:
    target.parent.mkdir()
    target.with_name("x.pth.part").write_bytes(b"of unknown origin")
    fetch(server, target, sha256="")
    assert target.read_bytes() == CONTENT


def test_a_complete_rest_needs_no_transfer(server: HubServer, target: Path) -> None:
    for size in (len(CONTENT), None):
        server.drops["x.pth"] = [4999] + [0] * 20
        assert_fails(lambda size=size: fetch(server, target, size=size), "cannot be reached")  # type: ignore[misc]
        server.drops.clear()
        target.with_name("x.pth.part").write_bytes(CONTENT)
        server.requests.clear()
        fetch(server, target, size=size)
        assert target.read_bytes() == CONTENT
        assert len(server.requests) == (0 if size else 1)
        target.unlink()


def test_altered_content_is_refused(server: HubServer, target: Path) -> None:
    server.altered.add("x.pth")
    assert_fails(lambda: fetch(server, target), "not the expected file: SHA-256")
    assert not list(target.parent.iterdir()) or [p.name for p in target.parent.iterdir()] == ["x.pth.origin"]


def test_a_file_of_another_size_is_not_transferred(server: HubServer, target: Path) -> None:
    seen: list[object] = []
    call = lambda: fetch(server, target, size=4999, progress=lambda *step: seen.append(step))  # noqa: E731
    assert_fails(call, "5,000 bytes instead of 4,999")
    assert not seen


def test_the_next_address_is_tried(server: HubServer, target: Path) -> None:
    fetch(server, target, ("gone.pth", "x.pth"))
    assert target.read_bytes() == CONTENT
    error = assert_fails(lambda: fetch(server, target.with_name("y.pth"), ("gone.pth", "gone2.pth")), "answers 404")
    assert "gone.pth" in error.message, "the first address is the one to be named"


def test_the_next_address_continues_the_same_content(server: HubServer, target: Path) -> None:
    server.plain["mirror.pth"] = CONTENT
    server.drops["x.pth"] = [1500] + [0] * 20
    fetch(server, target, ("x.pth", "mirror.pth"))
    assert [request.range for request in server.asked("GET", "mirror")] == ["bytes=1500-"]
    assert target.read_bytes() == CONTENT


def test_no_connection_is_said_at_once(server: HubServer, target: Path) -> None:
    arguments = {"sha256": "", "size": None, "progress": None}
    assert_fails(lambda: https.fetch(("http://127.0.0.1:9/x",), target, **arguments), r"reached: \[Errno \d+\] Conn")  # type: ignore[arg-type]
    assert_fails(lambda: https.fetch(("http://no.invalid/x",), target, **arguments), "cannot be reached")  # type: ignore[arg-type]


def test_a_server_that_falls_silent_is_given_up(
    server: HubServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    monkeypatch.setattr(https, "TIMEOUT", 0.1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x"
        start = time.perf_counter()
        assert_fails(lambda: https.fetch((url,), target, sha256="", size=None, progress=None), "cannot be reached")
        assert time.perf_counter() - start < 5


def test_checkpoints_are_downloaded_and_converted_by_name(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.plain["w.pth"] = PTH
    source = Download((f"{server.url}/plain/w.pth",))
    rows = {
        "pinned": Row("pinned", "backbone", "estrnn", "lite", source, sha256(PTH)),
        "unpinned": Row("unpinned", "backbone", "estrnn", "lite", source),
    }
    monkeypatch.setattr("selfhvd_tta.weights.rows.table", lambda: rows)
    assert_fails(lambda: weights.load("pinned", offline=True), "offline mode")
    assert_loaded(weights.load("pinned", offline=False))
    first = weights.load("unpinned", offline=False)
    assert_loaded(first)
    assert "nothing to compare it with" in first.notices[0]
    assert sorted(p.name for p in (tmp_path / "cache").iterdir() if p.is_file()) == [
        f"{name}{suffix}" for name in ("pinned", "unpinned") for suffix in (".json", ".safetensors")
    ]
    assert not list((tmp_path / "cache" / "downloads").iterdir()), "the pickle is not kept"
    server.requests.clear()
    assert_loaded(weights.load("unpinned", offline=True))
    first.path.unlink()
    server.plain["w.pth"] = PTH[:-1] + b"x"
    assert_fails(lambda: weights.load("unpinned", offline=False), "not the file it was before")
