"""The page in a real browser: drop, preview, restore, cancel, download; visitors do not see each other's videos."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from selfhvd_tta.cli import app
from selfhvd_tta.errors import InputError, UsageError
from selfhvd_tta.ui.findings import as_html, timeline
from selfhvd_tta.ui.projects import Kind, Project, Shelf, safe_stem
from selfhvd_tta.ui.runner import Runner
from tests.browser import chromium, contrast, set_view
from tests.media import make_clip, shaky_file
from tests.ui_worker import FOUND

WORKER = (sys.executable, str(Path(__file__).parent / "ui_worker.py"))
HOSTILE = "<img src=x onerror=document.title='owned'>&\"; rm -rf $(HOME).mp4"
WAIT_S = 60.0


def until(wanted: Callable[[], Any], what: str) -> Any:
    """Poll until something is true; what it is then."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if found := wanted():
            return found
        threading.Event().wait(0.05)
    raise AssertionError(f"{what} did not happen within {WAIT_S:.0f} s")


def upload(folder: Path, name: str = "a.mp4") -> Path:
    folder.mkdir(exist_ok=True)
    return make_clip(folder / "clip.mp4").rename(folder / name)


def ended(shelf: Shelf, project: Project, kind: Kind) -> Any:
    def look() -> Any:
        now = shelf.get(project.id)
        assert now is not None
        step = now.steps.get(kind)
        return step if step is not None and step.state not in ("waiting", "running") else None

    return until(look, f"the end of {kind}")


@contextmanager
def running(shelf: Shelf) -> Iterator[Runner]:
    runner = Runner(shelf, WORKER)
    try:
        yield runner
    finally:
        runner.close()


# -- projects and the runner


def test_names_of_visitors_become_harmless(tmp_path: Path) -> None:
    assert safe_stem("a b-1.mp4") == "a b-1"
    assert safe_stem(HOSTILE) == "img src_x onerror_document.title_owned_ rm -rf _HOME"
    assert safe_stem("...mp4") == safe_stem("???.mov") == safe_stem("") == "video"
    assert len(safe_stem("x" * 400 + ".mp4")) == 60
    shelf = Shelf(tmp_path / "s")
    project = shelf.add(upload(tmp_path / "up"), "../../etc/passwd.MP4")
    assert (project.name, project.video.name) == ("passwd.MP4", "passwd.mp4")
    assert project.video.parent.parent == shelf.folder
    with pytest.raises(InputError, match="did not arrive"):
        shelf.add(tmp_path / "nothing.mp4", "nothing.mp4")


def test_only_ids_lead_to_projects(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "s")
    project = shelf.add(upload(tmp_path / "up"), "a.mp4")
    assert shelf.get(project.id) == project
    for wrong in ("", "..", f"../videos/{project.id}", project.id[:-1], None, 3, "A" * 22):
        assert shelf.get(wrong) is None, wrong
    assert shelf.secret == Shelf(tmp_path / "s").secret
    shelf.remove(project)
    assert shelf.all() == []


def test_steps_run_in_turn_and_failures_name_no_folder(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "s")
    good = shelf.add(upload(tmp_path / "up"), "good.mp4")
    bad = shelf.add(upload(tmp_path / "up"), "broken.mp4")
    with running(shelf) as runner:
        runner.submit(bad, "look")
        runner.submit(good, "look")
        runner.submit(good, "restore", "quick")
        failed = ended(shelf, bad, "look")
        assert (failed.state, failed.message) == ("failed", "broken.mp4: no frame could be decoded")
        assert ended(shelf, good, "look").state == "done"
        restored = ended(shelf, good, "restore")
        assert (restored.state, restored.quality, restored.notes) == ("done", "quick", ("a warning of the run",))
    assert good.output.read_bytes() == good.video.read_bytes()
    assert json.loads(good.findings.read_text()) == FOUND


def test_what_a_server_did_not_finish_the_next_one_does(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "s")
    project = shelf.add(upload(tmp_path / "up"), "slow.mp4")
    with running(shelf) as runner:
        runner.submit(project, "restore")
        until(lambda: (runner.progress(project, "restore") or ("",))[0] == "transfer", "the transfer")
    now = shelf.get(project.id)
    assert now is not None
    assert now.steps["restore"].state == "waiting", "ended with the server, not cancelled"
    with running(shelf) as runner:
        until(lambda: runner.progress(project, "restore"), "its continuation")
        runner.cancel(now)
        assert ended(shelf, project, "restore").state == "cancelled"
    assert not project.output.exists()


