"""The report: what it collects, that it needs nothing else, and that a browser can use it."""

from __future__ import annotations

import base64
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="the extra 'report' is not installed")
pytest.importorskip("jinja2", reason="the extra 'report' is not installed")

from selfhvd_tta import deblur
from selfhvd_tta.errors import UsageError
from selfhvd_tta.events import Finished, Plan, Progress
from selfhvd_tta.extras import Extras, deblur_with
from selfhvd_tta.extras.report import Recorder, report_file, write_report
from selfhvd_tta.extras.report.facts import changed_settings
from selfhvd_tta.extras.report.page import render
from selfhvd_tta.extras.report.pictures import evenly, most_changed
from selfhvd_tta.extras.report.plots import THEMES, smooth, timeline
from selfhvd_tta.files import sha256_of
from selfhvd_tta.method.clues import select_clues
from selfhvd_tta.settings import ClueSettings, OutputSettings, RuntimeSettings, Settings
from selfhvd_tta.weights import bundled_folder
from tests.browser import chromium, contrast, set_view
from tests.commands import QUICK as QUICK_FLAGS
from tests.commands import run
from tests.media import make_clip, shaky_file
from tests.test_pipeline import QUICK

HOSTILE = "<img src=x onerror=alert(1)> & 'clip'.mp4"


def report_of(folder: Path, settings: Settings, name: str = "clip.mp4") -> Path:
    source = shaky_file(folder / name, 12)
    recorder = Recorder()
    result = deblur(source, folder / "sharp.mp4", settings, recorder)
    return write_report(folder / "report.html", source, result, settings, recorder.log)


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report_of(tmp_path_factory.mktemp("adapted"), QUICK, HOSTILE)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


def test_it_says_what_was_done(adapted: Path) -> None:
    page = adapted.read_text()
    for words in ("adapted", "stage 1", "Before and after", "Filmstrip", "What blurry frames learned from"):
        assert words in page
    digest = sha256_of(next(bundled_folder().glob("estrnn-lite*.safetensors")))
    assert digest in page, "the hash of the weights in use"
    assert "adaptation.iters" in page, "a setting that differs from the default"
    assert "labels" in page
    assert page.count('class="compare"') == 4


def test_it_needs_no_other_file_and_no_network(adapted: Path) -> None:
    page = adapted.read_text()
    addresses = re.findall(r"(?:src|srcset|href)=\"([^\"]*)\"", page)
    assert addresses
    assert all(a.startswith("data:") for a in addresses)
    assert not re.search(r"url\((?!\"\$)|@import|fetch\(|XMLHttpRequest", page)


def test_names_are_escaped(adapted: Path) -> None:
    page = adapted.read_text()
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page


