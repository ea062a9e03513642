"""Two processes train like one with twice the batch."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from selfhvd_tta.lab.training import network, pretrain
from tests import pretrain_rank

ROOT = Path(__file__).parent.parent
RECIPE: dict[str, Any] = {
    "backbone": "tiny",
    "steps": 4,
    "crop": 16,
    "clip_length": 3,
    "pool": 3,
    "renewal": 1,
    "clip_size": 24,
    "clip_frames": 4,
    "warmup": 1,
    "validate_every": 2,
    "budget": 600.0,
}


def write(config: dict[str, Any]) -> Path:
    path = Path(config["output"]).with_suffix(".json")
    path.write_text(json.dumps(config))
    return path


def start(config: dict[str, Any], rank: int, count: int, port: int) -> subprocess.Popen[str]:
    path = write(config)
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_PORT": port}
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    environment.update({name: str(value) for name, value in ranks.items()})
    command = [sys.executable, "-m", "tests.pretrain_rank", str(path)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def train(config: dict[str, Any], count: int) -> list[subprocess.Popen[str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [start(config, rank, count, port) for rank in range(count)]


def test_two_processes_equal_one_with_a_double_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    for index in range(3):
        noise = np.random.default_rng(index).integers(0, 256, (120, 120, 3)).astype(np.uint8)
        cv2.imwrite(str(tmp_path / "photos" / f"{index}.png"), cv2.GaussianBlur(noise, (0, 0), 1.5))
    common = {**RECIPE, "data": str(tmp_path / "photos")}
    # A constant rate, since a time budget anneals by the clock.
    common |= {"learning_rate": 1e-3, "final_learning_rate": 1e-3}
    two = {**common, "output": str(tmp_path / "two"), "batch": 2, "accumulate": 2}
    one = {**common, "output": str(tmp_path / "one"), "batch": 4}
    processes = train(two, 2)
    for module, name in ((network, "discover"), (pretrain, "validation_sets"), (pretrain, "train")):
        monkeypatch.setattr(module, name, getattr(module, name))  # so that what follows is taken back
    pretrain_rank.train_as_told(write(one))
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    first, second = (torch.load(tmp_path / "two" / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    single = torch.load(tmp_path / "one" / "rank0.pt", weights_only=True)
    for name, tensor in first["network"].items():
        assert torch.equal(tensor, second["network"][name]), name
        torch.testing.assert_close(tensor, single["network"][name], atol=2e-5, rtol=1e-3)
    assert first["loss"] == second["loss"] == pytest.approx(single["loss"], rel=1e-4)
    # Only the first one wrote: one line per report.
    steps = [json.loads(line)["step"] for line in (tmp_path / "two" / "log.jsonl").read_text().splitlines()]
    assert steps == [2, 4]
    assert json.loads((tmp_path / "two" / "run.json").read_text())["processes"] == 2
