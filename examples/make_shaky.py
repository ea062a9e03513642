"""Makes ``shaky.mp4``: the simulator shakes a camera at a public-domain photograph; a tone goes along as sound.

Run it from the checkout, with the test requirements installed: python examples/make_shaky.py
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from selfhvd_tta.lab.datasets.photos import bundled_photo
from selfhvd_tta.lab.simulation.simulate import preset, simulate_clip
from selfhvd_tta.video.color import BT709, YuvCoding, rgb_to_yuv
from selfhvd_tta.video.planes import frame_from_planes

RATE = 48000


def main() -> None:
    settings = replace(
        preset("camera"), width=320, height=240, crf=None, speed=(6.0, 7.0), duty=(0.85, 0.95), photo_scale=(1.2, 1.3)
    )
    clip = simulate_clip(bundled_photo("astronaut.png"), settings, seed=11)
    coding = YuvCoding(matrix=BT709, full_range=False, bits=8)
    with av.open(str(Path(__file__).parent / "shaky.mp4"), "w") as container:
        video = container.add_stream("libx264", rate=Fraction(30))
        video.width, video.height, video.pix_fmt = settings.width, settings.height, "yuv420p"
        video.options = {"crf": "14", "preset": "slow", "threads": "1"}
        video.codec_context.colorspace = video.codec_context.color_primaries = video.codec_context.color_trc = BT709
        video.codec_context.color_range = 1
        audio = container.add_stream("aac", rate=RATE)
        for frame in clip.blurry:
            planes = rgb_to_yuv(frame, coding)
            container.mux(video.encode(frame_from_planes(planes, "yuv420p", settings.width, settings.height)))
        container.mux(video.encode(None))
        for start in range(0, RATE * settings.frames // 30, 1024):
            time = (start + np.arange(1024)) / RATE
            tone = (0.1 * np.sin(2 * np.pi * (330 + 110 * np.floor(2 * time)) * time)).astype(np.float32)
            block = av.AudioFrame.from_ndarray(tone[None], format="fltp", layout="mono")
            block.sample_rate, block.pts, block.time_base = RATE, start, Fraction(1, RATE)
            container.mux(audio.encode(block))
        container.mux(audio.encode(None))


if __name__ == "__main__":
    main()
