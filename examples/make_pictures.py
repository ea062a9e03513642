"""The pictures in docs/images, made by the tool itself from examples/shaky.mp4.

    pip install '.[report]'
    python examples/make_pictures.py docs/images

writes clues.jpg (sharpness over time), labels.jpg (input, aligned sharp frames, mask, output of two frames) and, where
chromium and selenium are installed, report.jpg (a page of --report, light and dark).
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from selfhvd_tta import Settings, deblur, inspect
from selfhvd_tta.extras.comparison import label
from selfhvd_tta.extras.report import Recorder, write_report
from selfhvd_tta.extras.report.clue_plot import plot_clues
from selfhvd_tta.extras.report.labels import show_labels, with_labels
from selfhvd_tta.extras.report.pictures import Pair
from selfhvd_tta.settings import RuntimeSettings

CLIP = Path(__file__).parent / "shaky.mp4"
TRANSFER = replace(Settings(), method="transfer", runtime=RuntimeSettings(device="cpu", offline=True))


def draw_labels(pair: Pair, result: object, out: Path) -> None:
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
        rows.append(np.hstack([np.pad(c, ((0, 4), (0, 4), (0, 0)), constant_values=255) for c in cells]))
    cv2.imwrite(str(out), cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])


def photograph(page: Path, out: Path) -> None:
    """The upper part of the report, light and dark beside each other."""
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


def main(folder: Path) -> None:
    plot_clues(inspect(CLIP), folder / "clues.jpg", overwrite=True)
    with tempfile.TemporaryDirectory() as place:
        recorder = Recorder()
        result = deblur(CLIP, Path(place) / "sharp.mp4", TRANSFER, recorder)
        draw_labels(Pair(CLIP, result.output), result, folder / "labels.jpg")
        page = write_report(Path(place) / "report.html", CLIP, result, TRANSFER, recorder.log)
        photograph(page, folder / "report.jpg")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
