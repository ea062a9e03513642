"""What a look found, as JSON for the job's folder and as HTML for the page."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Sequence
from typing import Any

from selfhvd_tta.extras.outlook import Outlook
from selfhvd_tta.wording import clock, plural

BARS = 240
HEIGHT = 48


def as_json(found: Outlook) -> str:
    """What the page shows of a look."""
    seen = found.seen
    clues = seen.clues
    return json.dumps(
        {
            "width": seen.info.width,
            "height": seen.info.height,
            "frames": len(seen.pts),
            "length": float((seen.pts[-1] - seen.pts[0]) * seen.info.time_base),
            "sharpness": [round(float(value), 3) for value in clues.score],
            "sharp": [bool(value) for value in clues.sharp],
            "shots": len(clues.shots),
            "helpful": seen.helpful,
            "verdict": seen.verdict,
            "exposure": None if seen.blur is None else round(seen.blur.exposure.share, 3),
            "blur": None if seen.blur is None else round(seen.blur.exposure.length, 1),
            "seconds": found.seconds,
        }
    )


def as_html(found: dict[str, Any]) -> str:
    """The findings for the page: verdict, facts, and a bar for each frame or group of frames."""
    sharp = sum(found["sharp"])
    facts = [
        f"{found['width']}x{found['height']}",
        plural(found["frames"], "frame"),
        clock(found["length"], 1),
        plural(sharp, "sharp frame"),
    ]
    if found["shots"] > 1:
        facts.append(plural(found["shots"], "shot"))
    if found["exposure"] is not None and found["helpful"]:
        facts.append(f"blur about {found['blur']:.0f} px, shutter open {found['exposure']:.0%} of the time")
    word, kind = ("Can be restored.", "good") if found["helpful"] else ("Would stay as it is.", "even")
    return (
        f'<div class="found"><p><strong class="{kind}">{word}</strong> {html.escape(_sentence(found["verdict"]))}</p>'
        f"<p>{html.escape(' · '.join(facts))}</p>{timeline(found['sharpness'], found['sharp'])}"
        '<p class="key"><span class="sharp"></span> sharp frame <span class="soft"></span> other frame; '
        "height: sharpness</p></div>"
    )


def timeline(sharpness: Sequence[float], sharp: Sequence[bool]) -> str:
    """Bars from the first frame to the last, as SVG; sharp frames in another colour."""
    count = len(sharpness)
    bars = min(count, BARS)
    edges = [count * i // bars for i in range(bars + 1)]
    logs = [math.log(max(value, 1e-3)) for value in sharpness]
    low, span = min(logs), max(max(logs) - min(logs), 1e-6)
    parts = []
    for i in range(bars):
        group = range(edges[i], edges[i + 1])
        height = 4 + (HEIGHT - 4) * (max(logs[j] for j in group) - low) / span
        kind = "sharp" if any(sharp[j] for j in group) else "soft"
        parts.append(
            f'<rect class="{kind}" x="{i + 0.1}" y="{HEIGHT - height:.1f}" width="0.8" height="{height:.1f}"/>'
        )
    text = f"Sharpness of {plural(count, 'frame')}; {sum(sharp)} of them are sharp"
    return (
        f'<svg viewBox="0 0 {bars} {HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{text}">'
        f"{''.join(parts)}</svg>"
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
