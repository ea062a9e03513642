"""Weights out of the Hub's real client, against a server that speaks its protocol and misbehaves on demand."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save as serialise

from selfhvd_tta import weights
from selfhvd_tta.errors import WeightsError
from selfhvd_tta.weights import hub as hub_module
from selfhvd_tta.weights import store
from selfhvd_tta.weights.cache import read_receipt
from selfhvd_tta.weights.rows import Hub, Manual, Row
from tests.hub_server import HubServer, configure_client, direct_client, hub, sha256  # noqa: F401 (a fixture)

STATE = {"conv.weight": torch.arange(12.0).reshape(3, 4), "conv.bias": torch.ones(3)}


def as_pth(state: dict[str, torch.Tensor] = STATE) -> bytes:
    buffer = io.BytesIO()
    torch.save({"params": {f"module.{name}": value for name, value in state.items()}}, buffer)
    return buffer.getvalue()


PTH, SAFE = as_pth(), serialise(STATE)
REPO = "owner/name"


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> dict[str, Row]:
    """A table of the tests' own; rows may be added."""

    def row(name: str, source: Hub | Manual, digest: str = "", **more: object) -> Row:
        return Row(name, "backbone", "estrnn", "lite", source, digest, licence="MIT", **more)  # type: ignore[arg-type]

    table = {
        "pth": row("pth", Hub(REPO, "folder/w.pth"), sha256(PTH), size=len(PTH)),
        "safe": row("safe", Hub(REPO, "model.safetensors"), sha256(SAFE)),
        "unpinned": row("unpinned", Hub(REPO, "model.safetensors")),
        "nc": row("nc", Hub(REPO, "model.safetensors"), sha256(SAFE), non_commercial=True),
        "manual": row("manual", Manual("https://page", "w.tar")),
    }
    for module in ("rows", "store"):
        monkeypatch.setattr(f"selfhvd_tta.weights.{module}.table", lambda: table)
    return table


@pytest.fixture
def server(hub: HubServer, rows: dict[str, Row]) -> HubServer:  # noqa: F811
    hub.add(REPO, {"folder/w.pth": PTH, "model.safetensors": SAFE})
    return hub


def assert_fails(call: Callable[[], object], match: str, seconds: float = 5.0) -> WeightsError:
    start = time.perf_counter()
    with pytest.raises(WeightsError, match=match) as error:
        call()
    assert time.perf_counter() - start < seconds
    assert "\n" not in error.value.message
    assert error.value.hint
    assert "\n" not in error.value.hint
    return error.value


def assert_loaded(found: weights.Weights) -> None:
    assert found.tensors.keys() == STATE.keys()
    assert all(torch.equal(found.tensors[name], value) for name, value in STATE.items())


def test_a_checkpoint_is_downloaded_verified_and_converted_once(server: HubServer, tmp_path: Path) -> None:
    assert weights.find("pth", offline=False) == weights.Availability("downloadable", bytes=len(PTH))
    seen: list[tuple[int, int | None]] = []
    found = weights.load("pth", offline=False, on_progress=lambda done, total: seen.append((done, total)))
    assert_loaded(found)
    assert found.path == tmp_path / "cache" / "pth.safetensors"
    assert found.config["backbone"] == "estrnn"
    assert not found.notices
    assert seen[-1] == (len(PTH), len(PTH))
    assert seen == sorted(seen)
    transfers = len(server.asked("GET", "/cdn/"))
    assert transfers == 1
    server.requests.clear()
    assert weights.find("pth", offline=True) == weights.Availability("here", found.path)
    assert_loaded(weights.load("pth", offline=True))
    assert_loaded(weights.load("pth", offline=False))
    assert not server.requests, "the second time needs no network"


def test_safetensors_are_read_where_the_client_keeps_them(server: HubServer, tmp_path: Path) -> None:
    found = weights.load("safe", offline=False)
    assert_loaded(found)
    assert found.path.is_relative_to(tmp_path / "hub")
    assert found.sha256 == sha256(SAFE)


