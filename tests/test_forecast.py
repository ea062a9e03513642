"""The one forecast: its arithmetic, and that what the user is told comes from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import selfhvd_tta
from selfhvd_tta.events import Event, Plan
from selfhvd_tta.flows import FlowField, PairEstimator
from selfhvd_tta.method.clues import select_clues
from selfhvd_tta.method.restoration import Compute
from selfhvd_tta.run.equipment import Equipment, alignment_only
from selfhvd_tta.run.forecast import (
    CLOSING_SECONDS,
    Forecast,
    Load,
    Speeds,
    Stopwatch,
    adapting,
    ending,
    measure_speeds,
)
from selfhvd_tta.run.scan import Inspection
from selfhvd_tta.settings import AdaptationSettings, AlignmentSettings, ClueSettings, RuntimeSettings, Settings
from selfhvd_tta.video.opening import open_reader
from tests.media import shaky_file
from tests.tiny import Still

SPEEDS = Speeds(pair=0.1, write=0.02, frame=0.5, step=1e-5, merge=0.3)
LOAD = Load(frames=48, blurry=30, working=48, height=256, width=384)
ADAPT = Settings(method="adapt", adaptation=AdaptationSettings(iters=600, crop=128, clip_length=6))
TRANSFER = replace(ADAPT, method="transfer")


def test_transfer_costs_every_frame_its_network_its_sharp_frames_and_its_writing() -> None:
    pairs = 30 * 10 + 18 * 5
    assert ending(TRANSFER, SPEEDS, LOAD) == pytest.approx(48 * (0.5 + 0.3 + 0.02) + pairs * 0.1)
    assert ending(replace(TRANSFER, backbone="none"), SPEEDS, LOAD) == pytest.approx(48 * 0.32 + pairs * 0.1)
    assert ending(TRANSFER, SPEEDS, replace(LOAD, density=0.5)) == pytest.approx(48 * 0.82 + pairs * 0.05)
    assert adapting(TRANSFER, SPEEDS, LOAD) == 0
    alone = replace(ADAPT, adaptation=replace(ADAPT.adaptation, iters=0))
    assert ending(alone, SPEEDS, LOAD) == pytest.approx(48 * 0.52), "a backbone that knows nothing blends nothing in"


def test_adaptation_costs_steps_outputs_and_labels() -> None:
    steps = 600 * 1e-5 * 128 * 128 * 6
    label = 390 * 0.1 / 48
    every = adapting(ADAPT, SPEEDS, LOAD)
    assert every == pytest.approx(steps + 6 * 48 * 0.5 + 6 * 48 * label)
    once = adapting(ADAPT, SPEEDS, replace(LOAD, labels_last=True))
    assert once == pytest.approx(steps + 4 * 48 * 0.5 + 48 * label)
    assert adapting(replace(ADAPT, method="refit"), SPEEDS, LOAD) == pytest.approx(steps)
    whole = Forecast(SPEEDS, LOAD).seconds(ADAPT)
    assert whole == pytest.approx(every + ending(ADAPT, SPEEDS, LOAD) + CLOSING_SECONDS)


def test_the_literal_method_makes_labels_in_every_step() -> None:
    literal = Settings(literal=True, adaptation=AdaptationSettings(iters=10))
    label = 30 * 0.1 / 48
    expected = 10 * 10 * (256 * 256 * 1e-5 + 0.5 + label)
    assert adapting(literal, SPEEDS, LOAD) == pytest.approx(expected)
    assert not alignment_only(literal).networked


def test_alignments_are_those_that_the_clues_allow(tmp_path: Path) -> None:
    """One sharp frame gives every other frame one teacher and itself none, whatever number is asked for."""
    values = np.array([9.0, 1.0, 1.0, 1.0])
    clues = select_clues(values, [range(4)], ClueSettings())
    info = open_reader(shaky_file(tmp_path / "in.mp4", 4, 0)).info
    gear = Equipment(Compute(torch.device("cpu")), Still())
    load = Load.of(Inspection(info, clues, (0, 1, 2, 3), "", True), TRANSFER, gear, 4)
    assert (load.frames, load.blurry, load.height, load.width) == (4, 3, info.height, info.width)
    assert load.pairs(TRANSFER) == pytest.approx(3)


class Counting(PairEstimator):
    """Knows that nothing moves, and counts the pairs that it is asked for."""

    asked = 0

    def pair(self, source: torch.Tensor, target: torch.Tensor) -> tuple[FlowField, FlowField]:
        self.asked += 1
        still = FlowField(torch.zeros_like(source[:, :2]), torch.ones_like(source[:, :1]))
        return still, still


def test_blending_is_timed_with_one_sharp_frame_and_with_all() -> None:
    """The slope of the line through both is the time of a pair, what is left at none the rest of blending."""
    counter, asked = Counting(), []

    class Watch(Stopwatch):
        def steady(self, work: Callable[[], object]) -> float:
            before = counter.asked
            work()
            asked.append(counter.asked - before)
            return 2.0 + 0.25 * asked[-1]

    gear = Equipment(Compute(torch.device("cpu")), counter)
    frames = torch.randint(0, 256, (3, 3, 48, 64), dtype=torch.uint8)
    few = replace(TRANSFER, backbone="none", alignment=AlignmentSettings(teachers=5))
    speeds = measure_speeds(frames, few, gear, Watch(gear.device))
    assert asked == [1, 3], "not all five: it took too long"
    assert speeds.pair == pytest.approx(0.25)
    assert speeds.merge == pytest.approx(2.0)
    assert (speeds.frame, speeds.step, speeds.write) == (0.0, 0.0, 0.0)
    assert speeds.scaled(4).pair == pytest.approx(1.0)


def test_time_that_others_take_does_not_count_but_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clocks that tell two seconds of which the processor worked one."""
    wall, processor = iter([0.0, 2.0, 2.0, 4.0]), iter([0.0, 1.0, 1.0, 2.0])
    monkeypatch.setattr("selfhvd_tta.run.forecast.time.perf_counter", lambda: next(wall))
    monkeypatch.setattr("selfhvd_tta.run.forecast.time.process_time", lambda: next(processor))
    watch = Stopwatch(torch.device("cpu"))
    assert watch.once(lambda: None) == 1.0
    assert watch.once(lambda: None) == 1.0
    assert watch.busy == 2.0
    assert SPEEDS.slowed(2.0) == Speeds(pair=0.2, write=0.04, frame=1.0, step=2e-5, merge=0.6)


@pytest.mark.parametrize(("method", "other"), [("transfer", "adapt"), ("adapt", "transfer")])
def test_the_plan_names_the_seconds_of_each_method(method: str, other: str, tmp_path: Path) -> None:
    events: list[Event] = []
    settings = Settings(
        method=method,  # type: ignore[arg-type]
        backbone="estrnn:lite",
        force=True,
        alignment=AlignmentSettings(flow="dis:ultrafast", teachers=2),
        adaptation=AdaptationSettings(iters=1, crop=32, clip_length=2),
        runtime=RuntimeSettings(device="cpu", offline=True),
    )
    selfhvd_tta.deblur(shaky_file(tmp_path / "in.mp4", 6, 0), tmp_path / "out.mp4", settings, events.append)
    (plan,) = (event for event in events if isinstance(event, Plan))
    assert [time.method for time in plan.times] == [method, other]
    assert plan.minutes == pytest.approx(plan.times[0].seconds / 60)
    assert f"{other} about" in dict(plan.rows)["instead"]
