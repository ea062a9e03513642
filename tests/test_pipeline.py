"""The Python interface: results, events, errors."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

import selfhvd_tta
from selfhvd_tta.errors import DeviceError, PreconditionError
from selfhvd_tta.events import Event, Finished, Note, Plan
from selfhvd_tta.method.adaptation import Adaptation
from selfhvd_tta.settings import AdaptationSettings, AlignmentSettings, RuntimeSettings, Settings
from tests.media import make_clip
from tests.test_cli import shaky_file

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
    def exhausted(self: Adaptation) -> None:
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


def test_the_public_names_are_these() -> None:
    assert selfhvd_tta.__all__ == [
        "Inspection", "Result", "SelfHVDError", "Settings", "__version__", "deblur", "inspect",
    ]  # fmt: skip
    for name in selfhvd_tta.__all__:
        assert getattr(selfhvd_tta, name) is not None
    with pytest.raises(AttributeError):
        selfhvd_tta.nonsense  # noqa: B018
