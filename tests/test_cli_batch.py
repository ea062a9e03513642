"""The commands around the main one: batch, config, doctor."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from selfhvd_tta import config
from selfhvd_tta.config import override
from selfhvd_tta.settings import Settings
from tests.commands import FEW, QUICK, ROOT, run
from tests.media import shaky_file


def test_config_show_and_config(tmp_path: Path) -> None:
    shown = run("config", "show", "--iters", "50", "--learning-rate", "1e-9", "--no-detail", "--codec", "hevc")
    assert shown.returncode == 0, shown.stderr
    expected = override(Settings(), {"iters": 50, "learning_rate": 1e-9, "detail": False, "codec": "hevc"})
    assert config.parse(shown.stdout) == expected
    (tmp_path / "job.toml").write_text(shown.stdout)
    again = run("config", "show", "--config", tmp_path / "job.toml", "--iters", "2000", "--detail")
    assert config.parse(again.stdout) == override(expected, {"iters": 2000, "detail": True})
    (tmp_path / "job.toml").write_text("itres = 3")
    wrong = run("deblur", "a.mp4", "-o", "b.mp4", "--config", tmp_path / "job.toml")
    assert wrong.returncode == 2
    assert "itres is not a setting" in wrong.stderr


def test_batch_reports_what_failed_and_continues(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    shaky_file(folder / "a.mp4")
    (folder / "broken.mp4").write_text("no video\n")
    command = ["batch", folder, "-o", out, *QUICK, "--method", "transfer"]
    dry = run(*command, "--dry-run")
    assert dry.returncode == 0
    assert "80x64" in dry.stdout
    assert "unreadable" in dry.stdout
    assert not out.exists()
    done = run(*command)
    assert done.returncode == 7, done.stderr
    assert "1 of 2 videos failed" in done.stderr
    assert "transferred" in done.stdout
    shutil.copy(folder / "a.mp4", folder / "broken.mp4")
    again = run(*command, "--json")
    assert again.returncode == 0, again.stderr
    events = [json.loads(line) for line in again.stdout.splitlines()]
    assert {e["video"] for e in events} == {"broken.mp4"}
    assert (events[0]["event"], events[-1]["event"], events[-1]["state"]) == ("started", "ended", "done")


def test_batch_is_interrupted_cleanly(tmp_path: Path) -> None:
    shaky_file(tmp_path / "a.mp4")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "selfhvd_tta", "batch", tmp_path, "-o", out, *QUICK, *FEW]
    command += ["--iters", "100000", "--json"]
    child = subprocess.Popen(
        [str(c) for c in command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background of a shell ignores SIGINT, and would hand that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert child.stdout is not None
    for line in child.stdout:
        if '"stage 1"' in line:
            break
    child.send_signal(signal.SIGINT)
    rest, errors = child.communicate(timeout=60)
    assert child.returncode == 130, errors
    assert "0 of 1 videos were finished" in rest
    assert "Traceback" not in errors
    assert set(os.listdir(out)) <= {".batch.lock", ".a.mp4.job"}


def test_doctor(tmp_path: Path) -> None:
    done = run("doctor", tmp_path)
    assert done.returncode == 0, done.stdout
    for words in ("libx264", "bundled network", "memory"):
        assert words in done.stdout
    assert run("doctor", tmp_path / "nowhere").returncode == 1
