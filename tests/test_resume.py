"""Interrupted runs: nothing is lost, nothing is half written, and what comes out is the same byte for byte."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import selfhvd_tta
from selfhvd_tta.errors import Interrupted, UsageError
from selfhvd_tta.events import Event, Listener, Note, Progress, ignore
from selfhvd_tta.method.adaptation import Adaptation
from selfhvd_tta.method.checkpoint import Checkpoint, capture, resume
from selfhvd_tta.run.cancelling import CancelToken
from selfhvd_tta.run.job import Job, job_folder, sweep
from selfhvd_tta.settings import AdaptationSettings, AlignmentSettings, RuntimeSettings, Settings
from tests.commands import QUICK, run
from tests.conftest import ROOT
from tests.media import decode_planes, shaky_file
from tests.test_pipeline import QUICK as SETTINGS
from tests.tiny import Still, adaptation_of, blurry_clip

BANK = AdaptationSettings(iters=10, stage1=0.5, crop=16, clip_length=3, label_refresh=3, learning_rate=1e-2)
SMALL = (56, 48)  # a segment has 60 frames: what is longer is made of small ones
LIVE = replace(BANK, teacher="live", label_refresh=1)


class Explaining(Still):
    explains_blur = True


def adaptation(plan: AdaptationSettings, flow: type[Still] = Still, listen: Listener = ignore) -> Adaptation:
    settings = Settings(adaptation=plan, alignment=AlignmentSettings(teachers=1))
    return adaptation_of(blurry_clip(9, 24, 28), settings, listen, flow(), window=3)


@pytest.mark.parametrize(
    ("plan", "flow"),
    [(BANK, Still), (BANK, Explaining), (LIVE, Still), (replace(BANK, early_stop=True, iters=14), Explaining)],
    ids=["bank", "bank, explaining", "live", "early stop"],
)
def test_a_checkpoint_at_any_step_leads_to_the_same_weights(
    plan: AdaptationSettings, flow: type[Still], tmp_path: Path
) -> None:
    whole = adaptation(plan, flow)
    kept: list[Checkpoint] = []
    whole.run(lambda refresh_is_next: kept.append(capture(whole)))
    assert len(kept) == (whole.state.record.ended_early or plan.iters)
    for checkpoint in kept[:-1]:
        with Job(tmp_path / f"{checkpoint.step}.mp4") as job:
            job.save_adaptation(checkpoint)
            stored = job.adaptation()
        assert stored is not None
        torch.manual_seed(99)
        again = adaptation(plan, flow)
        resume(again, stored)
        record = again.run()
        for name, weights in whole.network.state_dict().items():
            assert torch.equal(weights, again.network.state_dict()[name]), (checkpoint.step, name)
        assert record == whole.state.record


@pytest.mark.parametrize("flow", [Still, Explaining])
@pytest.mark.parametrize("early_stop", [False, True])
def test_stopped_while_labels_are_made_and_taken_up_again(flow: type[Still], early_stop: bool) -> None:
    """In the middle of a step: clips are drawn, and the refresh before it, if there was one, is done."""
    plan = replace(BANK, early_stop=early_stop, iters=9)
    labels: list[Event] = []
    whole = adaptation(plan, flow, labels.append)
    whole.run()
    count = sum(isinstance(e, Progress) and e.phase == "labels" for e in labels)
    assert count >= (12 if flow is Still else 6)
    left = [0]

    def stop(event: Event) -> None:
        left[0] -= isinstance(event, Progress) and event.phase == "labels"
        if left[0] == 0:
            raise Interrupted("stopped", "")

    for after in range(1, count + 1):
        left[0] = after
        first = adaptation(plan, flow, stop)
        with pytest.raises(Interrupted):
            first.run()
        left[0] = -1
        again = adaptation(plan, flow)
        if first.state.step:
            resume(again, capture(first))
        assert again.run() == whole.state.record, after
        for name, weights in whole.network.state_dict().items():
            assert torch.equal(weights, again.network.state_dict()[name]), (after, name)


class Stopper:
    """Asks to stop after so many events of a phase."""

    def __init__(self, phase: str, after: int) -> None:
        self.phase, self.left = phase, after
        self.token = CancelToken()
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Progress) and event.phase == self.phase:
            self.left -= 1
            if self.left == 0:
                self.token.cancel()

    @property
    def told(self) -> str:
        return "\n".join(e.text for e in self.events if isinstance(e, Note))


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shaky_file(tmp_path_factory.mktemp("clip") / "long.mp4", 70, 2, SMALL)


@pytest.fixture(scope="module")
def reference(long_clip: Path) -> bytes:
    out = long_clip.parent / "reference.mp4"
    selfhvd_tta.deblur(long_clip, out, SETTINGS)
    return out.read_bytes()


def test_stopping_again_and_again_ends_in_the_same_file(long_clip: Path, reference: bytes, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    said = []
    for phase, after in (("labels", 2), ("stage 1", 1), ("labels", 2), ("restore", 3), ("restore", 60)):
        stopper = Stopper(phase, after)
        with pytest.raises(Interrupted) as caught:
            selfhvd_tta.deblur(long_clip, out, SETTINGS, stopper, stopper.token)
        said.append(stopper.told)
        assert not out.exists()
        assert job_folder(out).exists() == (len(said) > 1), "nothing is kept where nothing is done"
        if job_folder(out).exists():
            assert "same command" in caught.value.hint
    assert "1 steps of adaptation are done" in said[2]
    assert "4 frames are written" in said[4]
    last = Stopper("none", 1)
    selfhvd_tta.deblur(long_clip, out, SETTINGS, last)
    assert "continuing an interrupted run (65 frames are written)" in last.told
    assert min(e.done for e in last.events if isinstance(e, Progress) and e.phase == "restore") == 66
    assert out.read_bytes() == reference
    assert os.listdir(tmp_path) == ["out.mp4"]


@pytest.mark.parametrize("backbone", ["estrnn:lite", "ifirnn"])
def test_restoration_goes_on_with_the_same_bits(backbone: str, long_clip: Path, tmp_path: Path) -> None:
    """With recurrent networks (the second with random weights), whose state has to be kept."""
    from selfhvd_tta.run import networks as models
    from selfhvd_tta.weights import save

    plain = replace(SETTINGS, adaptation=AdaptationSettings(iters=0), backbone=backbone)
    plain = replace(plain, runtime=replace(plain.runtime, window=7))
    if backbone == "ifirnn":
        torch.manual_seed(0)
        descriptor, variant = models.find_backbone(backbone)
        file = tmp_path / "w.safetensors"
        save(file, descriptor.build(**variant.config).state_dict(), {"backbone": "ifirnn", "variant": variant.name})
        plain = replace(plain, weights=str(file))
    whole, out = tmp_path / "whole.mp4", tmp_path / "out.mp4"
    selfhvd_tta.deblur(long_clip, whole, plain)
    stopper = Stopper("restore", 64)
    with pytest.raises(Interrupted):
        selfhvd_tta.deblur(long_clip, out, plain, stopper, stopper.token)
    assert list(job_folder(out).glob("mark-*")), "the network can be taken up where it was"
    selfhvd_tta.deblur(long_clip, out, plain)
    assert out.read_bytes() == whole.read_bytes()


def interrupted(source: Path, out: Path, settings: Settings) -> None:
    stopper = Stopper("stage 1", 1)
    with pytest.raises(Interrupted):
        selfhvd_tta.deblur(source, out, settings, stopper, stopper.token)
    assert job_folder(out).exists()


@pytest.mark.parametrize("change", ["input", "setting", "weights", "restart", "nothing"])
def test_a_changed_run_is_begun_anew_and_says_why(change: str, tmp_path: Path) -> None:
    source, out = shaky_file(tmp_path / "in.mp4", 6, 0), tmp_path / "out.mp4"
    settings = SETTINGS
    if change == "weights":
        from selfhvd_tta.run import networks as models
        from selfhvd_tta.weights import save

        descriptor, variant = models.find_backbone("estrnn:lite")
        files = [tmp_path / "w.safetensors"] * 2
        for seed, file in enumerate(files):
            torch.manual_seed(seed)
            save(file, descriptor.build(**variant.config).state_dict(), {"backbone": "estrnn", "variant": "lite"})
            if seed == 0:
                settings = replace(settings, weights=str(file))
                interrupted(source, out, settings)
    else:
        interrupted(source, out, settings)
    if change == "input":
        os.utime(source, ns=(1, 1))
    elif change == "setting":
        settings = replace(settings, adaptation=replace(settings.adaptation, iters=3))
    elif change == "restart":
        settings = replace(settings, runtime=replace(settings.runtime, restart=True))
    listener = Stopper("none", 1)
    result = selfhvd_tta.deblur(source, out, settings, listener)
    words = {
        "input": "not resuming: the input file changed; starting over",
        "setting": "not resuming: --iters changed from 2 to 3; starting over",
        "weights": "not resuming: its weights changed; starting over",
        "restart": "",
        "nothing": "continuing an interrupted run (1 steps of adaptation are done)",
    }
    assert words[change] in listener.told
    assert ("continuing" in listener.told) == (change == "nothing")
    assert result.record is not None
    assert len(result.record.steps) == settings.adaptation.iters
    assert not job_folder(out).exists()


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
def test_a_damaged_checkpoint_is_not_used(damage: str, tmp_path: Path) -> None:
    source, out = shaky_file(tmp_path / "in.mp4", 6, 0), tmp_path / "out.mp4"
    interrupted(source, out, SETTINGS)
    file = job_folder(out) / "adaptation.safetensors"
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[100] ^= 0x55
    file.write_bytes(data[: {"truncate": len(data) // 2, "flip": len(data), "empty": 0}[damage]])
    assert selfhvd_tta.deblur(source, out, SETTINGS).action == "adapted"


def test_two_runs_at_once_on_one_output(tmp_path: Path) -> None:
    source, out = shaky_file(tmp_path / "in.mp4", 6, 0), tmp_path / "out.mp4"
    words = f"another run is already writing this output .process {os.getpid()}"
    with Job(out), pytest.raises(UsageError, match=words):
        selfhvd_tta.deblur(source, out, SETTINGS)
    assert selfhvd_tta.deblur(source, out, SETTINGS).action == "adapted"


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom selfhvd_tta.run.job import Job\n"
        f"with Job(Path({str(out)!r})):\n    print('held', flush=True)\n    time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    with pytest.raises(UsageError, match=str(child.pid)), Job(out):
        pass
    child.kill()
    child.wait()
    child.stdout.close()
    with Job(out):
        pass
    assert os.listdir(tmp_path) == []


def test_a_run_that_was_killed_at_its_very_end_is_tidied_up(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    with suppress(ZeroDivisionError), Job(out) as job:
        (job.segments / "segments.json").write_text(json.dumps({"segments": [{"pts": [0]}]}))
        job.finishing()
        1 / 0  # noqa: B018
    sweep(out)
    assert job_folder(out).exists(), "the output is not there yet"
    out.write_bytes(b"complete")
    sweep(out)
    assert os.listdir(tmp_path) == ["out.mp4"]


def start(source: Path, out: Path, *options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "selfhvd_tta", "deblur", source, "-o", out, *QUICK, *options, "--json"]
    return subprocess.Popen(
        [str(c) for c in command],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background of a shell ignores SIGINT, and would hand that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def until(child: subprocess.Popen[str], phase: str, done: int) -> None:
    stop = threading.Timer(120, child.kill)
    stop.start()
    assert child.stdout is not None
    for line in iter(child.stdout.readline, ""):
        event: dict[str, Any] = json.loads(line)
        if event["event"] == "progress" and event["phase"] == phase and event["done"] >= done:
            break
    stop.cancel()


FEW = ("--iters", "6", "--crop", "32", "--clip-length", "4", "--checkpoint-minutes", "0")


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_killed_in_adaptation_and_in_restoration(tmp_path: Path) -> None:
    source = shaky_file(tmp_path / "in.mp4", 64, 2, SMALL)
    whole = tmp_path / "whole.mp4"
    assert run("deblur", source, "-o", whole, *QUICK, *FEW).returncode == 0
    (tmp_path / "here").mkdir()
    out = tmp_path / "here" / "out.mp4"
    for phase, done in (("stage 1", 2), ("restore", 63)):
        child = start(source, out, *FEW)
        until(child, phase, done)
        child.kill()
        child.communicate()
        assert not out.exists()
    last = run("deblur", source, "-o", out, *QUICK, *FEW)
    assert last.returncode == 0, last.stderr
    assert "continuing an interrupted run" in last.stderr
    assert out.read_bytes() == whole.read_bytes()
    assert os.listdir(out.parent) == ["out.mp4"]
    assert len(decode_planes(out)) == 64


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_once_and_twice(presses: int, long_clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    child = start(long_clip, out, "--iters", "100000", "--crop", "32", "--clip-length", "4")
    until(child, "stage 1", 2)
    for _ in range(presses):
        child.send_signal(signal.SIGINT)
    output, errors = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "Traceback" not in errors
    last = json.loads(output.splitlines()[-1])
    assert last["exit_code"] == 130
    assert "stopping at the next safe point" in errors
    if presses == 1:
        assert "same command" in last["hint"]
        assert job_folder(out).exists()
    assert not out.exists()


PRESSED = """
import os, signal, sys
from selfhvd_tta import cli
from selfhvd_tta.video import writer
write, calls = writer.VideoWriter.write, []
def pressed(self, rgb, pts):
    write(self, rgb, pts)
    calls.append(pts)
    if len(calls) == 20:
        os.kill(os.getpid(), signal.SIGINT)
