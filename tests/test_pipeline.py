"""The Python interface: results, events, errors."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
import torch

import selfhvd_tta
from selfhvd_tta.errors import DeviceError, PreconditionError
from selfhvd_tta.events import Event, Finished, Note, Plan, Progress
from selfhvd_tta.method.adaptation import Adaptation
from selfhvd_tta.settings import AdaptationSettings, AlignmentSettings, RuntimeSettings, Settings
from tests.media import make_clip, shaky_file

QUICK = Settings(
    backbone="estrnn:lite",
    alignment=AlignmentSettings(flow="dis:ultrafast", teachers=1),
    adaptation=AdaptationSettings(iters=2, crop=32, clip_length=3),
    runtime=RuntimeSettings(device="cpu", offline=True),
)


def test_deblur_returns_what_it_did_and_tells_as_it_goes(tmp_path: Path) -> None:
    events: list[Event] = []
    result = selfhvd_tta.deblur(shaky_file(tmp_path / "in.mp4", 6, 0), tmp_path / "out.mp4", QUICK, events.append)
    assert (result.action, result.frames) == ("adapted", 6)
    assert result.output.exists()
    assert result.record is not None
    assert len(result.record.steps) == 2
    kinds = [type(e) for e in events]
    assert kinds.index(Plan) < kinds.index(Finished) == len(kinds) - 1
    assert result.notes == tuple(e.text for e in events if isinstance(e, Note))


def test_running_out_of_memory_while_adapting_says_what_would_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(self: Adaptation, after_step: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Adaptation, "run", exhausted)
    source = shaky_file(tmp_path / "in.mp4", 6, 0)
    with pytest.raises(DeviceError, match="not enough memory") as caught:
        selfhvd_tta.deblur(source, tmp_path / "out.mp4", QUICK)
    assert "--crop" in caught.value.hint
    assert os.listdir(tmp_path) == ["in.mp4"]


def test_strict_refuses_a_video_that_cannot_gain(tmp_path: Path) -> None:
    from dataclasses import replace

    source = make_clip(tmp_path / "even.mp4")
    with pytest.raises(PreconditionError):
        selfhvd_tta.deblur(source, tmp_path / "out.mp4", replace(QUICK, strict=True))
    assert selfhvd_tta.deblur(source, tmp_path / "out.mp4", QUICK).action == "passed through"


@pytest.mark.parametrize("phase", ["scan", "stage 1", "restore"])
def test_a_run_can_be_cancelled_from_another_thread(tmp_path: Path, phase: str) -> None:
    source = shaky_file(tmp_path / "in.mp4", 6, 0)
    token = selfhvd_tta.CancelToken()
    reached = threading.Event()

    def press() -> None:
        reached.wait(60)
        token.cancel()

    canceller = threading.Thread(target=press)

    def listen(event: Event) -> None:
        if isinstance(event, Progress) and event.phase == phase:
            reached.set()
            canceller.join()

    canceller.start()
    with pytest.raises(selfhvd_tta.Interrupted, match="cancelled"):
        selfhvd_tta.deblur(source, tmp_path / "out.mp4", QUICK, listen, token)
    assert set(os.listdir(tmp_path)) <= {"in.mp4", ".out.mp4.job"}, "nothing but what the next run continues"
    with pytest.raises(selfhvd_tta.Interrupted):
        selfhvd_tta.inspect(source, cancel=token)


def test_what_a_listener_raises_ends_the_run_and_leaves_nothing(tmp_path: Path) -> None:
    def listen(event: Event) -> None:
        if isinstance(event, Progress) and event.phase == "restore":
            raise KeyError("mine")

    source = shaky_file(tmp_path / "in.mp4", 6, 0)
    with pytest.raises(KeyError, match="mine"):
        selfhvd_tta.deblur(source, tmp_path / "out.mp4", QUICK, listen)
    assert set(os.listdir(tmp_path)) <= {"in.mp4", ".out.mp4.job"}, "nothing but what the next run continues"
