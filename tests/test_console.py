"""What a run shows: one line for the whole job on a terminal, lines with percent and time elsewhere."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from selfhvd_tta.cli import main
from selfhvd_tta.console import Display, JobClock, show_lines
from selfhvd_tta.events import Event, Finished, Note, Plan, Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_left_is_the_plan_but_at_least_the_pace_of_the_phase(clock: list[float]) -> None:
    job = JobClock()
    job.take(Progress("scan", 40, 80))
    assert job.left() is None
    assert job.share() is None
    clock[0] += 10
    job.take(Plan((), 2.0))
    assert job.left() == 120
    job.take(Progress("stage 1", 0, 100, "steps"))
    clock[0] += 60
    job.take(Progress("stage 1", 50, 100, "steps"))
    assert job.left() == 60
    assert job.times() == "1:10 elapsed, 1:00 left"
    assert job.share() == pytest.approx(70 / 130)
    clock[0] += 60
    job.take(Progress("stage 1", 60, 100, "steps"))
    assert job.left() == pytest.approx(120 / 60 * 40), "slower than planned"
    job.take(Progress("restore", 0, 40))
    clock[0] += 5
    job.take(Progress("restore", 20, 40))
    assert job.left() == pytest.approx(5), "the last phase knows best"


def test_the_share_never_falls(clock: list[float]) -> None:
    job = JobClock()
    job.take(Plan((), 1.0))
    job.take(Progress("stage 1", 0, 100, "steps"))
    clock[0] += 45
    assert job.share() == pytest.approx(0.75)
    job.take(Progress("stage 1", 10, 100, "steps"))
    assert job.left() == pytest.approx(9 * 45)
    assert job.share() == pytest.approx(0.75)


def test_frames_of_an_interrupted_run_took_no_time_in_this_one(clock: list[float]) -> None:
    job = JobClock()
    job.take(Plan((), 1.0))
    job.take(Progress("transfer", 90, 100))
    clock[0] += 10
    job.take(Progress("transfer", 95, 100))
    assert job.left() == pytest.approx(10)


EVENTS: tuple[Event, ...] = (
    Note("flow: shake"),
    Plan((("video", "320x240, 48 frames, 1 shot, and a long line of facts that has to be wrapped"),), 2.0),
    Progress("stage 1", 0, 10, "steps"),
    Progress("stage 1", 5, 10, "steps", (("loss", 0.25),)),
)


@pytest.mark.parametrize("width", [80, 50])
@pytest.mark.parametrize("verbose", [False, True])
def test_one_line_on_a_terminal(width: int, verbose: bool, clock: list[float]) -> None:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    display = Display(verbose=verbose, console=console)
    assert display.style == "live"
    display._live = lambda event: None  # type: ignore[method-assign]  # no thread that draws
    for event in EVENTS:
        display(event)
        clock[0] += 10
    page = Console(file=io.StringIO(), width=width)
    page.print(display.render())
    assert isinstance(page.file, io.StringIO)
    shown = [line.rstrip() for line in page.file.getvalue().splitlines()]
    assert len(shown) == 1 + verbose
    assert shown[0].startswith("stage 1")
    assert "%" in shown[0]
    assert shown[0].endswith("0:40 elapsed, 1:30 left")
    assert verbose == any("loss 0.2500" in line for line in shown)
    assert isinstance(console.file, io.StringIO)
    assert max(map(len, (*shown, *console.file.getvalue().splitlines()))) <= width


@pytest.mark.parametrize("verbose", [False, True])
def test_lines_without_a_terminal(verbose: bool, clock: list[float]) -> None:
    console = Console(file=io.StringIO(), width=80)
    display = Display(verbose=verbose, console=console)
    for event in EVENTS:
        display(event)
        clock[0] += 10
    display(Progress("stage 1", 10, 10, "steps"))
    display(Finished("sharp.mp4", 60.0, action="adapted"))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    middle = next(line for line in lines if "5 of 10" in line)
    assert "% of the job, 0:30 elapsed, 1:40 left" in middle
    assert ("loss" in middle) == verbose
    assert any("10 of 10 steps" in line for line in lines)
    assert lines[-1] == "done sharp.mp4 in 60 s"
    display(Finished("sharp.mp4", 72.0, action="adapted", late=12.0))
    assert console.file.getvalue().splitlines()[-1] == "done sharp.mp4 in 72 s, 12 s over the budget"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_output_that_cannot_show_every_character(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding=encoding))
    with pytest.raises(SystemExit) as end:
        main(["inspect", "\u65e5\u672c.mp4", "--json"])
    show_lines(["\u65e5 \u2014 \udcff"])
    sys.stdout.flush()
    assert end.value.code == 1
    assert b"\\u65e5 \\u2014 \\udcff" in written.getvalue()