writer.VideoWriter.write = pressed
signal.signal(signal.SIGINT, signal.default_int_handler)
cli.main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_ctrl_c_while_writing_keeps_every_frame_that_was_restored(
    long_clip: Path, reference: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "out.mp4"
    few = ("--iters", "2", "--crop", "32", "--clip-length", "3")
    child = subprocess.run(
        [str(c) for c in (sys.executable, "-c", PRESSED, "deblur", long_clip, "-o", out, *QUICK, *few)],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert child.returncode == 130, child.stderr
    assert "same command" in child.stderr
    assert not out.exists()
    last = Stopper("none", 1)
    selfhvd_tta.deblur(long_clip, out, SETTINGS, last)
    assert "continuing an interrupted run (20 frames are written)" in last.told
    assert min(e.done for e in last.events if isinstance(e, Progress) and e.phase == "restore") == 21
    assert out.read_bytes() == reference


def test_settings_of_the_run_do_not_count_as_changes(tmp_path: Path) -> None:
    source, out = shaky_file(tmp_path / "in.mp4", 6, 0), tmp_path / "out.mp4"
    interrupted(source, out, SETTINGS)
    runtime = RuntimeSettings(device="cpu", offline=True, checkpoint_minutes=7)
    listener = Stopper("none", 1)
    selfhvd_tta.deblur(source, out, replace(SETTINGS, runtime=runtime, strict=True), listener)
    assert "continuing" in listener.told
