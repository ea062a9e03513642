"""The script for the day a GPU is there: it runs, on a CPU at toy size, and its page says what was not measured."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "benchmarks" / "gpu_check"
QUICK = ("environment", "steps", "memory", "graph", "labels", "exhaustion", "street")


def dry(results: Path, *options: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(results), "--dry", *options],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in results.read_text().splitlines()]


@pytest.mark.dry_gpu
def test_the_quick_parts_run(tmp_path: Path) -> None:
    lines = dry(tmp_path / "r.jsonl", "--only", ",".join(QUICK))
    assert {line["part"] for line in lines} == set(QUICK)
    assert not [line for line in lines if "error" in line]
    assert {line["stage"] for line in lines if line["part"] == "steps"} == {1, 2}
    assert all(line["lost_frames"] == 0 for line in lines if line["part"] == "memory")
    filled = page().table((tmp_path / "r.jsonl").read_text())
    assert filled == page().table(""), "a dry run proves nothing"


@pytest.mark.dry_gpu
def test_all_parts_run(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if "dry_gpu" not in request.config.option.markexpr:
        pytest.skip("takes a minute: pytest -m dry_gpu")
    lines = dry(tmp_path / "r.jsonl", "--limit", "250")
    assert not [line for line in lines if "error" in line]
    by_part = {line["part"]: line for line in lines}
    assert by_part["learning"]["relative"] == 0.0, "the device is the CPU"
    assert by_part["determinism"]["same_twice"]
    assert by_part["determinism"]["same_resumed"]
    assert by_part["jobs"]["frames"] == 8


def test_without_time_every_part_says_so(tmp_path: Path) -> None:
    lines = dry(tmp_path / "r.jsonl", "--limit", "-1")
    assert len(lines) == 11
    assert all("skipped" in line for line in lines)


def page() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_page", SCRIPT / "page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_filled_in_by_lines_of_a_gpu_only() -> None:
    lines = [
        {"part": "steps", "on": "cpu", "network": "relay:lite", "stage": 2, "ms": 1.0},
        {"part": "steps", "on": "cuda", "network": "relay:lite", "stage": 2, "ms": 41.26, "waits": ""},
        {"part": "determinism", "on": "cuda", "network": "estrnn:lite", "same_twice": True},
        {"part": "parity", "on": "cuda", "error": "RuntimeError"},
    ]
    text = page().table("\n".join(map(json.dumps, lines)))
    assert "| relay:lite: step of stage 2, ms | 41.3 |  |" in text
    assert "| relay:lite: what the host waits for | nothing | nothing |" in text
    assert "| estrnn:lite: the same bytes twice | true | true |" in text
    assert "| estrnn:c80b15: step of stage 2, ms | not measured |  |" in text


def test_the_page_in_the_docs_has_the_rows_of_the_script() -> None:
    stored = (ROOT / "docs" / "lab" / "gpu.md").read_text()
    rows = [line.split("|")[1] for line in stored.splitlines() if line.count("|") == 4]
    for line in page().table("").splitlines():
        assert line.split("|")[1] in rows
