"""Publishing to the Hub with its real client, and reading back what was published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from selfhvd_tta.weights import load_hub, publish, save
from tests.hub_server import HubServer, hub, sha256  # noqa: F401 (a fixture)
from tests.test_weights_hub import STATE, assert_fails, assert_loaded

CONFIG = {
    "backbone": "estrnn",
    "variant": "lite",
    "config": {"n_features": 8},
    "licence": "MIT",
    "trained_on": "one video",
}
REPO = "me/my-model"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save(tmp_path / "mine.safetensors", STATE, CONFIG)
    return tmp_path / "mine.safetensors"


def test_published_weights_can_be_used_by_name(hub: HubServer, path: Path) -> None:  # noqa: F811
    done = publish(path, REPO, token="hf_secret", about="Sharpens my street.")
    assert done.url == f"{hub.url}/{REPO}"
    assert done.sha256 == sha256(path.read_bytes())
    assert done.use.endswith(f"--backbone hf:{REPO}")
    files = hub.repositories[REPO].files
    assert sorted(files) == ["README.md", "config.json", "model.safetensors"]
    assert len(hub.asked("POST", "/commit/")) == 1, "all in one commit"
    found = load_hub(REPO, offline=False)
    assert_loaded(found)
    assert {key: found.config[key] for key in CONFIG} == CONFIG
    card = files["README.md"].decode()
    assert card.startswith("---\nlibrary_name: selfhvd-tta\nlicense: mit\n")
    for fact in ("Sharpens my street.", "one video", done.sha256, "estrnn, variant lite", f"hf:{REPO}", "| 15 |"):
        assert fact in card


def test_publishing_again_replaces(hub: HubServer, path: Path) -> None:  # noqa: F811
    publish(path, REPO, token="hf_secret")
    save(path, {"conv.weight": torch.zeros(2)}, CONFIG | {"licence": "Our own licence"})
    publish(path, REPO, token="hf_secret")
    assert list(load_hub(REPO, offline=False).tensors) == ["conv.weight"]
    card = hub.repositories[REPO].files["README.md"].decode()
    assert 'license: other\nlicense_name: "Our own licence"\n' in card
    assert json.loads(hub.repositories[REPO].files["config.json"])["licence"] == "Our own licence"


def test_only_files_that_say_what_they_are_for(hub: HubServer, path: Path, tmp_path: Path) -> None:  # noqa: F811
    save_file(STATE, tmp_path / "bare.safetensors")
    error = assert_fails(lambda: publish(tmp_path / "bare.safetensors", REPO, token="x"), "does not say which backbone")
    assert "--save-adapted" in error.hint
    save(path, STATE, {"backbone": "estrnn", "variant": "lite"})
    assert_fails(lambda: publish(path, REPO, token="x"), "states no licence")
    assert_fails(lambda: publish(path, "me", token="x"), "not the name of a Hub repository")
    assert not hub.requests
    publish(path, REPO, token="x", licence="MIT")


def test_only_for_those_who_may(hub: HubServer, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    error = assert_fails(lambda: publish(path, REPO), r"not logged in|refuses access|no repository")
    assert "hf auth login" in error.hint
    hub.status = 403
    assert_fails(lambda: publish(path, REPO, token="x"), r"refuses access \(status 403\)")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert_fails(lambda: publish(path, REPO, token="x"), "needs the network")


def test_nothing_is_printed(hub: HubServer, path: Path, capfd: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    publish(path, REPO, token="x")
    assert capfd.readouterr() == ("", "")