def test_a_hash_is_computed_once_and_then_remembered(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    path = weights.load("safe", offline=False).path
    hashed: list[Path] = []
    original = store.sha256_of
    for module in ("cache", "hub", "store"):
        monkeypatch.setattr(f"selfhvd_tta.weights.{module}.sha256_of", lambda p: hashed.append(p) or original(p))
    weights.load("safe", offline=True)
    assert not hashed
    os.utime(path, (1, 1))  # copied or restored: hashed again, and remembered again
    assert_loaded(weights.load("safe", offline=True))
    assert hashed == [path]
    weights.load("safe", offline=True)
    assert hashed == [path]


def test_what_another_program_downloaded_is_used_offline(server: HubServer, tmp_path: Path) -> None:
    from huggingface_hub import hf_hub_download

    path = Path(hf_hub_download(REPO, "folder/w.pth"))
    server.requests.clear()
    assert weights.find("pth", offline=True) == weights.Availability("here", path)
    assert_loaded(weights.load("pth", offline=True))
    assert not server.requests


def test_an_interrupted_download_goes_on_where_it_was(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    configure_client(monkeypatch, DOWNLOAD_CHUNK_SIZE=1)  # the client keeps whole chunks only
    monkeypatch.setattr(time, "sleep", lambda _: None)
    digest = sha256(PTH)
    server.drops[digest] = [len(PTH) // 2]
    assert_loaded(weights.load("pth", offline=False))
    gets = server.asked("GET", f"/cdn/{digest}")
    assert [request.range for request in gets] == ["", f"bytes={len(PTH) // 2}-"]


def test_half_a_file_is_never_used(server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    digest = sha256(PTH)
    server.drops[digest] = [len(PTH) // 2] + [0] * 20
    error = assert_fails(lambda: weights.load("pth", offline=False), "cannot be reached", 20)
    assert "HTTPS_PROXY" in error.hint
    assert weights.find("pth", offline=True).state == "missing"
    assert not list((tmp_path / "hub").rglob("w.pth"))
    server.drops.clear()
    assert_loaded(weights.load("pth", offline=False))


def test_a_file_that_rotted_in_the_clients_cache_is_fetched_again(server: HubServer) -> None:
    path = weights.load("safe", offline=False).path
    rotten = bytearray(SAFE)
    rotten[-1] ^= 1
    path.resolve().write_bytes(rotten)
    os.utime(path, (1, 1))
    assert_fails(lambda: weights.load("safe", offline=True), "not on this machine")
    assert_loaded(weights.load("safe", offline=False))


def test_a_converted_file_that_rotted_is_made_again(server: HubServer) -> None:
    path = weights.load("pth", offline=False).path
    path.write_bytes(path.read_bytes()[:-4])
    server.requests.clear()
    assert_loaded(weights.load("pth", offline=True))
    assert not server.requests


def test_a_file_altered_on_the_way_is_refused_and_forgotten(server: HubServer, tmp_path: Path) -> None:
    server.altered.add(sha256(SAFE))
    error = assert_fails(lambda: weights.load("safe", offline=False), "arrived damaged")
    assert sha256(SAFE)[:12] in error.message
    assert weights.find("safe", offline=True).state == "missing"
    assert not [p for p in (tmp_path / "hub").rglob("*") if p.is_file() and p.stat().st_size == len(SAFE)]
    server.altered.clear()
    assert_loaded(weights.load("safe", offline=False))


def test_a_file_replaced_by_its_owner_is_not_even_transferred(server: HubServer) -> None:
    server.add(REPO, {"model.safetensors": serialise({"other": torch.ones(1)})})
    assert_fails(lambda: weights.load("safe", offline=False), "not the file that was checked")
    assert not server.asked("GET", "/cdn/")


def test_a_file_renamed_by_its_owner_is_found_by_its_digest(server: HubServer) -> None:
    server.repositories[REPO].files["elsewhere/renamed.pth"] = server.repositories[REPO].files.pop("folder/w.pth")
    assert_loaded(weights.load("pth", offline=False))
    assert server.asked("GET", "/tree/main")


def test_an_unpinned_file_is_recorded_at_first_use_and_must_stay_the_same(server: HubServer) -> None:
    found = weights.load("unpinned", offline=False)
    assert_loaded(found)
    assert len(found.notices) == 1
    assert sha256(SAFE) in found.notices[0]
    receipt = read_receipt("unpinned")
    assert receipt is not None
    assert (receipt.source_sha256, receipt.pin) == (sha256(SAFE), "hub")
    assert not weights.load("unpinned", offline=False).notices
    found.path.resolve().unlink()
    server.add(REPO, {"model.safetensors": serialise({"other": torch.ones(1)})})
    error = assert_fails(lambda: weights.load("unpinned", offline=False), "not the file it was before")
    assert "unpinned.json" in error.hint


def test_a_table_that_expects_another_file_by_now_fetches_it(server: HubServer, rows: dict[str, Row]) -> None:
    weights.load("safe", offline=False)
    new = serialise({"other": torch.ones(1)})
    server.add(REPO, {"model.safetensors": new})
    rows["safe"] = Row("safe", "backbone", "estrnn", "lite", Hub(REPO, "model.safetensors"), sha256(new))
    assert list(weights.load("safe", offline=False).tensors) == ["other"]


def test_non_commercial_weights_are_asked_for_explicitly(server: HubServer) -> None:
    assert_fails(lambda: weights.load("nc", offline=False), "forbids commercial use")
    assert not server.requests
    assert_loaded(weights.load("nc", offline=False, accept_non_commercial=True))


@pytest.mark.parametrize("how", ["argument", "environment"])
def test_offline_asks_nobody_and_says_so_at_once(server: HubServer, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "environment":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    error = assert_fails(lambda: weights.load("pth", offline=how == "argument"), "offline mode")
    assert "--offline" in error.hint
    assert_fails(lambda: weights.load_hub(REPO, offline=how == "argument"), "offline mode")
    assert not server.requests


def test_no_connection_is_said_at_once(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    direct_client(monkeypatch, "http://127.0.0.1:9")
    error = assert_fails(lambda: weights.load("pth", offline=False), "cannot be reached")
    assert "bundled" in error.hint


def test_a_server_that_does_not_answer_is_given_up(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        direct_client(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr("selfhvd_tta.weights.hub.METADATA_TIMEOUT", 0.2)
        assert_fails(lambda: weights.load("pth", offline=False), "cannot be reached")


def test_a_hub_that_is_not_there_is_not_asked_for_every_file(
    server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        direct_client(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr("selfhvd_tta.weights.hub.METADATA_TIMEOUT", 0.3)
        first = assert_fails(lambda: weights.load("pth", offline=False), "cannot be reached: .+")
        monkeypatch.setattr("selfhvd_tta.weights.hub.METADATA_TIMEOUT", 20.0)
        second = assert_fails(lambda: weights.load("safe", offline=False), "cannot be reached: .+")
        assert first.message.partition("cannot be reached")[2] == second.message.partition("cannot be reached")[2]
        monkeypatch.setattr("selfhvd_tta.weights.hub.METADATA_TIMEOUT", 0.3)
        monkeypatch.setattr("selfhvd_tta.weights.hub.SILENCE", 0.0)
        start = time.perf_counter()
        assert_fails(lambda: weights.load("safe", offline=False), "cannot be reached: .+")
        assert time.perf_counter() - start > 0.2


def test_what_was_downloaded_serves_when_the_hub_is_down(server: HubServer, tmp_path: Path) -> None:
    weights.load("safe", offline=False)
    (tmp_path / "cache" / "safe.json").unlink()
    server.status = 503
    assert_loaded(weights.load("safe", offline=False))


@pytest.mark.parametrize(
    ("prepare", "match", "hint"),
    [
        (lambda s: s.repositories[REPO].files.clear(), "no such file", "huggingface.co/owner/name"),
        (lambda s: s.repositories.clear(), "no repository owner/name", "hf auth login"),
        (lambda s: setattr(s.repositories[REPO], "gated", True), "gated", "Accept its conditions"),
        (lambda s: setattr(s.repositories[REPO], "refused", True), "(refuses access|no repository)", "hf auth login"),
        (lambda s: setattr(s, "status", 503), "status 503", "later"),
        (lambda s: setattr(s, "status", 403), "(refuses access|status 403)", "hf auth login"),
    ],
    ids=["file gone", "repository gone", "gated", "refused", "down", "forbidden"],
)
def test_refusals_are_one_line_each(
    server: HubServer, prepare: Callable[[HubServer], object], match: str, hint: str
) -> None:
    prepare(server)
    error = assert_fails(lambda: weights.load("pth", offline=False), match)
    assert hint in error.hint


def test_a_token_goes_to_the_hub_but_not_to_its_storage(server: HubServer, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hf_secret")
    weights.load("safe", offline=False)
    assert all(request.authorised for request in server.asked("HEAD", "/resolve/"))
    assert not any(request.authorised for request in server.asked("GET", "/cdn/"))


def test_nothing_is_printed(
    server: HubServer, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    server.drops[sha256(PTH)] = [10]
    weights.load("pth", offline=False)
    assert capfd.readouterr() == ("", "")


def test_processes_that_start_together_download_once(server: HubServer, tmp_path: Path) -> None:
    results: list[weights.Weights] = []
    threads = [threading.Thread(target=lambda: results.append(weights.load("pth", offline=False))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert len(server.asked("GET", "/cdn/")) == 1


def test_a_process_with_the_clients_own_settings(server: HubServer, tmp_path: Path) -> None:
    """HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE as a user sets them, nothing patched."""
    code = (
        "from selfhvd_tta.weights import hub, rows\n"
        "offline = hub.offline_wanted()\n"
        f"found = hub.fetch(rows.Hub('{REPO}', 'model.safetensors'), sha256='', offline=offline, progress=None)\n"
        "print(found.sha256, found.pin, found.path)\n"
    )
    environment = os.environ | {
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(tmp_path / "home"),
        "SELFHVD_TTA_CACHE": str(tmp_path / "cache2"),
        "HF_HUB_DISABLE_XET": "1",
    }
    environment.pop("HF_HUB_CACHE", None)
    run = [sys.executable, "-c", code]
    root = Path(__file__).parent.parent
    first = subprocess.run(run, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert first.stdout.startswith(f"{sha256(SAFE)} hub {tmp_path}"), first.stderr
    assert first.stderr == ""
    server.requests.clear()
    environment["HF_HUB_OFFLINE"] = "1"
    second = subprocess.run(run, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert second.stdout == first.stdout, second.stderr
    assert not server.requests


def test_repositories_in_our_layout_are_loaded_by_name(server: HubServer) -> None:
    config = {"backbone": "estrnn", "variant": "lite", "config": {"n_features": 8}}
    server.add(REPO, {"config.json": json.dumps(config).encode()})
    found = weights.load_hub(REPO, offline=False)
    assert_loaded(found)
    assert found.config == config
    assert found.row is None
    server.requests.clear()
    assert_loaded(weights.load_hub(REPO, offline=True))
    assert not server.requests


@pytest.mark.parametrize(
    ("config", "match"),
    [(None, "no such file"), (b"{", "not JSON"), (b"{}", "names no backbone"), (b"[1]", "names no backbone")],
)
def test_repositories_in_another_layout_are_said_so(server: HubServer, config: bytes | None, match: str) -> None:
    if config is not None:
        server.add(REPO, {"config.json": config})
    assert_fails(lambda: weights.load_hub(REPO, offline=False), match)


@pytest.mark.parametrize("repo", ["name", "a/b/c", "", "a b/c", "https://huggingface.co/a/b"])
def test_names_that_are_no_repository(server: HubServer, repo: str) -> None:
    assert_fails(lambda: weights.load_hub(repo, offline=False), "not the name of a Hub repository")
    assert not server.requests


def test_a_broken_safetensors_on_the_hub_is_said_so(server: HubServer) -> None:
    server.add(REPO, {"config.json": b'{"backbone": "estrnn"}', "model.safetensors": SAFE[:-3]})
    assert_fails(lambda: weights.load_hub(REPO, offline=False), "cut short")


def test_files_by_hand_are_converted_where_they_are_put(server: HubServer, tmp_path: Path) -> None:
    error = assert_fails(lambda: weights.load("manual", offline=False), "fetched by hand from https://page")
    wanted = tmp_path / "cache" / "manual" / "w.tar"
    assert str(wanted) in error.hint
    assert weights.find("manual", offline=False).state == "manual"
    wanted.parent.mkdir(parents=True)
    wanted.write_bytes(PTH)
    assert weights.find("manual", offline=True).state == "here"
    found = weights.load("manual", offline=True)
    assert_loaded(found)
    assert found.notices
    wanted.unlink()
    assert_loaded(weights.load("manual", offline=True))


def test_files_by_hand_may_lie_anywhere(server: HubServer, tmp_path: Path) -> None:
    (tmp_path / "downloaded.tar").write_bytes(PTH)
    assert_loaded(weights.adopt("manual", tmp_path / "downloaded.tar"))
    assert_loaded(weights.load("manual", offline=True))
    assert_fails(lambda: weights.adopt("safe", tmp_path / "downloaded.tar"), "not the file of 'safe'")
    assert_fails(lambda: weights.adopt("manual", tmp_path / "none.tar"), "no file")


def test_files_by_hand_are_kept_and_recognised(server: HubServer, rows: dict[str, Row], tmp_path: Path) -> None:
    for name, content, row in (("x.pth", PTH, "pth"), ("w.tar", b"other", "manual"), ("y.safetensors", SAFE, "safe")):
        (tmp_path / name).write_bytes(content)
        found = weights.recognise(tmp_path / name)
        assert found is rows[row]
    (tmp_path / "z.pth").write_bytes(b"other")
    assert weights.recognise(tmp_path / "z.pth") is None
    assert_fails(lambda: weights.recognise(tmp_path / "none"), "no file")
    weights.adopt("safe", tmp_path / "y.safetensors")
    (tmp_path / "y.safetensors").unlink()
    assert_loaded(weights.load("safe", offline=True))


def test_what_is_here_is_read_from_a_cache_that_cannot_be_written(
    server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add(REPO, {"config.json": b'{"backbone": "estrnn"}'})
    weights.load("pth", offline=False)
    weights.load_hub(REPO, offline=False)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("nothing is to be written")

    for name in ("exclusive", "write_receipt", "write_safetensors"):
        monkeypatch.setattr(store, name, refuse)
    assert_loaded(weights.load("pth", offline=False))
    assert_loaded(weights.load_hub(REPO, offline=True))


def test_progress_of_the_clients_other_transport_is_one_bar(server: HubServer) -> None:
    """Large files of the real Hub arrive through Xet, which this server does not speak: only its reporting is run."""
    reporting = pytest.importorskip("huggingface_hub.utils._xet_progress_reporting")
    if not hasattr(reporting, "XetDownloadProgressReporter"):
        pytest.skip("this release of the client reports otherwise")
    seen: list[tuple[int, int | None]] = []
    with reporting.XetDownloadProgressReporter(
        reconstruction_desc="x", total=100, log_level=0, tqdm_class=hub_module._bar(lambda *step: seen.append(step))
    ) as reporter:
        for done in (0, 40, 100):
            report = SimpleNamespace(
                total_bytes=100,
                total_bytes_completed=done,
                total_bytes_completion_rate=1.0,
                total_transfer_bytes_completed=done // 2,
                total_transfer_bytes_completion_rate=1.0,
            )
            reporter.update_progress(report, {})
    assert seen == [(40, 100), (100, 100)]


def test_a_cache_that_cannot_be_written(server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("SELFHVD_TTA_CACHE", str(tmp_path / "taken"))
    error = assert_fails(lambda: weights.load("pth", offline=False), "cannot be written")
    assert "SELFHVD_TTA_CACHE" in error.hint
