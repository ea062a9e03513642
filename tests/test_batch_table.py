"""The live table of a batch, what stands beside results, and results without what should stand beside them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from selfhvd_tta import batch
from selfhvd_tta.batch import BatchEvent, Outcome, VideoEnded, VideoEvent, VideoStarted
from selfhvd_tta.cli.batch_table import BatchTable
from selfhvd_tta.events import Note, Plan, Progress, Written
from selfhvd_tta.settings import Settings
from tests.commands import QUICK, run
from tests.media import shaky_file
from tests.test_batch import FAKE, fill


def text_of(table: BatchTable) -> str:
    console = Console(file=io.StringIO(), width=110, record=True)
    console.print(table.render())
    return console.export_text()


def test_the_table_shows_file_stage_progress_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    table = BatchTable(5, Console(file=io.StringIO(), width=110))
    table(VideoStarted("day 1/[a].mp4", 1, 5))
    table(VideoEvent("day 1/[a].mp4", Plan((), 2.0)))
    table(VideoEvent("day 1/[a].mp4", Progress("stage 1", 10, 40, "steps")))
    now[0] = 130.0
    row = next(line for line in text_of(table).splitlines() if "[a]" in line)
    assert "stage 1" in row
    assert "10/40" in row
    assert "about 90 s" in row or "about 2 min" in row, "two minutes planned, half a minute gone"
    table(VideoStarted("b.mp4", 2, 5))
    table(VideoEnded(Outcome("b.mp4", "/in/b.mp4", "o", "failed", message="/in/b.mp4: is damaged")))
    table(VideoEnded(Outcome("day 1/[a].mp4", "s", "o", "done", "adapted", 31.0)))
    shown = text_of(table)
    assert "1 of 5 done, 1 failed, 3 waiting" in shown
    assert "failed" in shown
    assert "is damaged" in shown
    assert "31 s" in shown


def test_a_stage_that_is_slower_than_planned_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    table = BatchTable(1, Console(file=io.StringIO(), width=110))
    table(VideoStarted("a.mp4", 1, 1))
    table(VideoEvent("a.mp4", Plan((), 0.5)))
    table(VideoEvent("a.mp4", Progress("restore", 0, 100)))
    now[0] = 60.0
    table(VideoEvent("a.mp4", Progress("restore", 10, 100)))
    assert "about 9 min" in text_of(table)


def test_warnings_stay_above_the_table() -> None:
    out = io.StringIO()
    with BatchTable(1, Console(file=out, width=80, force_terminal=True)) as table:
        table(VideoStarted("a.mp4", 1, 1))
        table(VideoEvent("a.mp4", Note("three frames are missing", "warning")))
    assert "a.mp4: three frames are missing" in out.getvalue()


def test_a_result_without_its_report_is_done_and_says_so(tmp_path: Path) -> None:
    told: list[BatchEvent] = []
    folder = fill(tmp_path / "in", a_mp4="half x")
    summary = batch.run(batch.make_plan([folder], tmp_path / "out", Settings()), told.append, 1, FAKE)
    assert summary.outcomes[0].state == "done"
    assert summary.outcomes[0].action == "adapted, but the report cannot be written"
    assert any(isinstance(e, VideoEvent) and isinstance(e.event, Note) and e.event.level == "warning" for e in told)
    assert batch.make_plan([folder], tmp_path / "out", Settings()).tasks[0].state == "finished"


def test_reports_and_comparisons_beside_results(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    shaky_file(folder / "a.mp4")
    flags = [*QUICK, "--method", "transfer", "--compare", "side", "--report"]
    done = run("batch", folder, "-o", tmp_path / "out", *flags, "--json")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [e["what"] for e in events if e["event"] == "written"] == ["comparison", "report"]
    names = {p.name for p in (tmp_path / "out").iterdir()} - {".batch.lock", "batch.json"}
    assert names == {"a.mp4", "a-side.mp4", "a.mp4.html"}


def test_written_files_survive_the_way_through_json() -> None:
    from selfhvd_tta.batch.events import as_json, parse_line

    line = as_json(VideoEvent("a", Written("report", "/x/a.html")))
    body = json.loads(line)
    assert body.pop("video") == "a"
    assert parse_line(json.dumps(body)) == Written("report", "/x/a.html")
