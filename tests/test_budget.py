"""``--budget``: what is chosen for a given time, and that it is kept."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import selfhvd_tta
from selfhvd_tta.errors import UsageError
from selfhvd_tta.events import Finished, Note, Progress, ignore
from selfhvd_tta.method.teachers import most_alignments
from selfhvd_tta.run.budget import CAUTION, FEWEST_STEPS, WANTED_STEPS, Fit, choose
from selfhvd_tta.run.deadline import Deadline
from selfhvd_tta.run.equipment import Equipment
from selfhvd_tta.run.forecast import Forecast, Load, Speeds
from selfhvd_tta.run.scan import scan
from selfhvd_tta.settings import AdaptationSettings, AlignmentSettings, RuntimeSettings, Settings
from selfhvd_tta.times import seconds_of
from selfhvd_tta.video.opening import open_reader
from tests.media import shaky_file

SPEEDS = Speeds(pair=0.1, write=0.02, frame=0.05, step=2e-6)
LOAD = Load(frames=48, blurry=30, working=48, height=256, width=384)


def settings(budget: float, **plan: object) -> Settings:
    return Settings(method="adapt", adaptation=AdaptationSettings(**plan), runtime=RuntimeSettings(budget=budget))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("1h", 3600), ("1h30m", 5400), ("1.5M", 90), (" 2m5s ", 125)]
)
def test_times_as_people_write_them(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "soon", "0s", "-5m", "5m later", "..s"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UsageError, match="90s, 5m or 1h30m"):
        seconds_of(text)


def spent(choice: Settings, lasting: bool) -> float:
    """Duration by the speeds that were given, counted step by step."""
    align, plan = choice.alignment, choice.adaptation
    pairs = most_alignments(LOAD.frames, LOAD.blurry, align.teachers)
    ending = LOAD.frames * SPEEDS.write + pairs * SPEEDS.pair
    if choice.method == "transfer":
        return ending
    assert plan.crop
    assert plan.clip_length
    assert plan.label_refresh
    outputs, labelled, seconds = LOAD.working * SPEEDS.frame, 0, 0.0
    for step in range(plan.iters):
        stage2 = step >= plan.iters / 2
        # Stage 2 begins with a refresh of its own if there is time for it; outputs it needs in any case.
        if step % plan.label_refresh == 0 or (lasting and stage2 and step - 1 < plan.iters / 2):
            seconds += 0.0 if lasting and not stage2 else outputs
            labelled = labelled if lasting else 0
        new = min(plan.clip_length, LOAD.working - labelled)  # the worst case: clips show what none has shown
        labelled += new
        seconds += new * pairs / LOAD.frames * SPEEDS.pair
        seconds += plan.crop * plan.crop * plan.clip_length * SPEEDS.step
    return ending + LOAD.frames * SPEEDS.frame + seconds


@given(left=st.floats(1, 3000), lasting=st.booleans())
def test_what_is_chosen_fits_and_uses_the_time(left: float, lasting: bool) -> None:
    choice = choose(settings(left), left, SPEEDS, replace(LOAD, labels_last=lasting))
    if choice.fits:
        assert spent(choice.settings, lasting) <= left
    if choice.settings.method == "adapt":
        assert choice.settings.adaptation.iters >= FEWEST_STEPS
        assert spent(choice.settings, lasting) >= 0.75 * left / CAUTION
        assert str(choice.settings.adaptation.iters) in choice.text
        assert choice.settings.alignment.teachers == AlignmentSettings().teachers
    elif choice.fits and left > 120:
        pytest.fail("two minutes are enough to adapt in")


def test_more_time_buys_steps_then_larger_crops_and_more_refreshes() -> None:
    plans = [choose(settings(s), s, SPEEDS, LOAD).settings.adaptation for s in (120, 200, 600, 3600)]
    assert [p.crop for p in plans] == sorted(p.crop for p in plans)
    assert plans[0].crop < plans[-1].crop == 256
    assert plans[-1].iters > WANTED_STEPS
    refreshes = [-(-p.iters // (p.label_refresh or 1)) for p in plans]
    assert refreshes == sorted(refreshes)
    assert refreshes[-1] == 6


def test_the_learning_rate_follows_the_steps_that_fit() -> None:
    short, long = (choose(settings(s), s, SPEEDS, LOAD).settings.adaptation for s in (200, 36000))
    assert FEWEST_STEPS <= short.iters < 2000 <= long.iters
    assert long.first_rate(5) == pytest.approx(1e-4)
    assert short.first_rate(5) == pytest.approx(1e-4 * min(5, 2000 / short.iters))


def test_labels_that_stay_leave_time_for_other_things() -> None:
    """With 48 frames of ten teachers each, a renewal of them takes 37 s here; one of the outputs alone 2 s."""
    for left in (120, 600):
        once, again = (
            choose(settings(left), left, SPEEDS, replace(LOAD, labels_last=lasting)) for lasting in (True, False)
        )
        assert "each made once" in once.text
        mine, other = (choice.settings.adaptation for choice in (once, again))
        refreshes = [-(-plan.iters // (plan.label_refresh or 1)) for plan in (mine, other)]
        assert refreshes[0] > refreshes[1]


def test_the_perceptual_term_is_part_of_the_timed_step(tmp_path: Path) -> None:
    """A stand-in that counts: the weights are not on every machine, and durations prove nothing on a busy one."""

    class Counting(torch.nn.Module):
        calls = 0

        def forward(self, frames: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return frames

    settings = replace(QUICK, runtime=replace(QUICK.runtime, budget=5.0))
    reader = open_reader(shaky_file(tmp_path / "in.mp4"))
    seen = scan(reader, settings.clues, ignore)
    gear = Equipment.load(settings)
    on, off = Counting(), Counting()
    measured = Forecast.measure(reader, seen, settings, replace(gear, features=on), 8).speeds
    assert min(measured.step, measured.frame, measured.write) > 0
    assert measured.pair + measured.merge > 0
    assert on.calls >= 2, "output and target both go through it"
    without = replace(settings, adaptation=replace(settings.adaptation, perceptual_weight=0.0))
    measured = Forecast.measure(reader, seen, without, replace(gear, features=off), 8).speeds
    assert measured.step > 0
    assert off.calls == 0
    assert gear.network is not None
    assert not any(p.grad is not None for p in gear.network.parameters()), "nothing is left of the measurement"


def test_crop_and_clip_length_are_upper_limits() -> None:
    plan = choose(settings(3600, crop=64, clip_length=4), 3600, SPEEDS, LOAD).settings.adaptation
    assert (plan.crop, plan.clip_length) == (64, 4)


def test_too_little_time_is_said_with_the_least_that_would_do() -> None:
    choice = choose(settings(3), 2.0, SPEEDS, LOAD)
    assert not choice.fits
    assert choice.settings.method == "transfer"
    assert choice.settings.alignment.teachers == 1
    least = 1.0 + CAUTION * (48 * 0.02 + 30 * 0.1) + 1.0
    assert f"about {round(least)} s" in choice.text
    alone = choose(settings(1, iters=0), 1.0, SPEEDS, LOAD)
    assert alone.settings.method == "adapt"
    assert "backbone as it is" in alone.text


def test_fewer_teachers_only_where_transfer_would_not_do() -> None:
    """On a real machine: 46 s of transfer from ten teachers +6.66 dB, a minute of adaptation with fewer +6.03."""
    wanted = settings(60.0)
    assert choose(wanted, 60.0, SPEEDS, LOAD).settings.method == "transfer"
    plain = choose(replace(wanted, detail=False), 60.0, SPEEDS, LOAD).settings
    assert plain.method == "adapt"
    saved = choose(replace(wanted, save_adapted="w.safetensors"), 60.0, SPEEDS, LOAD).settings
    assert saved.method == "adapt"
    assert saved.save_adapted == "w.safetensors"
    assert saved.alignment.teachers < 10


def test_time_of_the_merging_network_is_set_aside() -> None:
    merging = replace(SPEEDS, merge=0.5)
    quick, slow = (choose(settings(3600.0), 3600.0, speeds, LOAD) for speeds in (SPEEDS, merging))
    assert slow.reserve - quick.reserve == pytest.approx(CAUTION * LOAD.frames * 0.5)
    plain = replace(settings(3600.0), detail=False)
    assert choose(plain, 3600.0, merging, LOAD).reserve == choose(plain, 3600.0, SPEEDS, LOAD).reserve


def test_transfer_takes_fewer_teachers_rather_than_more_time() -> None:
    wanted = replace(settings(15), method="transfer")
    assert choose(wanted, 50.0, SPEEDS, LOAD).settings.alignment.teachers == 10
    assert choose(wanted, 36.0, SPEEDS, LOAD).settings.alignment.teachers == 7
    assert choose(wanted, 18.0, SPEEDS, LOAD).settings.alignment.teachers == 3


def test_transfer_keeps_its_teachers_rather_than_the_network() -> None:
    wanted = replace(settings(15), method="transfer")
    seconds = choose(wanted, 300.0, SPEEDS, LOAD).reserve
    choice = choose(wanted, seconds - 1, SPEEDS, LOAD)
    assert choice.settings.alignment.teachers == 10
    assert not choice.settings.networked


def test_transfer_leaves_the_network_out_where_it_takes_too_long() -> None:
    wanted, heavy = replace(settings(15), method="transfer"), replace(SPEEDS, frame=5.0)
    assert choose(wanted, 400.0, heavy, LOAD).settings.networked
    choice = choose(wanted, 50.0, heavy, LOAD)
    assert not choice.settings.networked
    assert choice.settings.alignment.teachers == 10
    assert "as recorded" in choice.text
    assert choice.reserve == choose(wanted, 50.0, replace(SPEEDS, frame=0.0), LOAD).reserve
    never = choose(replace(wanted, backbone="none"), 300.0, SPEEDS, LOAD)
    assert not never.settings.networked
    assert "as recorded" not in never.text


QUICK = Settings(
    method="adapt",
    backbone="estrnn:lite",
    alignment=AlignmentSettings(flow="dis:ultrafast", teachers=1),
    adaptation=AdaptationSettings(crop=32, clip_length=4),
    runtime=RuntimeSettings(device="cpu", offline=True),
)


def test_the_clock_ends_the_adaptation_of_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever number of steps was planned; the choice itself is given, for a busy machine would choose otherwise."""
    planned = replace(QUICK, adaptation=replace(QUICK.adaptation, iters=100_000, label_refresh=1000))

    def fit(*given: object) -> Fit:
        return Fit(planned, time.monotonic() + 4)

    monkeypatch.setattr("selfhvd_tta.pipeline.fit_once", fit)
    told: list[object] = []
    wanted = replace(QUICK, runtime=replace(QUICK.runtime, budget=5.0))
    result = selfhvd_tta.deblur(shaky_file(tmp_path / "in.mp4"), tmp_path / "out.mp4", wanted, told.append)
    assert result.action == "adapted"
    assert result.record is not None
    assert 1 <= len(result.record.steps) < 10_000
    assert {e.unit for e in told if isinstance(e, Progress) and e.phase.startswith("stage")} == {"seconds"}


