"""Weights, settings, names and links from a stranger: a plain refusal, and nothing outside is touched."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from selfhvd_tta import config
from selfhvd_tta.batch.cluster.depot import Depot
from selfhvd_tta.batch.plan import make_plan
from selfhvd_tta.batch.run import run
from selfhvd_tta.console import show_error, show_lines
from selfhvd_tta.errors import InputError, SelfHVDError, UsageError, WeightsError
from selfhvd_tta.extras.report.page import render
from selfhvd_tta.run.job import Job, job_folder
from selfhvd_tta.run.networks import load_backbone
from selfhvd_tta.settings import Settings
from selfhvd_tta.video.reader import VideoReader
from selfhvd_tta.video.target import check_target, publish
from selfhvd_tta.weights.store import load_file, load_hub
from selfhvd_tta.weights.tensors import METADATA_KEY
from tests.hub_server import HubServer, hub  # noqa: F401 (a fixture)
from tests.media import make_clip

DEEP = "[" * 20_000 + "]" * 20_000
DIGITS = "9" * 9_000
REPO = "owner/name"


def safetensors(path: Path, header: dict[str, Any] | bytes, body: bytes = b"0000", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + body)
    return path


def tensor(kind: str = "F32", shape: tuple[int, ...] = (1,), end: int = 4) -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": (0, end)}


def described(text: str) -> dict[str, Any]:
    return {"__metadata__": {METADATA_KEY: text}, "a": tensor()}


@pytest.mark.parametrize(
    ("header", "match"),
    [
        ({"a": tensor(shape=(2**31, 2**31))}, "damaged or cut short"),
        ({"a": tensor(shape=(1000,), end=4000)}, "damaged or cut short"),
        ({"a": tensor(), "b": tensor()}, "damaged or cut short"),
        ({"a": tensor("PY_OBJECT")}, "damaged or cut short"),
        (b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', "damaged or cut short"),
        (b'{"a":' + DEEP.encode() + b"}", "damaged or cut short"),
        ({"a": tensor("F8_E4M3", (4,))}, "8 bits or fewer"),
        (described(DEEP), "damaged JSON"),
        (described(f'{{"a": {DIGITS}}}'), "damaged JSON"),
        (described("[]"), "something other than a table"),
    ],
)
def test_headers_of_weights(header: dict[str, Any] | bytes, match: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=match) as error:
        load_file(safetensors(tmp_path / "w.safetensors", header))
    assert error.value.hint


def test_a_header_that_claims_to_be_larger_than_the_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="damaged or cut short"):
        load_file(safetensors(tmp_path / "w.safetensors", b"{}", length=2**62))


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "os.system", "estrnn\x1b[2J", ""])
def test_a_repository_chooses_among_known_networks_only(hub: HubServer, name: str) -> None:  # noqa: F811
    body = safetensors_bytes()
    hub.add(REPO, {"config.json": json.dumps({"backbone": name}).encode(), "model.safetensors": body})
    with pytest.raises(UsageError, match="unknown backbone"):
        load_backbone(Settings(backbone=f"hf:{REPO}"), None, lambda event: None)  # type: ignore[arg-type]


def safetensors_bytes() -> bytes:
    text = json.dumps({"a": tensor()}).encode()
    return struct.pack("<Q", len(text)) + text + b"\0\0\0\0"


def test_a_repository_names_no_file_and_is_not_nested_without_end(hub: HubServer) -> None:  # noqa: F811
    more = {"backbone": "estrnn", "weights": "/etc/passwd", "model": "../../elsewhere", "auto_map": "code.py"}
    hub.add(REPO, {"config.json": json.dumps(more).encode(), "model.safetensors": safetensors_bytes()})
    assert list(load_hub(REPO, offline=False).tensors) == ["a"]
    asked = " ".join(str(request) for request in hub.requests)
    assert not [word for word in ("passwd", "elsewhere", "code.py") if word in asked]
    hub.add("owner/deep", {"config.json": DEEP.encode(), "model.safetensors": safetensors_bytes()})
    with pytest.raises(WeightsError, match="is not JSON"):
        load_hub("owner/deep", offline=False)


@pytest.mark.parametrize(
    "text",
    [
        f"iters = {DEEP}",
        f"[adaptation]\niters = {DIGITS}",
        "[adaptation]\nlearning_rate = nan",
        "[adaptation]\nlearning_rate = 1e999",
        "[adaptation]\n__init__ = 1",
        "__class__ = 1",
        "adaptation = 'x'",
        "plugins = ['os']",
        "a." * 2000 + "b = 1",
    ],
)
def test_settings(text: str, tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as error:
        config.load(path)
    assert "\n" not in error.value.message


def test_names_in_the_report_are_text(monkeypatch: pytest.MonkeyPatch) -> None:
    import jinja2

    hostile = "</title><script>alert(1)</script>\"' onload=x {{ 7 * 7 }}"
    loader = jinja2.DictLoader({"page.html.j2": '<title>{{ name }}</title><img alt="{{ name }}">'})
    monkeypatch.setattr(jinja2, "PackageLoader", lambda *_: loader)
    page = render({"name": hostile})
    assert "<script" not in page
    assert page.count('"') == 2, "the attribute ends where it should"
    assert "{{ 7 * 7 }}" in page, "text is not a template"


def test_the_template_trusts_no_value() -> None:
    template = Path(config.__file__).with_name("extras") / "report" / "page.html.j2"
    text = template.read_text()
    assert "default-src 'none'" in text
    assert "|safe" not in text.replace(" ", "")
    assert "autoescapefalse" not in text.replace(" ", "")


def test_names_do_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    show_error(SelfHVDError("clip\x1b]0;owned\x07\x1b[2J\u202emp4", "clip\udcff"))
    show_lines(["clip\x1b[2J\udcff"])
    shown = "".join(capsys.readouterr())
    assert not [c for c in shown if not c.isprintable() and c != "\n"]
    assert "\\x1b[2J" in shown
    assert "\\udcff" in shown


def test_links_in_a_batch_folder(tmp_path: Path) -> None:
    private, folder = tmp_path / "private", tmp_path / "in"
    private.mkdir()
    folder.mkdir()
    (private / "secret.mp4").write_bytes(b"secret")
    (private / "notes.txt").write_text("secret")
    (folder / "deep").symlink_to(private)
    (folder / "loop").symlink_to(folder)
    (folder / "notes.mp4").symlink_to(private / "notes.txt")
    plan = make_plan([folder], tmp_path / "out", Settings())
    assert [task.name for task in plan.tasks] == ["notes.mp4"], "linked folders are not entered"
    with pytest.raises(InputError):
        VideoReader(plan.tasks[0].source)


def test_a_result_does_not_go_through_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim.mp4"
    victim.write_bytes(b"mine")
    link, dangling = tmp_path / "out.mp4", tmp_path / "new.mp4"
    link.symlink_to(victim)
    dangling.symlink_to(tmp_path / "nowhere.mp4")
    for path in (link, dangling):
        with pytest.raises(UsageError, match="exists already"):
            check_target(path, tmp_path / "in.mp4")
    part = tmp_path / "part"
    part.write_bytes(b"new")
    publish(part, check_target(link, tmp_path / "in.mp4", overwrite=True))
    assert link.read_bytes() == b"new"
    assert victim.read_bytes() == b"mine"


@pytest.mark.parametrize("linked", ["", "lock", "segments", "segments/000000.part", "segments/images"])
def test_a_job_folder_that_leads_elsewhere(linked: str, tmp_path: Path) -> None:
    """A folder with a video from a stranger may hold links where the run would work."""
    private = tmp_path / "private"
    private.mkdir()
    (private / "letter.png").write_text("mine")
    (tmp_path / "in").mkdir()
    output = tmp_path / "in" / "sharp.mp4"
    place = job_folder(output) / linked
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(private / "letter.png" if place.name in ("lock", "000000.part") else private)
    with pytest.raises(UsageError, match="holds links") as error:
        Job(output).__enter__()
    assert "rm -r" in error.value.hint
    assert [(path.name, path.read_text()) for path in private.iterdir()] == [("letter.png", "mine")]


def test_a_lock_of_a_batch_that_leads_elsewhere(tmp_path: Path) -> None:
    letter = tmp_path / "letter.txt"
    letter.write_text("mine")
    (tmp_path / "in").mkdir()
    make_clip(tmp_path / "in" / "a.mp4")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".batch.lock").symlink_to(letter)
    plan = make_plan([tmp_path / "in"], tmp_path / "out", Settings(backbone="none", method="transfer"))
    with pytest.raises(UsageError, match="is a link"):
        run(plan, lambda event: None)
    assert letter.read_text() == "mine"


@pytest.mark.parametrize(
    ("key", "name"),
    [("a.mp4", "../b.mp4/x"), ("a.mp4", "/etc/passwd"), ("../a", "x"), ("/etc", "passwd"), ("", "x"), ("a/..", "x")],
)
def test_keys_of_the_depot(key: str, name: str) -> None:
    depot = Depot()
    try:
        depot.write("a.mp4", "x", 0, b"kept")
        calls = (
            lambda: depot.write(key, name, 0, b"x"),
            lambda: depot.read(key, name, 0),
            lambda: depot.names(key, name),
            lambda: depot.remove(key, name),
        )
        for call in calls:
            with pytest.raises(ValueError, match="leads out of the depot"):
                call()
        assert depot.read("a.mp4", "x", 0) == b"kept"
    finally:
        depot.close()


@pytest.mark.parametrize("key", ["", "..", "a/../.."])
def test_forgetting_a_video_of_the_depot_forgets_no_other(key: str) -> None:
    depot = Depot()
    try:
        depot.write("a.mp4", "x", 0, b"kept")
        with pytest.raises(ValueError, match="leads out of the depot"):
            depot.remove(key)
        depot.remove("b.mp4")
        assert depot.read("a.mp4", "x", 0) == b"kept"
    finally:
        depot.close()