def test_the_findings_are_drawn_and_said() -> None:
    text = as_html({**FOUND, "verdict": "<b>"})
    assert "Can be restored." in text
    assert "&lt;b&gt;" in text
    assert text.count("<rect") == 4
    assert text.count('<rect class="sharp"') == 2
    many = timeline([1.0] * 5000, [i == 77 for i in range(5000)])
    assert many.count("<rect") == 240
    assert many.count('<rect class="sharp"') == 1


def test_the_real_worker_looks_previews_and_restores(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "s")
    project = shelf.add(shaky_file(tmp_path / "in.mp4", 6, 0.2), "in.mp4")
    runner = Runner(shelf)
    try:
        for kind in ("look", "preview", "restore"):
            runner.submit(project, kind, "quick")
            step = ended(shelf, project, kind)
            assert step.state == "done", step
    finally:
        runner.close()
    found = json.loads(project.findings.read_text())
    assert set(found) == set(FOUND)
    assert found["helpful"] is True
    assert 0 < found["seconds"]["balanced"] < found["seconds"]["best"]
    for path in (project.preview, project.output, project.report, project.pairs("preview") / "00-after.jpg"):
        assert path.stat().st_size > 0, path
    assert len(list(project.pairs("restore").iterdir())) == 12, "six frames before and after"


# -- the page


@contextmanager
def server(folder: Path) -> Iterator[str]:
    pytest.importorskip("gradio", reason="gradio is not installed (extra ui)")
    from selfhvd_tta.ui.server import serve

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    stop, lines, failure = threading.Event(), list[str](), list[BaseException]()

    def body() -> None:
        try:
            serve(folder, port=port, limit_mb=2, tell=lines.append, ended=stop, worker=WORKER)
        except BaseException as error:
            failure.append(error)
            raise

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    try:
        until(lambda: lines or failure, "the start of the server")
        assert not failure
        yield f"http://127.0.0.1:{port}"
    finally:
        stop.set()
        thread.join(WAIT_S)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ui")


@pytest.fixture(scope="module")
def url(place: Path) -> Iterator[str]:
    with server(place / "s") as address:
        yield address


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, url: str) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


def find(browser: Any, selector: str) -> Any:
    """The first visible element, once there is one."""

    def look() -> Any:
        from selenium.common.exceptions import StaleElementReferenceException

        try:
            return [e for e in browser.find_elements("css selector", selector) if e.is_displayed()]
        except StaleElementReferenceException:
            return None

    return until(look, selector)[0]


def press(browser: Any, selector: str) -> None:
    """Click on the first visible element; on the one in its place if the page is drawn again meanwhile."""
    from selenium.common.exceptions import StaleElementReferenceException

    def click() -> bool:
        try:
            find(browser, selector).click()
        except StaleElementReferenceException:
            return False
        return True

    until(click, selector)


def visit(browser: Any, url: str) -> None:
    set_view(browser, 1280, 900, "light")
    browser.get(url)
    until(lambda: browser.find_elements("css selector", "#upload input[type=file]"), "the page")


def drop(browser: Any, file: Path, shown: str = "") -> None:
    browser.find_element("css selector", "#upload input[type=file]").send_keys(str(file))
    until(lambda: (shown or file.name) in listed(browser), "the upload")


def listed(browser: Any) -> str:
    return text_of(browser, "#videos")


def text_of(browser: Any, selector: str) -> str:
    """What is written there at this moment; nothing where the page has no such element (yet)."""
    script = "return document.querySelector(arguments[0])?.innerText ?? ''"
    return str(browser.execute_script(script, selector))


def shows(browser: Any, selector: str, text: str) -> None:
    """Wait for a text: an element may be there before what is written in it."""
    until(lambda: text in text_of(browser, selector), f"'{text}' in {selector}")


def said(browser: Any, text: str) -> None:
    shows(browser, "#status", text)