def test_transfer_and_passing_through_have_reports_too(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    page = report_of(tmp_path / "a", replace(QUICK, method="transfer")).read_text()
    assert "transferred" in page
    assert "What blurry frames learned from" in page
    assert "Loss terms" not in page
    source = make_clip(tmp_path / "even.mp4")
    recorder = Recorder()
    result = deblur(source, tmp_path / "out.mp4", QUICK, recorder)
    page = write_report(tmp_path / "even.html", source, result, QUICK, recorder.log).read_text()
    assert "passed through unchanged" in page
    assert "What blurry frames learned from" not in page


def test_the_log_attributes_time_and_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 2.0, 3.0, 7.0, 7.5, 8.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    told: list[object] = []
    recorder = Recorder(told.append)
    recorder(Progress("scan", 10, 10))
    recorder(Plan((("flow", "dis"),), 3.0))
    recorder(Progress("stage 1", 2, 2, "steps", (("loss", 0.5),)))
    recorder(Progress("stage 2", 1, 2, "steps", (("loss", 0.25),)))
    recorder(Finished("o.mp4", 8.0, (("done", "adapted"),), action="adapted"))
    recorder.log.notes.clear()
    assert recorder.log.seconds == {"scan": 2, "preparation": 1, "stage 1": 4, "stage 2": 0.5, "finishing": 0.5}
    assert recorder.log.losses == {"stage 1": {"loss": ([2], [0.5])}, "stage 2": {"loss": ([3], [0.25])}}
    assert recorder.log.plan == {"flow": "dis"}
    assert len(told) == 5


def test_which_frames_are_shown() -> None:
    difference = np.zeros(100)
    difference[[10, 11, 50, 90]] = [5, 6, 4, 3]
    assert most_changed(difference, 3) == [11, 50, 90]
    assert most_changed(np.zeros(1), 4) == [0]
    assert evenly(5, 24) == [0, 1, 2, 3, 4]
    assert evenly(100, 3) == [0, 50, 99]
    np.testing.assert_allclose(smooth(np.arange(90.0))[3:-3], np.arange(90.0)[3:-3])


def test_plots_are_the_same_twice_and_differ_by_theme() -> None:
    values = np.tile([10.0, 100.0, 20.0], 8)
    clues = select_clues(values, [range(12), range(12, 24)], ClueSettings())
    first = timeline(np.arange(24) / 30, clues, values * 2)
    assert first == timeline(np.arange(24) / 30, clues, values * 2)
    assert first["light"] != first["dark"]


def test_facts() -> None:
    assert changed_settings(Settings(output=OutputSettings(crf=12))) == [("output.crf", "12")]


def test_a_missing_extra_is_said_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert report_file(tmp_path / "page.html").path == tmp_path / "page.html"
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    with pytest.raises(UsageError, match="needs jinja2") as caught:
        report_file(tmp_path / "page.html")
    assert "'.[report]'" in caught.value.hint


def test_a_value_that_is_missing_is_an_error() -> None:
    from jinja2 import UndefinedError

    with pytest.raises(UndefinedError):
        render({})


def test_the_flags(tmp_path: Path) -> None:
    source = shaky_file(tmp_path / "clip.mp4")
    command = ["deblur", source, "-o", tmp_path / "sharp.mp4", *QUICK_FLAGS, "--method", "transfer"]
    extras = ["--report", tmp_path / "r.html", "--compare", "wipe", "--json"]
    done = run(*command, *extras)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    written = {e["what"]: e["path"] for e in events if e["event"] == "written"}
    assert written == {"comparison": str(tmp_path / "sharp-wipe.mp4"), "report": str(tmp_path / "r.html")}
    assert all(Path(path).stat().st_size for path in written.values())
    (tmp_path / "sharp.mp4").unlink()
    refused = run(*command, *extras)
    assert refused.returncode == 2
    assert "exists already" in refused.stdout
    assert not (tmp_path / "sharp.mp4").exists()


def test_weights_of_the_merging_network_are_among_those_it_was_made_with(adapted: Path) -> None:
    page = adapted.read_text()
    assert "merging network" in page[page.index("Made with") :]
    assert sha256_of(bundled_folder() / "merge-shake.safetensors") in page


def test_frames_that_are_only_the_sharpest_of_their_stretch_are_told_apart() -> None:
    values = np.concatenate([np.tile([10.0, 100.0], 10), np.full(20, 9.0), np.tile([10.0, 100.0], 10)])
    values[30] = 12.0
    clues = select_clues(values, [range(60)], ClueSettings())
    assert np.flatnonzero(clues.forced).tolist() == [30]
    assert clues.sharp.sum() == 21
    drawn = base64.b64decode(timeline(np.arange(60) / 30, clues, values)["light"].partition(",")[2])
    plain = replace(clues, sharp=clues.sharp & ~clues.forced)
    assert drawn != base64.b64decode(timeline(np.arange(60) / 30, plain, values)["light"].partition(",")[2])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(adapted: Path, scheme: str) -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    blocks = re.findall(r":root \{(.*?)\}", adapted.read_text(), re.S)
    colors = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", blocks[0] if scheme == "light" else "".join(blocks)))
    for ground in (colors["card"], colors["page"]):
        for text in ("text", "dim", "accent", "warn"):
            assert contrast(colors[text], ground) >= 4.5, (text, ground)
        for control in ("control", "accent", "clue"):
            assert contrast(colors[control], ground) >= 3, (control, ground)
        theme = THEMES[scheme]
        assert contrast(theme.text, ground) >= 4.5
        assert all(contrast(c, ground) >= 3 for c in (theme.before, theme.after, theme.clue, theme.cut, *theme.terms))


# -- in a browser


def test_a_browser_loads_it_without_complaint(browser: Any, adapted: Path) -> None:
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(adapted.as_uri().replace("'", "%27"))
    assert browser.get_log("browser") == []
    images = browser.execute_script("return [...document.images].map(i => [i.complete, i.naturalWidth, i.alt])")
    assert len(images) > 20
    assert all(complete and width > 0 for complete, width, _ in images)
    shown = browser.execute_script("return [...document.querySelectorAll('figure img, .plot img')].map(i => i.alt)")
    assert all(len(text.split()) >= 3 for text in shown), "every picture that says something has it as a text, too"
    assert len(set(shown)) == len(shown), "no two alike"
    asked = [json.loads(row["message"])["message"] for row in browser.get_log("performance")]
    addresses = [m["params"]["request"]["url"] for m in asked if m["method"] == "Network.requestWillBeSent"]
    assert any(a.startswith("file:") for a in addresses)
    # The browser's own first page may still be loading.
    assert all(a.startswith(("data:", "file:", "chrome://")) for a in addresses), addresses


def test_the_slider_moves_by_mouse_and_by_keyboard(browser: Any, adapted: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    set_view(browser, 1280, 900, "light")
    browser.get(adapted.as_uri())
    stage = browser.find_element("css selector", ".compare .stage")
    before = "return getComputedStyle(arguments[0].querySelector('.top')).clipPath"
    start = browser.execute_script(before, stage)
    ActionChains(browser).move_to_element_with_offset(stage, -stage.size["width"] // 4, 0).click().perform()
    moved = browser.execute_script(before, stage)
    assert moved != start
    slider = stage.find_element("css selector", "input")
    value = int(slider.get_property("value"))
    assert 20 <= value <= 30
    slider.send_keys(Keys.ARROW_RIGHT)
    assert int(slider.get_property("value")) == value + 1
    slider.send_keys(Keys.HOME)
    assert browser.execute_script("return arguments[0].style.getPropertyValue('--pos')", stage) == "0%"
    assert "100%" in browser.execute_script(before, stage)


def test_the_filmstrip_plays(browser: Any, adapted: Path) -> None:
    browser.get(adapted.as_uri())
    current = "return document.querySelector('.strip [aria-current=true]').dataset.text"
    first = browser.execute_script(current)
    browser.find_elements("css selector", ".strip button")[3].click()
    assert browser.execute_script(current) != first
    play = browser.find_element("id", "play")
    play.click()
    assert play.text == "Pause"
    here = browser.execute_script(current)
    deadline = time.monotonic() + 60
    while browser.execute_script(current) == here and time.monotonic() < deadline:
        time.sleep(0.05)
    assert browser.execute_script(current) != here
    play.click()
    assert play.text == "Play"


def test_the_magnifier_shows_pixels_as_they_are(browser: Any, adapted: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    set_view(browser, 1280, 900, "light")
    browser.get(adapted.as_uri())
    stage, lens = (browser.find_element("css selector", f".compare {s}") for s in (".stage", ".lens"))
    assert not lens.is_displayed()
    browser.find_element("id", "zoom").click()
    assert lens.is_displayed()
    ActionChains(browser).move_to_element_with_offset(stage, -stage.size["width"] // 4, 0).perform()
    halves = browser.execute_script(
        "return [...arguments[0].children].map(h => [getComputedStyle(h).backgroundSize, h.clientWidth,"
        " getComputedStyle(h).backgroundPositionX, h.style.backgroundImage.length])",
        lens,
    )
    natural = browser.execute_script("return arguments[0].querySelector('img').naturalWidth", stage)
    for size, width, left, address in halves:
        assert size.split()[0] == f"{natural}px"
        assert float(left[:-2]) == pytest.approx(width / 2 - natural / 4, abs=2)
        assert address > 100
    browser.find_element("id", "zoom").click()
    assert not lens.is_displayed()


def test_plots_scroll_on_a_phone(browser: Any, adapted: Path) -> None:
    set_view(browser, 375, 812, "light")
    browser.get(adapted.as_uri())
    sizes = browser.execute_script(
        "return [...document.querySelectorAll('.plot')].map(p => [p.clientWidth, p.scrollWidth, p.tabIndex])"
    )
    assert len(sizes) == 2
    assert all(shown < drawn and drawn >= 620 and focus == 0 for shown, drawn, focus in sizes)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
def test_it_fits_the_screen_in_both_schemes(browser: Any, adapted: Path, width: int, scheme: str) -> None:
    set_view(browser, width, 844, scheme)
    browser.get(adapted.as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth") == width
    channels = re.findall(r"\d+", browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert (int(channels[0]) > 128) == (scheme == "light")
    source = browser.execute_script("return document.querySelector('.plot img').currentSrc")
    other = browser.execute_script("return document.querySelector('.plot source').srcset")
    assert (source == other) == (scheme == "dark"), "the plots follow the scheme"


# -- inspect --plot


def test_inspect_plots_its_timeline(tmp_path: Path) -> None:
    import cv2

    source = shaky_file(tmp_path / "clip.mp4", 12)
    out = tmp_path / "clues.png"
    done = run("inspect", source, "--plot", out)
    assert done.returncode == 0, done.stderr
    assert str(out) in done.stdout
    image = cv2.imread(str(out))
    assert image.shape[1] > 1200
    strip = image[: image.shape[0] // 3]
    assert len(np.unique(strip.reshape(-1, 3), axis=0)) > 200, "thumbnails, not only lines"
    again = run("inspect", source, "--plot", out)
    assert again.returncode == 2
    assert "exists already" in again.stderr
    wrong = run("inspect", source, "--plot", tmp_path / "clues.txt")
    assert wrong.returncode == 2
    assert "wrong type of file" in wrong.stderr


def test_soft_stretches() -> None:
    from selfhvd_tta.extras.report.clue_plot import runs

    assert runs(np.array([True, True, False, True])) == [(0, 1), (3, 3)]
    assert runs(np.zeros(3, dtype=bool)) == []


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    source = tmp_path / os.fsdecode(b"caf\xe9.mp4")
    make_clip(tmp_path / "plain.mp4").rename(source)
    extras = Extras(report=tmp_path / "page.html")
    deblur_with(source, tmp_path / "out.mp4", Settings(runtime=RuntimeSettings(offline=True)), extras)
    assert r"caf\udce9.mp4" in (tmp_path / "page.html").read_text(encoding="utf-8")
