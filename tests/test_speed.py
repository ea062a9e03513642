"""``bench --speed``: the structure of what it says (never its times), its arithmetic, its errors."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from selfhvd_tta.backbones import discover
from selfhvd_tta.cli import app
from selfhvd_tta.config import override
from selfhvd_tta.errors import UsageError
from selfhvd_tta.events import Note
from selfhvd_tta.lab.speed.flags import parse_size, speed_settings
from selfhvd_tta.lab.speed.floors import Rates, Work, count_operations
from selfhvd_tta.lab.speed.report import as_json, as_markdown, memory_text, ratios, time_text
from selfhvd_tta.lab.speed.results import SpeedReport, SpeedSettings
from selfhvd_tta.lab.speed.sample import picture, shaky_frames
from selfhvd_tta.lab.speed.speed import run_speed
from selfhvd_tta.lab.speed.timing import measure
from selfhvd_tta.settings import AdaptationSettings, AlignmentSettings, RuntimeSettings, Settings

TINY = Settings(
    force=True,
    alignment=AlignmentSettings(flow="dis:ultrafast", teachers=1),
    adaptation=AdaptationSettings(iters=2, crop=32, clip_length=4),
    runtime=RuntimeSettings(device="cpu", offline=True),
)


@pytest.fixture(scope="module")
def report() -> SpeedReport:
    return run_speed(SpeedSettings(("estrnn:lite",), 64, 48, 8, repeats=1, large=(80, 64), run=TINY))


def test_every_part_is_timed(report: SpeedReport) -> None:
    tasks = {(row.group, row.task.split(":")[0].split(" (")[0]) for row in report.rows}
    shared = {
        "decode",
        "clue selection",
        "flow, both ways",
        "label refresh",
        "merging by the network",
        "encode and verify",
    }
    assert shared == {task for group, task in tasks if group == "shared"}
    large = {task for group, task in tasks if group == "estrnn:lite at 80x64"}
    assert large == {"restoration", "label", "stage-1 step, bank", "stage-2 step, bank"}
    own = {task for group, task in tasks if group == "estrnn:lite"}
    modes = ("bank", "live", "literal")
    assert {
        "restoration",
        "decode, restore, encode and verify",
        *(f"stage-{s} step, {m}" for s in (1, 2) for m in modes),
    } <= own
    for row in report.rows:
        assert 0 < row.timing.best <= row.timing.median, row.task
        assert row.timing.repeats == 1
        assert row.floor is None or 0 < row.floor < math.inf, row.task
        assert row.host is None or row.host > 2**20
        assert row.device is None, "there is no GPU in this test"
    with_networks = [row for row in report.rows if row.task.startswith(("stage", "restoration"))]
    assert all(row.floor for row in with_networks)


def test_the_breakdown_adds_up(report: SpeedReport) -> None:
    assert report.breakdown is not None
    assert {"labels", "stage 1", "stage 2", "restore"} <= dict(report.breakdown.phases).keys()
    assert report.breakdown.host is None or report.breakdown.host > 2**20
    assert report.breakdown.device is None, "there is no GPU in this test"
    assert sum(dict(report.breakdown.phases).values()) == pytest.approx(report.breakdown.seconds, abs=1e-3)


def test_text_and_json_hold_the_same(report: SpeedReport) -> None:
    text, body = as_markdown(report), json.loads(as_json(report))
    for row in report.rows:
        assert f"| {row.task} | {row.per} |" in text
    assert len(body["rows"]) == len(report.rows)
    assert body["machine"]["versions"] in text
    assert body["rates"]["copy"] > 0
    assert "one whole job" in text
    compared = ratios(report, "estrnn:lite")
    assert len(compared) == 6
    assert compared["restoration: frames/s"] > 0
    assert body["ratios"]["estrnn:lite"] == compared


def test_random_weights_where_there_are_none() -> None:
    told: list[object] = []
    settings = SpeedSettings(("ifirnn",), 64, 48, 8, repeats=1, end_to_end=False, run=TINY)
    report = run_speed(settings, told.append)
    assert {row.group for row in report.rows} == {"shared", "ifirnn:c2h3"}
    assert report.breakdown is None
    said = [event.text for event in told if isinstance(event, Note)]
    rows = [f"{row.group}: {row.task}: " for row in report.rows]
    assert [any(text.startswith(row) for text in said) for row in rows] == [True] * len(rows), "told as they come"
    assert report.rows[0].group == "ifirnn:c2h3", "what matters most first"
    assert not [note for note in report.notes if note.startswith(rows[0])], "the table has them"


def test_after_the_time_limit_nothing_new_begins() -> None:
    settings = SpeedSettings(("ifirnn", "nafnet"), 64, 48, 8, repeats=1, large=(80, 64), minutes=1e-9, run=TINY)
    report = run_speed(settings)
    assert report.rows == ()
    assert [note for note in report.notes if "no time for" in note] == [
        "no time for ifirnn",
        "no time for nafnet",
        "no time for 80x64",
        "no time for what all networks share",
    ]


def test_rounds_are_interleaved_and_the_first_ones_do_not_count() -> None:
    order: list[str] = []
    cases = {name: lambda name=name: order.append(name) for name in "ab"}  # type: ignore[misc]
    times = measure(cases, torch.device("cpu"), repeats=3, warm_up=2)
    assert order == ["a", "b"] * 5
    assert times["a"].repeats == 3


def test_floors() -> None:
    rates = Rates(matmul={"float32": 100.0}, convolution={"float32": 50.0}, copy=10.0)
    assert Work(operations=200).floor(rates, "float32") == 2
    assert Work(operations=200, bytes=50).floor(rates, "float32") == 5
    a, b = torch.rand(3, 5), torch.rand(5, 7, requires_grad=True)
    assert count_operations(lambda: a @ b) == 2 * 3 * 5 * 7
    assert count_operations(lambda: (a @ b).sum().backward()) == 2 * 2 * 3 * 5 * 7


def test_the_sample_is_shaky_and_always_the_same() -> None:
    frames = shaky_frames(64, 48, 8)
    assert frames.shape == (8, 48, 64, 3)
    assert (frames == shaky_frames(64, 48, 8)).all()
    assert picture(64).std() > 20
    sharpness = [float(abs(f[:, 1:].astype(int) - f[:, :-1]).mean()) for f in frames]
    assert max(sharpness) > 1.3 * min(sharpness)


def test_numbers_as_people_read_them() -> None:
    assert [time_text(t) for t in (3e-6, 0.0123, 4.567)] == ["3 us", "12.3 ms", "4.57 s"]
    assert [memory_text(m) for m in (None, 2**30)] == ["-", "1,024"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bench"], "--speed"),
        (["bench", "folder", "--speed"], "no data set"),
        (["bench", "--speed", "--size", "big", "--device", "cpu"], "1280x720"),
        (["bench", "--speed", "--size", "63x48", "--device", "cpu"], "even"),
        (["bench", "--speed", "--large", "wide", "--device", "cpu"], "--large"),
        (["bench", "--speed", "--large", "65x48", "--device", "cpu"], "--large is 65x48"),
        (["bench", "--speed", "--frames", "3", "--device", "cpu"], "at least 8"),
        (["bench", "--speed", "--backbone", "nonsense", "--device", "cpu"], "unknown backbone"),
    ],
)
def test_usage_errors(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, UsageError)
    assert words in f"{result.exception} {result.exception.hint}"


def test_sizes() -> None:
    assert parse_size("1280x720") == (1280, 720)
    with pytest.raises(UsageError, match="at least 32"):
        SpeedSettings(height=16, run=replace(TINY))


def test_on_a_gpu_one_command_measures_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    flags: dict[str, object] = {
        "size": None,
        "frames": None,
        "large": None,
        "repeats": 5,
        "whole_job": True,
        "minutes": None,
    }
    run = override(Settings(), {"device": "cuda", "flow": "shake", "offline": True})
    monkeypatch.setattr("selfhvd_tta.lab.speed.flags.choose_device", lambda name, listen: torch.device("cuda"))
    settings = speed_settings(flags, run, steps_given=False)
    assert {name.split(":")[0] for name in settings.backbones} == set(discover())
    assert settings.backbones[0].startswith("estrnn"), "does the whole job"
    assert (settings.width, settings.height, settings.frames) == (1280, 720, 100)
    assert settings.large == (1920, 1080)
    assert settings.run.adaptation.iters == 2000
    assert settings.minutes == 10
    assert speed_settings(flags | {"large": "none"}, run, steps_given=False).large is None