def test_drop_preview_restore_download(browser: Any, url: str, place: Path) -> None:
    visit(browser, url)
    clip = upload(place / "up", HOSTILE)
    content = clip.read_bytes()
    drop(browser, clip, "img src")
    shows(browser, "#found", "2 of 4 frames are softer")
    shows(browser, "#quality", "about 20 s")
    press(browser, "#preview")
    until(lambda: len(find(browser, "#slider").find_elements("css selector", "img")) == 2, "both pictures")
    press(browser, "#restore")
    said(browser, "Restored in")
    said(browser, "a warning of the run")
    find(browser, "#player video")
    link = browser.execute_script("return document.querySelector('#player video').src")
    with urllib.request.urlopen(link, timeout=10) as answer:
        assert answer.read() == content
    find(browser, "#download")
    find(browser, "#report")
    assert browser.title != "owned"
    assert not browser.find_elements("css selector", "#videos img"), "the name is text"

    outside = browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert all(name.startswith((url, "blob:", "data:")) for name in outside), "nothing is loaded from elsewhere"
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
def test_the_page_fits_phones_and_follows_the_colour_scheme(browser: Any, url: str, width: int, scheme: str) -> None:
    visit(browser, url)
    set_view(browser, width, 900, scheme)
    browser.refresh()
    find(browser, "#found")
    wide = browser.execute_script("return document.documentElement.scrollWidth")
    assert wide <= width
    dark = browser.execute_script("return document.body.classList.contains('dark')")
    assert dark == (scheme == "dark")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_failures_are_legible(browser: Any, url: str, place: Path, scheme: str) -> None:
    visit(browser, url)
    set_view(browser, 375, 900, scheme)
    browser.refresh()
    until(lambda: browser.find_elements("css selector", "#upload input[type=file]"), "the page")
    drop(browser, upload(place / "up", "broken.mp4"))
    said(browser, "no frame could be decoded")
    script = """
        const rgb = (element, key) => getComputedStyle(element)[key].match(/[\\d.]+/g).slice(0, 3).map(Number)
        const text = document.querySelector(".failed strong")
        return [rgb(text, "color"), rgb(document.body, "backgroundColor")]"""
    text, ground = ("#" + bytes(map(round, rgb)).hex() for rgb in browser.execute_script(script))
    assert contrast(text, ground) >= 4.5
    press(browser, "#remove")
    until(lambda: "broken.mp4" not in listed(browser), "its end in the list")


def test_cancel_ends_the_process_and_delete_the_files(browser: Any, url: str, place: Path) -> None:
    visit(browser, url)
    before = {p.name for p in (place / "s" / "videos").iterdir()}
    drop(browser, upload(place / "up", "slow.mp4"))
    press(browser, "#restore")
    said(browser, "transfer")
    press(browser, "#cancel")
    said(browser, "Restoring was cancelled")
    press(browser, "#remove")
    until(lambda: {p.name for p in (place / "s" / "videos").iterdir()} == before, "the deletion")
    until(lambda: "slow.mp4" not in listed(browser), "its end in the list")


def test_visitors_do_not_see_each_other(browser: Any, url: str, place: Path, tmp_path: Path) -> None:
    visit(browser, url)
    drop(browser, upload(place / "up", "mine.mp4"))
    with chromium(tmp_path / "profile") as other:
        visit(other, url)
        drop(other, upload(place / "up", "yours.mp4"))
        press(other, "#restore")
        press(browser, "#restore")
        said(other, "Restored in")
        said(browser, "Restored in")
        assert "mine.mp4" not in listed(other)
        assert "yours.mp4" not in listed(browser)


def test_only_the_folder_of_the_videos_can_be_read(url: str, place: Path) -> None:
    _ = Shelf(place / "s").secret
    for path in ("/etc/hostname", place / "s" / "secret", place / "s" / "videos" / ".." / "secret", Path(__file__)):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{url}/gradio_api/file={path}", timeout=10)
        assert refused.value.code in (403, 404), path


def test_a_file_above_the_limit_or_of_another_kind_is_refused(browser: Any, url: str, place: Path) -> None:
    visit(browser, url)
    large = upload(place / "up", "large.mp4")
    with large.open("ab") as file:
        file.truncate(3_000_000)
    browser.find_element("css selector", "#upload input[type=file]").send_keys(str(large))
    shows(browser, ".toast-body", "size")
    assert "large.mp4" not in listed(browser)


def test_a_port_that_is_taken_is_said(url: str, tmp_path: Path) -> None:
    from selfhvd_tta.ui.server import serve

    port = int(url.rpartition(":")[2])
    with pytest.raises(UsageError, match=f"127.0.0.1:{port}"):
        serve(tmp_path / "s", port=port, worker=WORKER)


def test_the_command_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    done = CliRunner().invoke(app, ["ui", "--folder", str(tmp_path / "s")])
    assert isinstance(done.exception, UsageError)
    assert done.exception.hint == "Install it: pip install '.[ui]'"
