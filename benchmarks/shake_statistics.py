"""How simulated training clips compare with real handheld video, seen through the same small windows.

    python benchmarks/shake_statistics.py --videos FOLDER --photos FOLDER

Both are cut into windows of 160x160 pixels and 14 frames at full resolution, which is what training simulates. Per
window: how far the picture moves between frames (phase correlation), how much the sharpness of its frames varies
(95th over 5th percentile of the variance of the Laplacian), and the share of its frames that are at least 1.5 times
softer than a neighbour within 7 frames; further the mean luma, and an estimate of the noise, in which fine texture
counts as well. Reported are the quartiles over all windows.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from selfhvd_tta.lab.datasets.frames import VIDEO_SUFFIXES
from selfhvd_tta.lab.datasets.photos import list_photos, read_photo
from selfhvd_tta.lab.simulation.simulate import simulate_clip
from selfhvd_tta.lab.training.dataset import varied_settings
from selfhvd_tta.video.reader import VideoReader

SIZE, FRAMES = 160, 14
NAMES = ("shift", "fastest", "spread", "soft", "luma", "noise")


def statistics(window: NDArray[np.uint8]) -> tuple[float, ...]:
    """(T, H, W) luma -> median and largest shift in pixels per frame, spread, soft share, mean luma, noise."""
    grey = window.astype(np.float32)
    taper = cv2.createHanningWindow(grey.shape[2:0:-1], cv2.CV_32F)
    # Copies, since OpenCV 5 applies the taper in place.
    shifts = [float(np.hypot(*cv2.phaseCorrelate(a.copy(), b.copy(), taper)[0])) for a, b in pairwise(grey)]
    sharpness = np.array([cv2.Laplacian(frame, cv2.CV_32F).var() for frame in grey])
    around = [sharpness[max(i - 7, 0) : i + 8].max() for i in range(len(sharpness))]
    spread = np.percentile(sharpness, 95) / max(np.percentile(sharpness, 5), 1e-3)
    soft = float((np.array(around) >= 1.5 * sharpness).mean())
    # Immerkaer's estimate, of the smoothest tenth of the blocks: an edge is no noise.
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    ripple = np.abs(np.stack([cv2.filter2D(frame, -1, mask) for frame in grey[::4]]))
    blocks = ripple.reshape(len(ripple), SIZE // 16, 16, SIZE // 16, 16).mean((2, 4))
    noise = float(np.percentile(blocks, 10)) * np.sqrt(np.pi / 2) / 6
    return float(np.median(shifts)), max(shifts), float(spread), soft, float(grey.mean()), noise


def of_video(path: Path, windows: int, generator: np.random.Generator) -> list[tuple[float, ...]]:
    """Statistics of windows of a video that have some texture."""
    frames = [frame.rgb for _, frame in zip(range(120), VideoReader(path), strict=False)]
    grey = np.stack([cv2.cvtColor(np.asarray(f, np.uint8), cv2.COLOR_RGB2GRAY) for f in frames])
    found: list[tuple[float, ...]] = []
    for _ in range(20 * windows):
        if len(found) == windows:
            break
        t = int(generator.integers(len(grey) - FRAMES + 1))
        y, x = (int(generator.integers(size - SIZE + 1)) for size in grey.shape[1:])
        window = grey[t : t + FRAMES, y : y + SIZE, x : x + SIZE]
        if window[0].std() > 15:
            found.append(statistics(window))
    return found


def of_training(photos: list[Path], clips: int) -> list[tuple[float, ...]]:
    """Statistics of clips as training draws them."""
    found = []
    for number in range(clips):
        generator = np.random.default_rng((7, number))
        photo = read_photo(photos[int(generator.integers(len(photos)))])
        clip = simulate_clip(photo, varied_settings(generator, SIZE, FRAMES), int(generator.integers(2**31)))
        grey = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip.blurry])
        if grey[0].std() > 15:
            found.append(statistics(grey))
    return found


def row(name: str, rows: list[tuple[float, ...]]) -> str:
    """Quartiles of each figure, as a row of a table."""
    quartiles = np.percentile(np.array(rows), (25, 50, 75), axis=0).T
    return f"| {name} ({len(rows)}) | " + " | ".join(" / ".join(f"{v:.3g}" for v in q) for q in quartiles) + " |"


def main() -> None:
    """Print one row per video and one for the simulated clips."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--videos", type=Path, help="folder of real handheld videos")
    parser.add_argument("--photos", type=Path, help="folder of photographs")
    parser.add_argument("--windows", type=int, default=24, help="of each video")
    parser.add_argument("--clips", type=int, default=100, help="simulated")
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    print(f"| windows of | {' | '.join(NAMES)} |\n{'| --- ' * (len(NAMES) + 1)}|")
    if arguments.videos:
        for path in sorted(p for p in arguments.videos.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES):
            print(row(path.name, of_video(path, arguments.windows, generator)), flush=True)
    if arguments.photos:
        print(row("training clips", of_training(list_photos((arguments.photos,)), arguments.clips)))


if __name__ == "__main__":
    main()
