"""Batches: what is found, what is done again, and that one bad video harms no other."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from selfhvd_tta import batch
from selfhvd_tta.batch import BatchEvent, BatchPlan, Summary, VideoEnded, VideoEvent, VideoStarted
from selfhvd_tta.batch.events import parse_line
from selfhvd_tta.batch.ledger import digest
from selfhvd_tta.config import override
from selfhvd_tta.errors import BatchError, InputError, Interrupted, UsageError
from selfhvd_tta.events import Event, Finished, Loaded, Note, Plan, Progress
from selfhvd_tta.settings import Settings
from tests.media import decode_planes, shaky_file

ROOT = Path(__file__).parent.parent
FAKE = (sys.executable, "-S", str(Path(__file__).parent / "batch_worker.py"))
S = Settings()


def fill(folder: Path, **files: str) -> Path:
    """A folder of stand-ins for videos; ``__`` in a name is a slash, a single ``_`` before mp4 a dot."""
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_mp4", ".mp4").replace("_mov", ".mov")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def go(folder: Path, out: Path, settings: Settings = S, jobs: int = 1) -> tuple[Summary, list[BatchEvent]]:
    told: list[BatchEvent] = []
    return batch.run(batch.make_plan([folder], out, settings), told.append, jobs, FAKE), told


def states(plan: BatchPlan) -> dict[str, str]:
    return {t.name: t.state for t in plan.tasks}


def keys(*inputs: str | Path, out: Path, settings: Settings = S, suffix: str = "") -> list[str]:
    return [t.key for t in batch.make_plan(inputs, out, settings, suffix).tasks]


# -- what is found, and where results go


def test_the_tree_is_kept_and_only_videos_are_taken(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", b_mp4="", a__c_MP4="", a__deep__d_mov="")
    (folder / "a" / "c_MP4").rename(folder / "a" / "c.MP4")
    for other in ("notes.txt", "._b.mp4", ".hidden/x.mp4", "a/cover.jpg"):
        (folder / other).parent.mkdir(exist_ok=True)
        (folder / other).touch()
    assert keys(folder, out=tmp_path / "out") == ["a/c.MP4", "a/deep/d.mov", "b.mp4"]
    assert keys(folder, out=tmp_path / "out", suffix="_sharp")[0] == "a/c_sharp.MP4"
    assert not (tmp_path / "out").exists()


def test_results_below_the_searched_folder_are_no_input(tmp_path: Path) -> None:
    folder = fill(tmp_path, a_mp4="", sharp__a_mp4="", b__c_mp4="", b__sharp_mp4="")
    assert keys(folder, out=folder / "sharp") == ["a.mp4", "b/c.mp4", "b/sharp.mp4"]


def test_results_beside_their_sources(tmp_path: Path) -> None:
    folder = fill(tmp_path, a_mp4="", a_sharp_mp4="", b_mp4="")
    (folder / "a_sharp-side.mp4").touch()  # a comparison from an earlier run
    assert keys(folder, out=folder, suffix="_sharp") == ["a_sharp.mp4", "b_sharp.mp4"]
    with pytest.raises(UsageError, match=r"a\.mp4: its result would replace it"):
        keys(folder, out=folder)


def test_patterns_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, x__a_mp4="", x__y__b_mov="", x__y__c_txt="", odd_name="")
    assert keys(f"{tmp_path}/x/**/*", out=tmp_path / "o") == ["a.mp4", "y/b.mov"]
    assert keys(f"{tmp_path}/*/*/*.mov", out=tmp_path / "o") == ["x/y/b.mov"]
    assert keys(tmp_path / "x" / "y" / "b.mov", tmp_path / "x" / "a.mp4", out=tmp_path / "o") == ["a.mp4", "b.mov"]
    monkeypatch.chdir(tmp_path)
    assert keys("x/*.mp4", "x", out=Path("o")) == ["a.mp4", "y/b.mov"]
    plan = batch.make_plan(["x/a.mp4", "x/a.mp4"], "o", S)
    assert len(plan.tasks) == 1
    assert "named before" in plan.notes[0]


def test_a_name_with_the_characters_of_a_pattern(tmp_path: Path) -> None:
    folder = fill(tmp_path / "[1] *trip?")
    folder.mkdir()
    (folder / "a [x].mp4").touch()
    assert keys(folder, out=tmp_path / "o") == ["a [x].mp4"]
    assert keys(folder / "a [x].mp4", out=tmp_path / "o") == ["a [x].mp4"]


def test_containers_that_cannot_be_written(tmp_path: Path) -> None:
    for name in ("a.avi", "b.3gp", "c.webm", "d.M4V", "e.MKV", "f.avi", "f.mkv", "F.webm"):
        (tmp_path / name).touch()
    got = keys(tmp_path, out=tmp_path / "o")
    assert sorted(got) == ["F.webm.mkv", "a.mkv", "b.mp4", "c.mkv", "d.M4V", "e.MKV", "f.avi.mkv", "f.mkv"]
    ffv1 = keys(tmp_path, out=tmp_path / "o", settings=override(S, {"codec": "ffv1"}))
    assert {Path(key).suffix.lower() for key in ffv1} == {".mkv"}


def test_inputs_that_make_no_batch(tmp_path: Path) -> None:
    fill(tmp_path, x__a_mp4="", y__a_mp4="", z__notes_txt="")
    for inputs, kind, words in (
        (["x", "y"], UsageError, "would both become"),
        (["z"], InputError, "no video there"),
        (["x/*.mov"], InputError, "no video there"),
        (["nowhere"], InputError, "no such file or folder"),
    ):
        with pytest.raises(kind, match=words):
            batch.make_plan([tmp_path / i for i in inputs], tmp_path / "o", S)
    with pytest.raises(UsageError, match="not a folder"):
        batch.make_plan([tmp_path / "x"], tmp_path / "y" / "a.mp4", S)
    with pytest.raises(UsageError, match="--save-adapted"):
        batch.make_plan([tmp_path / "x"], tmp_path / "o", dataclasses.replace(S, save_adapted="w.safetensors"))
    with pytest.raises(UsageError, match="--suffix"):
        batch.make_plan([tmp_path / "x"], tmp_path / "o", S, "/../up")


# -- what is done, and what is done again


def test_one_bad_video_stops_no_other(tmp_path: Path) -> None:
    folder = fill(
        tmp_path / "in",
        a_mp4="good A",
        b_mp4="error",
        c__d_mp4="raise",
        e_mp4="kill SIGKILL",
        f_mp4="kill SIGSEGV",
        g_mp4="silent",
        h_mp4="good H",
    )
    summary, told = go(folder, tmp_path / "out")
    assert [o.state for o in summary.outcomes] == ["done", *["failed"] * 5, "done"]
    messages = {o.name: o.message for o in summary.outcomes}
    assert messages["b.mp4"] == "no frame could be decoded"
    assert messages["c/d.mp4"] == "unexpected failure, RuntimeError: some library broke"
    assert "memory" in messages["e.mp4"]
    assert "SIGSEGV" in messages["f.mp4"]
    assert "without a result" in messages["g.mp4"]
    assert (tmp_path / "out" / "h.mp4").read_text() == "H2000"
    assert summary.outcomes[0].action == "adapted"
    with pytest.raises(BatchError, match="5 of 7 videos failed") as caught:
        summary.check()
    assert caught.value.exit_code == 7
    of_a = [e for e in told if not isinstance(e, VideoEnded | VideoStarted) and e.name == "a.mp4"]
    assert [type(e.event) for e in of_a] == [Progress, Note, Plan, Finished]
    assert told[0] == VideoStarted("a.mp4", 1, 7)
    assert VideoEvent("g.mp4", Note("not json")) in told
    record = json.loads((tmp_path / "out" / "batch.json").read_text())["videos"]
    assert {k: v["outcome"]["state"] for k, v in record.items()} == {o.name: o.state for o in summary.outcomes}
    assert set(os.listdir(tmp_path / "out")) <= {"a.mp4", "h.mp4", "c", "batch.json", ".batch.lock"}


def test_finished_ones_are_skipped_and_failed_ones_tried_again(tmp_path: Path) -> None:
    folder, out = fill(tmp_path / "in", a_mp4="good A", b_mp4="error"), tmp_path / "out"
    go(folder, out)
    before = (out / "a.mp4").stat().st_mtime_ns
    assert states(batch.make_plan([folder], out, S)) == {"a.mp4": "finished", "b.mp4": "to do"}
    (folder / "b.mp4").write_text("good B")
    summary, told = go(folder, out)
    assert [o.state for o in summary.outcomes] == ["skipped", "done"]
    assert told[0] == VideoStarted("b.mp4", 1, 1)
    assert (out / "a.mp4").stat().st_mtime_ns == before
    summary.check()
    again, told = go(folder, out)
    assert (again.count("skipped"), told) == (2, [])


@pytest.mark.parametrize(
    ("action", "method", "changed", "finished"),
    [
        ("adapted", "adapt", {"offline": True, "checkpoint_minutes": 9.0}, True),
        ("adapted", "adapt", {"iters": 7}, False),
        ("passed through", "auto", {"backbone": "nafnet:lite", "iters": 7, "teachers": 3, "strength": 0.5}, True),
        ("passed through", "auto", {"force": True}, False),
        ("passed through", "auto", {"segment": 9}, False),
        ("passed through", "auto", {"iters": 0}, False),
        ("passed through", "auto", {"codec": "hevc"}, False),
        ("transferred", "transfer", {"iters": 7, "crop": 64}, True),
        ("transferred", "transfer", {"working_set": 50}, False),
        ("transferred", "auto", {"iters": 7}, False),
    ],
)
def test_a_result_clashes_over_settings_that_made_it_only(
    action: str, method: str, changed: dict[str, object], finished: bool
) -> None:
    before = override(S, {"method": method})
    assert (digest(before, action) == digest(override(before, changed), action)) == finished


def test_what_makes_a_finished_one_stale(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", a_mp4="good A", b_mp4="good B", c_mp4="good C", d_mp4="good D")
    out = tmp_path / "out"
    go(folder, out)
    (folder / "a.mp4").write_text("good A2")
    os.utime(folder / "b.mp4", ns=(1, 1))
    (out / "c.mp4").write_text("mine")
    (out / "d.mp4").unlink()
    plan = batch.make_plan([folder], out, S)
    assert states(plan) == {"a.mp4": "blocked", "b.mp4": "blocked", "c.mp4": "blocked", "d.mp4": "to do"}
    assert [t.why.split(", ")[1].split()[0] for t in plan.tasks[:3]] == ["made", "made", "and"]
    summary, _ = go(folder, out)
    assert summary.count("failed") == 3
    assert (out / "c.mp4").read_text() == "mine"
    overwrite = override(S, {"overwrite": True})
    assert go(folder, out, overwrite)[0].count("done") == 3
    assert (out / "a.mp4").read_text() == "A22000"
    # Overwriting is no reason to do again what is finished, and asking for it changes no result.
    assert set(states(batch.make_plan([folder], out, overwrite)).values()) == {"finished"}
    assert set(states(batch.make_plan([folder], out, S)).values()) == {"finished"}
    other = override(S, {"iters": 7})
    assert set(states(batch.make_plan([folder], out, other)).values()) == {"blocked"}
    go(folder, out, override(other, {"overwrite": True}))
    assert (out / "a.mp4").read_text() == "A27"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 9, "videos": {}}', '{"version": 1, "videos": {"a": 3}}'])
def test_a_record_that_is_none(text: str, tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", a_mp4="good A")
    fill(tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "batch.json").write_text(text)
    with pytest.raises(UsageError, match=r"batch\.json"):
        batch.make_plan([folder], tmp_path / "out", S)


def test_jobs_run_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    folder = fill(tmp_path / "in", a_mp4="meet here there", b_mp4="meet there here")
    summary, _ = go(folder, tmp_path / "out", jobs=2)
    assert summary.count("done") == 2
    assert (tmp_path / "out" / "a.mp4").read_text() == str(max(1, (os.cpu_count() or 1) // 2))
    with pytest.raises(UsageError, match="--jobs"):
        go(folder, tmp_path / "out", jobs=0)


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interrupt_ends_the_running_and_leaves_the_rest(jobs: int, tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", a_mp4="good A", b_mp4="slow", c_mp4="slow", d_mp4="good D")
    out = tmp_path / "out"
    seen: list[str] = []

    def listen(event: BatchEvent) -> None:
        if isinstance(event, VideoEvent) and event.name != "a.mp4":
            seen.append(event.name)
            if len(seen) == jobs:
                raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(Interrupted) as caught:
        batch.run(batch.make_plan([folder], out, S), listen, jobs, FAKE)
    assert time.monotonic() - started < 20
    assert "1 of 4" in caught.value.message
    assert caught.value.exit_code == 130
    assert sorted(p.name for p in out.glob("*.interrupted")) == ["b.interrupted", "c.interrupted"][:jobs]
    assert not (out / "d.mp4").exists()
    expected = {"a.mp4": "finished", "b.mp4": "to do", "c.mp4": "to do", "d.mp4": "to do"}
    assert states(batch.make_plan([folder], out, S)) == expected


def test_two_batches_into_one_folder(tmp_path: Path) -> None:
    folder, out = fill(tmp_path / "in", a_mp4="good A", b_mp4="good B"), tmp_path / "out"
    refused: list[BaseException] = []

    def second() -> None:
        try:
            go(folder, out)
        except UsageError as error:
            refused.append(error)

    def listen(event: BatchEvent) -> None:
        if event == VideoStarted("a.mp4", 1, 2):
            thread = threading.Thread(target=second)
            thread.start()
            thread.join()

    assert batch.run(batch.make_plan([folder], out, S), listen, 1, FAKE).count("done") == 2
    assert "another batch" in str(refused[0])


# -- events


@pytest.mark.parametrize(
    "event",
    [
        Note("text", "warning"),
        Plan((("a", "b"), ("c", "d")), 2.5),
        Plan((), None),
        Progress("stage 1", 3, None, "steps", (("loss", 0.25),)),
        Finished("out.mp4", 3.5, (("done", "adapted"),), action="adapted"),
        Loaded("flow", "flow-shake", "/w/flow.safetensors", "ab12", "MIT"),
    ],
)
def test_events_survive_the_way_through_text(event: Event) -> None:
    line = json.loads(batch.as_json(VideoEvent("x.mp4", event)))
    assert line.pop("video") == "x.mp4"
    assert parse_line(json.dumps(line)) == event


def test_what_a_display_is_told(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", a_mp4="good A", b_mp4="error")
    _, told = go(folder, tmp_path / "out")
    for jobs, phases in ((1, {"scan"}), (2, {"a.mp4: scan", "b.mp4: scan"})):
        shown: list[Event] = []
        for event in told:
            batch.forward(shown.append, jobs)(event)
        assert {e.phase for e in shown if isinstance(e, Progress)} == phases
        texts = [e.text for e in shown if isinstance(e, Note)]
        assert texts[0] == "[1/2] a.mp4"
        assert "failed: b.mp4: no frame could be decoded (Copy it again.)" in texts
        assert any(isinstance(e, Finished) for e in shown) == (jobs == 1)
    kinds = [json.loads(batch.as_json(e))["event"] for e in told]
    assert kinds == ["started", "progress", "note", "plan", "finished", "ended", "started", "progress", "ended"]


# -- with real videos


def test_real_videos(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "day 2").mkdir(parents=True)
    clip = shaky_file(folder / "day 2" / "shaky.mp4")
    (folder / "broken.mp4").write_bytes(clip.read_bytes()[:3000])
    quick = {"method": "transfer", "backbone": "estrnn:lite", "flow": "dis:ultrafast", "teachers": 2}
    settings = override(S, {**quick, "offline": True, "device": "cpu"})
    plan = batch.make_plan([folder], tmp_path / "out", settings, "_sharp")
    described, seconds = batch.describe(plan)
    assert 0 < seconds < 600
    assert described[1][2], "about how long it takes"
    assert described[0][:2] == ("broken.mp4", described[0][1])
    assert "unreadable" in described[0][1]
    assert described[1][1].startswith("80x64, 0.4 s")
    told: list[BatchEvent] = []
    summary = batch.run(plan, told.append)
    assert [o.state for o in summary.outcomes] == ["failed", "done"]
    assert summary.outcomes[1].action == "transferred"
    out = tmp_path / "out" / "day 2" / "shaky_sharp.mp4"
    assert len(decode_planes(out)) == 12
    assert any(isinstance(e, VideoEvent) and isinstance(e.event, Plan) for e in told)
    assert states(batch.make_plan([folder], tmp_path / "out", settings, "_sharp"))["day 2/shaky.mp4"] == "finished"


def test_the_worker_ends_when_its_batch_dies(tmp_path: Path) -> None:
    clip, out = shaky_file(tmp_path / "shaky.mp4"), tmp_path / "out" / "sharp.mp4"
    out.parent.mkdir()
    settings = override(
        S,
        {"iters": 100_000, "crop": 32, "backbone": "estrnn:lite", "flow": "embedded", "offline": True, "device": "cpu"},
    )
    table = dataclasses.asdict(settings)
    child = subprocess.Popen(
        [sys.executable, "-m", "selfhvd_tta.batch.worker"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    request = {"video": str(clip), "output": str(out), "settings": table, "report": None, "compare": None}
    child.stdin.write(json.dumps(request) + "\n")
    child.stdin.flush()
    stop = threading.Timer(120, child.kill)
    stop.start()
    for line in child.stdout:
        if '"stage 1"' in line:
            break
    child.stdin.close()
    child.stdin = None
    rest, errors = child.communicate(timeout=60)
    stop.cancel()
    assert child.returncode == 130, errors
    assert json.loads(rest.splitlines()[-1])["exit_code"] == 130
    assert errors == ""
    assert os.listdir(out.parent) == [".sharp.mp4.job"], "what the next run continues"


def test_a_mistyped_name_ends_a_batch_before_its_first_video(tmp_path: Path) -> None:
    fill(tmp_path / "in", **{"a.mp4": "ok"})
    with pytest.raises(UsageError, match="unknown backbone 'foo'"):
        go(tmp_path / "in", tmp_path / "out", override(S, {"backbone": "foo"}))
    assert not (tmp_path / "out").exists()
