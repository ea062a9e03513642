"""``inspect`` and ``models``: what fits the terminal, and the same for programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from selfhvd_tta.cli import app
from tests.media import shaky_file


@pytest.mark.parametrize("columns", ["80", "50"])
def test_inspect_fits_the_terminal(columns: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", columns)
    shaky_file(Path("s.mp4"), count=90)
    done = CliRunner().invoke(app, ["inspect", "s.mp4"])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert max(map(len, lines)) <= int(columns)
    assert max(map(len, lines)) >= int(columns) - 1, "all of it is used"
    assert lines[1].endswith("1 shot")


def test_inspect_as_json(tmp_path: Path) -> None:
    source = shaky_file(tmp_path / "s.mp4")
    found = json.loads(CliRunner().invoke(app, ["inspect", str(source), "--json"]).output)
    assert (found["frames"], found["width"], found["height"], found["shots"]) == (12, 80, 64, [[0, 12]])
    assert found["sharp"] == [1, 4, 7, 10]
    assert found["helpful"]
    assert len(found["sharpness"]) == 12


@pytest.mark.parametrize("columns", ["80", "50"])
def test_models_fit_the_terminal(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    lines = CliRunner().invoke(app, ["models"]).output.splitlines()
    # An address cannot be wrapped.
    assert max(len(line) for line in lines if "://" not in line and "hf:" not in line) <= int(columns)
    assert "  relay: lite; code MIT" in lines


def test_models_as_json() -> None:
    from selfhvd_tta import backbones, flows

    found = json.loads(CliRunner().invoke(app, ["models", "--json"]).output)
    assert {b["id"] for b in found["backbones"]} == set(backbones.discover())
    assert {f["id"] for f in found["flows"]} == set(flows.discover())
    assert next(w for w in found["weights"] if w["name"] == "relay-lite")["state"] == "here"
