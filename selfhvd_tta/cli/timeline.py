"""The clue timeline as text: how sharp every frame is, which ones are clues, where the cuts are."""

from __future__ import annotations

import numpy as np

from selfhvd_tta.run.scan import Inspection

LEVELS = "▁▂▃▄▅▆▇█"


def sparkline(values: np.ndarray) -> str:
    """One block character per value, on a logarithmic scale from the smallest to the largest."""
    logs = np.log(np.maximum(values, 1e-3))
    low, high = float(logs.min()), float(logs.max())
    if high - low < 1e-6:
        return LEVELS[len(LEVELS) // 2] * len(values)
    steps = np.clip((logs - low) / (high - low) * len(LEVELS), 0, len(LEVELS) - 1).astype(int)
    return "".join(LEVELS[s] for s in steps)


def timeline(seen: Inspection, width: int = 80) -> list[str]:
    """Lines to print for ``selfhvd-tta inspect``.

    Args:
        seen: the scan.
        width: characters per row of frames.
    """
    info, clues = seen.info, seen.clues
    count = len(seen.pts)
    lines = [
        f"{info.path}: {info.width}x{info.height}, {count} frames, {info.codec} {info.pix_fmt}",
        f"{int(clues.sharp.sum())} sharp frames (^), {int(clues.soft.sum())} clearly soft ones (.), "
        f"{len(clues.shots)} shot{'s' * (len(clues.shots) > 1)}",
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
    lines += ["", ("can help: " if seen.helpful else "cannot help: ") + seen.verdict]
    return lines
