"""The pictures of the documentation, made by the tool itself.

    pip install '.[test,report]'
    python examples/make_pictures.py docs                 # all of them
    python examples/make_pictures.py docs --only gallery  # some

``clip``: images/before-after.jpg, clues.jpg (sharpness over time) and labels.jpg (input, aligned sharp frames, mask,
output of two frames) from examples/shaky.mp4 and, where chromium and selenium are installed, report.jpg (a page of
--report, light and dark). ``gallery``: the page gallery/index.md and its pictures, from scenarios of the simulator over
photographs that come with scikit-image. Of each clip the frame is shown whose gain is the median of the blurry ones.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import cv2
import numpy as np

from selfhvd_tta import Settings, deblur, inspect
from selfhvd_tta.console import show_lines
from selfhvd_tta.extras.comparison import label
from selfhvd_tta.extras.report import Recorder, write_report
from selfhvd_tta.extras.report.clue_plot import plot_clues
from selfhvd_tta.extras.report.labels import show_labels, with_labels
from selfhvd_tta.extras.report.pictures import VideoPair
from selfhvd_tta.lab.evaluation.metrics.psnr import psnr
from selfhvd_tta.lab.simulation.scenarios import SCENARIOS, Scenario
from selfhvd_tta.settings import RuntimeSettings
from selfhvd_tta.video.color import Array
from selfhvd_tta.video.images import ImageReader, save_image
from selfhvd_tta.video.reader import VideoReader
from selfhvd_tta.wording import duration

CLIP = Path(__file__).parent / "shaky.mp4"
SHOWN = (0, 28, 45)  # frames of the clip in before-after.jpg
GALLERY = ("camera", "walk", "crowd", "none", "phone", "night")
TRANSFER = replace(Settings(), method="transfer", runtime=RuntimeSettings(device="cpu", offline=True))


def draw_labels(pair: VideoPair, result: object, out: Path) -> None:
    """Two rows of input, label, mask, output."""
    clues = result.clues  # type: ignore[attr-defined]
    order = np.argsort(clues.sharpness).tolist()
    rows = []
    for one in show_labels(pair, with_labels([order[0], order[3]], clues, TRANSFER, 2), clues, TRANSFER):
        weight = (one.mask.astype(np.float32) / 255)[..., None]
        trusted = np.rint(one.label * weight + 110 * (1 - weight)).astype(np.uint8)
        mask = cv2.cvtColor(cv2.applyColorMap(one.mask, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
        cells = [one.before.copy(), trusted, mask, one.after.copy()]
        for cell, text in zip(cells, (f"frame {one.index}", "aligned", "mask", "output"), strict=True):
            label(cell, text)
        rows.append(cells)
    write_jpeg(out, grid(rows))


def photograph(page: Path, out: Path) -> None:
    """The upper part of the report, light and dark next to each other."""
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from tests.browser import chromium, screenshot, set_view

    shots = []
    with tempfile.TemporaryDirectory() as place, chromium(Path(place)) as browser:
        for scheme in ("light", "dark"):
            set_view(browser, 820, 1000, scheme)
            browser.get(page.as_uri())
            shot = Path(place) / f"{scheme}.png"
            screenshot(browser, shot)
            shots.append(cv2.imread(str(shot))[:1000])
    both = cv2.resize(np.hstack(shots), None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(out), both, [cv2.IMWRITE_JPEG_QUALITY, 82])


def draw_clip(folder: Path) -> None:
    """The pictures that are made from the example clip."""
    folder.mkdir(parents=True, exist_ok=True)
    plot_clues(inspect(CLIP), folder / "clues.jpg", overwrite=True)
    with tempfile.TemporaryDirectory() as place:
        recorder = Recorder()
        result = deblur(CLIP, Path(place) / "sharp.mp4", TRANSFER, recorder)
        before, after = ([f.rgb for f in VideoReader(path).read(SHOWN)] for path in (CLIP, result.output))
        write_jpeg(folder / "before-after.jpg", grid([before, after]))
        draw_labels(VideoPair(CLIP, result.output, None), result, folder / "labels.jpg")
        page = write_report(Path(place) / "report.html", CLIP, result, TRANSFER, recorder.log)
        photograph(page, folder / "report.jpg")


@dataclass(frozen=True)
class Exhibit:
    """A restored clip of the gallery.

    Attributes:
        scenario: what was simulated.
        frame: number of the frame that is shown.
        shown: its PSNR in dB before and after.
        mean: mean PSNR in dB of the blurry frames before and after.
        worst: largest loss of a frame in dB; 0 if none lost.
        seconds: CPU time of the run, of all threads.
    """

    scenario: Scenario
    frame: int
    shown: tuple[float, float]
    mean: tuple[float, float]
    worst: float
    seconds: float


def exhibit(scenario: Scenario, folder: Path) -> Exhibit:
    """Simulate and restore a clip, and write a picture of it: recorded on the left, restored on the right."""
    clip = scenario.simulate()
    with tempfile.TemporaryDirectory() as place:
        recorded, restored = Path(place) / "recorded", Path(place) / "restored"
        recorded.mkdir()
        for number, frame in enumerate(clip.blurry):
            save_image(recorded / f"{number:03d}.png", frame)
        started = time.process_time()
        result = deblur(recorded, restored, TRANSFER)
        seconds = time.process_time() - started
        after = [frame.rgb for frame in ImageReader(restored)]
    decibels = np.array(
        [[psnr(f, s) for f, s in zip(frames, clip.sharp, strict=True)] for frames in (clip.blurry, after)]
    )
    gains = decibels[1] - decibels[0]
    blurry = [i for i in np.argsort(gains).tolist() if not result.clues.sharp[i]]
    chosen = blurry[len(blurry) // 2]
    write_jpeg(folder / f"{scenario.name}.jpg", grid([[clip.blurry[chosen], after[chosen]]]))
    shown, mean = decibels[:, chosen].tolist(), decibels[:, blurry].mean(1).tolist()
    return Exhibit(scenario, chosen, tuple(shown), tuple(mean), float(max(0, -gains.min())), seconds)


def write_gallery(folder: Path) -> None:
    """The page of the gallery and its pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    first = next(s for s in SCENARIOS if s.name == GALLERY[0]).settings
    parts = [INTRODUCTION.format(size=f"{first.width}x{first.height}", frames=first.frames, date=f"{date.today()}")]
    for name in GALLERY:
        one = exhibit(next(s for s in SCENARIOS if s.name == name), folder)
        parts.append(
            f"## {name}: {one.scenario.shows}\n\n"
            f"![Frame {one.frame} of the clip {name}, recorded on the left, restored on the right]({name}.jpg)\n\n"
            f"This frame {arrow(one.shown)}; all blurry frames {arrow(one.mean)};\n"
            f"{loss(one.worst)}. {duration(one.seconds)} of CPU time."
        )
        show_lines(parts[-1:])
    (folder / "index.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


INTRODUCTION = """# Gallery

<!-- Written by examples/make_pictures.py, with the pictures. -->

Simulated, not recorded: a camera shakes in front of photographs that come with scikit-image
(public domain or CC0), as the headings say. Each clip has {frames} frames of {size} pixels and
is restored by `--method transfer --offline` on a CPU, without a setting of its own. Shown is
not the best frame but the one whose gain is the median of the blurry frames, recorded on the
left, restored on the right, every pixel as it is. Figures are PSNR in dB against the simulated
scene; measured on {date}.

`examples/make_pictures.py` makes this page and its pictures. [Recorded scenes](../lab/quality.md)
have figures, too, but no pictures here: the recordings are not ours to show."""


def arrow(pair: tuple[float, float]) -> str:
    return f"{pair[0]:.1f} to {pair[1]:.1f} dB"


def loss(worst: float) -> str:
    return f"the worst frame loses {worst:.1f} dB" if worst >= 0.05 else "no frame loses"


def grid(rows: Iterable[Iterable[Array]]) -> Array:
    """Pictures in rows with a white gap between them."""
    padded = [[np.pad(p, ((0, 4), (0, 4), (0, 0)), constant_values=255) for p in row] for row in rows]
    return np.vstack([np.hstack(row) for row in padded])[:-4, :-4]


def write_jpeg(path: Path, picture: Array) -> None:
    cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("docs", type=Path, help="folder of the documentation")
    parser.add_argument("--only", choices=("clip", "gallery"))
    given = parser.parse_args()
    if given.only != "gallery":
        draw_clip(given.docs / "images")
    if given.only != "clip":
        write_gallery(given.docs / "gallery")


if __name__ == "__main__":
    main()
