"""The clue timeline as text: how sharp every frame is, which ones are clues, where the cuts are."""

from __future__ import annotations

import json
import textwrap

import numpy as np

from selfhvd_tta.console import terminal_width
from selfhvd_tta.run.plan import described
from selfhvd_tta.run.scan import Inspection
from selfhvd_tta.wording import plural

LEVELS = "▁▂▃▄▅▆▇█"


def sparkline(values: np.ndarray) -> str:
    """One block character per value, on a logarithmic scale from the smallest to the largest."""
    logs = np.log(np.maximum(values, 1e-3))
    low, high = float(logs.min()), float(logs.max())
    if high - low < 1e-6:
        return LEVELS[len(LEVELS) // 2] * len(values)
    steps = np.clip((logs - low) / (high - low) * len(LEVELS), 0, len(LEVELS) - 1).astype(int)
    return "".join(LEVELS[s] for s in steps)


def as_json(seen: Inspection) -> str:
    """The scan as one JSON object; frames by number from 0."""
    info, clues = seen.info, seen.clues
    return json.dumps(
        {
            "video": str(info.path),
            "width": info.width,
            "height": info.height,
            "frames": len(seen.pts),
            "codec": info.codec,
            "shots": [[shot.start, shot.stop] for shot in clues.shots],
            "sharp": np.flatnonzero(clues.sharp).tolist(),
            "soft": np.flatnonzero(clues.soft).tolist(),
            "sharpness": [round(float(value), 2) for value in clues.sharpness],
            "separability": round(float(clues.separability), 4),
            "contrast": round(float(clues.contrast), 4),
            "helpful": seen.helpful,
            "verdict": seen.verdict,
            "exposure_share": None if seen.blur is None else round(seen.blur.exposure.share, 3),
            "local_blur": None if seen.blur is None else seen.blur.local,
            "blur_pixels": [round(length, 1) for length in seen.lengths],
        }
    )


def timeline(seen: Inspection, width: int | None = None) -> list[str]:
    """Lines to print for ``selfhvd-tta inspect``.

    Args:
        seen: the scan.
        width: frames per row; None: as many as fit the terminal.
    """
    columns = terminal_width()
    width = width or max(10, columns - 7)
    info, clues = seen.info, seen.clues
    count = len(seen.pts)
    lines = [
        f"{info.path}: {info.width}x{info.height}, {plural(count, 'frame')}, {info.codec} {info.pix_fmt}",
        f"{plural(int(clues.sharp.sum()), 'sharp frame')} (^), {int(clues.soft.sum())} clearly soft (.), "
        f"{plural(len(clues.shots), 'shot')}",
        f"separability {clues.separability:.2f}, contrast {clues.contrast:.2f}",
        "",
    ]
    bars = sparkline(clues.sharpness)
    marks = "".join("^" if sharp else "." if soft else " " for sharp, soft in zip(clues.sharp, clues.soft, strict=True))
    starts = {shot.start for shot in clues.shots[1:]}
    cuts = "".join("|" if i in starts else " " for i in range(count))
    for start in range(0, count, width):
        stop = min(start + width, count)
        lines.append(f"{start:>6} {bars[start:stop]}")
        lines.append(f"       {marks[start:stop]}".rstrip())
        if cuts[start:stop].strip():
            lines.append(f"       {cuts[start:stop].rstrip()}  (| = cut)")
    if seen.blur is not None:
        worst = int(np.argmax(seen.lengths))
        text = f"blur: {described(seen.blur)}; the longest is {seen.lengths[worst]:.0f} px, in frame {worst}"
        lines += ["", *textwrap.wrap(text, columns)]
    lines += ["", *textwrap.wrap(("can help: " if seen.helpful else "cannot help: ") + seen.verdict, columns)]
    return lines