def test_an_impossible_budget_is_told_and_the_job_still_done(tmp_path: Path) -> None:
    told: list[object] = []
    wanted = replace(QUICK, runtime=replace(QUICK.runtime, budget=0.01))
    result = selfhvd_tta.deblur(shaky_file(tmp_path / "in.mp4"), tmp_path / "out.mp4", wanted, told.append)
    assert result.action == "transferred"
    assert result.output.exists()
    assert next(e.late for e in told if isinstance(e, Finished)) == pytest.approx(result.seconds - 0.01)
    warnings = [e.text for e in told if isinstance(e, Note) and e.level == "warning"]
    assert any("too short" in text and "at least about" in text for text in warnings)


def test_frames_that_are_late_get_fewer_sharp_frames() -> None:
    now, told = [100.0], []
    deadline = Deadline(160.0, 12, told.append, lambda: now[0])
    assert deadline.teachers(0, 10) == 10, "nothing is known yet"
    deadline.count(10)
    now[0] += 5  # half a second each: 55 seconds for 11 frames
    assert deadline.teachers(1, 10) == 10
    assert not told
    deadline.count(10)
    now[0] += 15  # a second each: 40 seconds for 10 frames
    assert deadline.teachers(2, 10) == 4
    deadline.count(4)
    now[0] += 60
    assert deadline.teachers(3, 10) == 1, "never none"
    assert [note.text for note in told] == ["behind the budget: from frame 2 on, fewer sharp frames are blended in"]
