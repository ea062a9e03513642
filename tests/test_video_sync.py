"""Sound stays in time, from every container that is read to every one that is written: measured by what is heard."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from benchmarks.mutants import CONTAINERS, make
from selfhvd_tta.settings import OutputSettings
from selfhvd_tta.video.compat import time_base_of
from selfhvd_tta.video.opening import open_reader, open_writer
from tests import media

RATE = 48000
BEFORE = 4800
NOISE = 0.3 * np.random.default_rng(0).standard_normal(2 * RATE + 24).cumsum()[24:]
NOISE = (NOISE - np.convolve(NOISE, np.ones(480) / 480, "same")).clip(-1, 1).astype(np.float32)


def noise(seconds: float, rate: int = RATE, start_s: float = 0) -> list[Any]:
    """Like :func:`tests.media.sine`, of a sound that fits itself at one place only."""
    blocks = []
    for start in range(0, int(seconds * rate), 1024):
        wave = NOISE[start : start + 1024]
        block = av.AudioFrame.from_ndarray(np.stack([wave, wave]), format="fltp", layout="stereo")
        block.sample_rate, block.pts, block.time_base = rate, start + round(start_s * rate), Fraction(1, rate)
        blocks.append(block)
    return blocks


def lag(path: Path) -> float:
    """How much later than the first picture the noise begins, in seconds."""
    with av.open(str(path)) as container:
        pictures = [p for p in container.demux(video=0) if p.size]
        first = min((p.dts if p.pts is None else p.pts) * time_base_of(p) for p in pictures)
    heard = np.zeros(len(NOISE))
    at = 0
    with av.open(str(path)) as container:
        fitting = av.AudioResampler("fltp", "mono", RATE)
        for frame in container.decode(audio=0):
            if frame.pts is not None:  # WMA states the times of some packets only
                at = round((frame.pts * time_base_of(frame) - first) * RATE) + BEFORE
            for piece in fitting.resample(frame):
                samples = piece.to_ndarray()[0]
                begin = max(0, -at)
                heard[at + begin : at + len(samples)] = samples[begin : max(begin, len(heard) - at)]
                at += len(samples)
    size = 2 * len(NOISE)
    match = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(NOISE, size)))
    place = int(np.argmax(match))
    return ((place if place < len(NOISE) else place - size) - BEFORE) / RATE


@pytest.mark.parametrize("kind", CONTAINERS)
def test_sound_is_heard_when_it_was(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "sine", noise)
    source = make(tmp_path, kind)
    before = lag(source)
    for suffix in (".mp4", ".mov", ".mkv"):
        reader = open_reader(source)
        with open_writer(tmp_path / f"out{suffix}", reader, OutputSettings(preset="ultrafast")) as writer:
            for frame in reader:
                writer.write(frame.rgb, frame.pts)
        assert lag(tmp_path / f"out{suffix}") == pytest.approx(before, abs=0.0015), suffix
