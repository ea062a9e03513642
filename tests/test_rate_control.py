"""The rate factor that follows the source."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

import selfhvd_tta
from selfhvd_tta.errors import Interrupted
from selfhvd_tta.events import Event, Plan, Progress
from selfhvd_tta.method.clues import select_clues
from selfhvd_tta.run import rate as rate_module
from selfhvd_tta.run.cancelling import CancelToken
from selfhvd_tta.run.job import Job
from selfhvd_tta.run.rate import choose_rate
from selfhvd_tta.settings import ClueSettings, OutputSettings
from selfhvd_tta.video.rate_control import RateChoice, bytes_per_frame, choose, follow_source
from selfhvd_tta.video.reader import VideoReader
from selfhvd_tta.video.writer import VideoWriter
from tests.media import Planes, make_clip
from tests.test_cli import shaky_file
from tests.test_pipeline import QUICK

TRIED = (2, 10, 18, 28)


def texture(index: int, width: int, height: int, pix_fmt: str) -> Planes:
    """A picture of detail at every scale that moves by two pixels a frame, and noise of its own in every frame."""
    noise = np.random.default_rng(5).normal(0, 1, (height, width + 2 * 40)).astype(np.float32)
    picture = sum(cv2.GaussianBlur(noise, (0, 0), sigma) * sigma * 14 for sigma in (0.8, 2.0, 6.0))
    moved = picture[:, 2 * index : 2 * index + width] + np.random.default_rng(index).normal(0, 1, (height, width))
    gray = np.full((height // 2, width // 2), 128, np.uint8)
    return np.clip(np.rint(125 + moved), 16, 235).astype(np.uint8), gray, gray


def clip(path: Path, crf: int, count: int = 12) -> Path:
    times = tuple(512 * i for i in range(count))
    options = {"crf": str(crf), "preset": "fast"}
    return make_clip(path, times, size=(160, 128), planes=texture, color=(1, 1, 1, 1), options=options)


def luma_error(path: Path, frames: range) -> float:
    """Mean squared error of luma against the pictures that were coded first."""
    found = [frame for frame in VideoReader(path).luma() if frame.index in frames]
    true = [texture(frame.index, 160, 128, "yuv420p")[0].astype(np.float32) for frame in found]
    stretched = [np.clip((picture - 16) * 255 / 219, 0, 255) for picture in true]
    return float(np.mean([np.square(a.y - b).mean() for a, b in zip(found, stretched, strict=True)]))


def test_quality_decides_where_there_is_room_and_the_bit_rate_where_there_is_none() -> None:
    errors = (0.2, 0.4, 1.0, 4.0)
    rates = (4000.0, 2000.0, 900.0, 300.0)
    roomy = choose(TRIED, list(zip(rates, errors, strict=True)), rates, 1000.0)
    assert 10 * np.log10(1 + 0.4 / (2.5 * 1.9)) < 0.4  # what CRF 10 would cost by the same rule
    assert 2 < roomy.crf < 12
    assert roomy.growth <= 2.5
    tight = choose(TRIED, list(zip(rates, errors, strict=True)), tuple(2 * rate for rate in rates), 1000.0)
    assert tight.crf > roomy.crf
    assert tight.growth <= 2.5
    assert tight.cost > roomy.cost


def test_a_better_source_gets_a_better_result_and_coding_it_again_costs_little(tmp_path: Path) -> None:
    chosen: dict[int, RateChoice] = {}
    for crf in (14, 30):
        reader = VideoReader(clip(tmp_path / f"{crf}.mp4", crf))
        sharp = [True] * len(reader.pts)
        chosen[crf] = follow_source(reader, sharp, OutputSettings(preset="fast"))
        assert follow_source(reader, sharp, OutputSettings(preset="fast")) == chosen[crf]
        settings = OutputSettings(preset="fast", crf=chosen[crf].crf)
        out = tmp_path / f"out{crf}.mp4"
        with VideoWriter(out, reader.info, settings) as writer:
            for frame in reader:
                writer.write(frame.rgb, frame.pts)
        growth = bytes_per_frame(VideoReader(out)) / bytes_per_frame(reader)
        assert growth == pytest.approx(chosen[crf].growth, rel=0.15)
        assert growth < 2.6
        every = range(len(sharp))
        lost = 10 * np.log10(luma_error(out, every) / luma_error(tmp_path / f"{crf}.mp4", every))
        assert lost < 0.6
    assert chosen[14].crf < chosen[30].crf


def test_sharper_results_take_more_bits(tmp_path: Path) -> None:
    reader = VideoReader(clip(tmp_path / "in.mp4", 24))
    alike, sharper = (follow_source(reader, [sharp] * len(reader.pts), OutputSettings()) for sharp in (True, False))
    assert sharper.crf >= alike.crf


def test_nothing_is_chosen_where_the_user_has_or_nothing_is_lost(tmp_path: Path) -> None:
    reader = VideoReader(clip(tmp_path / "in.mp4", 24, count=2))
    clues = select_clues(np.array([1.0, 9.0]), [range(2)], ClueSettings(normalise=False))
    for name, settings in (
        ("out.mp4", OutputSettings(crf=21)),
        ("out.mkv", OutputSettings(codec="ffv1")),
        ("images", OutputSettings()),
    ):
        with Job(tmp_path / name) as job:
            assert choose_rate(reader, tmp_path / name, clues, settings, job) is None


def test_a_run_that_goes_on_keeps_the_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out, token = shaky_file(tmp_path / "in.mp4", 6, 0), tmp_path / "out.mp4", CancelToken()

    def stop(event: Event) -> None:
        if isinstance(event, Progress) and event.phase == "restore":
            token.cancel()

    monkeypatch.setattr(rate_module, "follow_source", lambda *_: RateChoice(31, 0.2, 0.5))
    with pytest.raises(Interrupted):
        selfhvd_tta.deblur(source, out, QUICK, stop, token)
    monkeypatch.setattr(rate_module, "follow_source", lambda *_: pytest.fail("chosen twice"))
    events: list[Event] = []
    assert selfhvd_tta.deblur(source, out, QUICK, events.append).crf == 31
    coding = next(dict(event.rows)["coding"] for event in events if isinstance(event, Plan))
    assert coding.startswith("CRF 31, by trial: about 0.5 times the source's bit rate; coding costs")
