"""Steps or seconds: when stage 2 begins, when it ends; and stopping early."""

from __future__ import annotations

import itertools
import threading
import time

import pytest
import torch

from selfhvd_tta.events import Event, Note, Progress
from selfhvd_tta.method.adaptation import Adaptation
from selfhvd_tta.method.bank import BankSupervision
from selfhvd_tta.method.pace import Pace
from selfhvd_tta.method.parallel import each
from selfhvd_tta.method.restoration import Compute
from selfhvd_tta.method.supervision import Inputs
from selfhvd_tta.settings import AdaptationSettings, Settings
from tests.tiny import Still, blurry_clip, small_estrnn, working_set

CPU = Compute(torch.device("cpu"))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_steps_are_counted_where_no_time_is_given() -> None:
    pace = Pace(10, 0.5)
    assert [pace.second_stage(s) for s in (4, 5)] == [False, True]
    assert [pace.over(s) for s in (9, 10)] == [False, True]
    assert [pace.position(s) for s in (0, 9)] == [0, 1]
    assert pace.allows(1e9)
    assert pace.progress(6, ()) == Progress("stage 2", 2, 5, "steps")


def test_with_a_time_given_the_clock_decides() -> None:
    clock = Clock()
    pace = Pace(1000, 0.25, until=140.0, clock=clock)
    clock.now = 120.0
    pace.begin()
    assert (pace.position(0), pace.second_stage(0), pace.over(0)) == (0, False, False)
    clock.now = 124.9
    assert not pace.second_stage(3)
    clock.now = 130.0
    assert (pace.position(3), pace.second_stage(3)) == (0.5, True)
    assert pace.progress(3, ()) == Progress("stage 2", 5, 15, "seconds")
    assert pace.allows(5)
    assert not pace.allows(5.1), "a refresh that would leave no time to learn from it"
    clock.now = 140.0
    assert pace.over(3)


def adaptation(tell: list[Event], until: float | None = None, **plan: object) -> Adaptation:
    values = {"iters": 16, "crop": 32, "clip_length": 6, "learning_rate": 1e-3, "label_refresh": 2} | plan
    network, backbone = small_estrnn()
    settings = Settings(adaptation=AdaptationSettings(**values))  # type: ignore[arg-type]
    clip = working_set(blurry_clip(16))
    return Adaptation(Inputs(network, backbone, clip, Still(), None, CPU, 40), settings, tell.append, until)


def test_an_adaptation_ends_when_its_time_is_up() -> None:
    told: list[Event] = []
    run = adaptation(told, until=1.0, iters=100_000, label_refresh=25)
    ticks = itertools.count()
    assert isinstance(run.supervision, BankSupervision)
    run.pace = run.supervision.pace = Pace(100_000, 0.5, until=100.0, clock=lambda: float(next(ticks)))
    record = run.run()
    assert 5 < len(record.steps) < 50, "every look at the clock takes a second here"
    assert {s["stage"] for s in record.steps} == {1.0, 2.0}
    assert {e.unit for e in told if isinstance(e, Progress) and e.phase != "labels"} == {"seconds"}


def test_early_stop_keeps_frames_out_of_the_losses_and_ends_with_the_best_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[Event] = []
    run = adaptation(told, early_stop=True)
    supervision = run.supervision
    assert isinstance(supervision, BankSupervision)
    assert supervision.held_out is not None
    rows = supervision.held_out.rows
    assert rows
    assert supervision.weight[rows].tolist() == [0.0] * len(rows)
    assert not supervision.own_label[rows].any()
    start = {k: v.clone() for k, v in run.network.state_dict().items()}
    errors = iter([1.0, 1.1, 1.2])
    monkeypatch.setattr("selfhvd_tta.method.validation.masked_l1", lambda *frames: torch.tensor(next(errors)))
    record = run.run()
    assert record.ended_early == 4
    assert record.held_out == pytest.approx([1.0, 1.1, 1.2])
    assert all(torch.equal(start[k], v) for k, v in run.network.state_dict().items()), "the first look was the best"
    assert any(isinstance(e, Note) and "early stop" in e.text for e in told)


def test_no_early_stop_while_the_error_falls() -> None:
    record = adaptation([], early_stop=True, iters=12, learning_rate=5e-3, label_refresh=4).run()
    assert len(record.held_out) == 4, "at 0, 4, the beginning of stage 2 at 6, and 10"
    assert record.held_out[-1] < record.held_out[0]
    assert len(record.steps) == 12


@pytest.mark.parametrize(("threads", "device", "most"), [(1, "cpu", 1), (6, "cpu", 6), (6, "cuda", 4), (6, "mps", 1)])
def test_pieces_side_by_side_come_back_in_order(threads: int, device: str, most: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        names: set[str] = set()

        def double(x: int) -> int:
            names.add(threading.current_thread().name)
            time.sleep(0.01)
            return 2 * x

        assert each(double, range(24), torch.device(device)) == list(range(0, 48, 2))
        assert (len(names) > 1) == (most > 1)
        assert len(names) <= most
        assert torch.get_num_threads() == threads
        with pytest.raises(ZeroDivisionError):
            each(lambda x: 1 // x, [1, 0], torch.device(device))
    finally:
        torch.set_num_threads(before)
