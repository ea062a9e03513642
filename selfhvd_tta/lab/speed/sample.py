"""The clip that speed is measured on: made on the spot, always the same, shaken as a hand shakes."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import torch

from selfhvd_tta.lab.simulation.shake import preset
from selfhvd_tta.lab.simulation.simulate import simulate_clip

Frames = np.ndarray


def picture(side: int, seed: int = 0) -> Frames:
    """(side, side, 3) uint8: noise of all scales from an eighth of the picture down, as pictures have it."""
    generator = np.random.default_rng(seed)
    total = np.zeros((side, side, 3), np.float32)
    cells = 8
    while cells <= side:
        noise = generator.standard_normal((cells, cells, 3)).astype(np.float32)
        total += cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC) * (8 / cells) ** 0.6
        cells *= 2
    return np.clip(128 + 45 * total / total.std(), 0, 255).astype(np.uint8)


def shaky_frames(width: int, height: int, count: int, device: torch.device | str = "cpu") -> Frames:
    """(N, H, W, 3) uint8 RGB of simulated handheld shake over :func:`picture`."""
    settings = replace(preset("camera"), width=width, height=height, frames=count, crf=None)
    return simulate_clip(picture(2 * max(width, height)), settings, 0, device).blurry


def write_video(path: Path, frames: Frames, rate: int = 30) -> None:
    """An H.264 file of these frames, as a phone might have written it."""
    height, width = frames.shape[1:3]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(rate))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "18", "preset": "veryfast"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
