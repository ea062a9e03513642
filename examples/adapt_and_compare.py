"""The Python interface: look at a clip, adapt to it, say what changed.

python examples/adapt_and_compare.py examples/shaky.mp4 sharp.mp4
"""

from __future__ import annotations

import sys
from dataclasses import replace

from selfhvd_tta import SelfHVDError, Settings, deblur, inspect
from selfhvd_tta.events import Event, Progress
from selfhvd_tta.settings import AdaptationSettings


def show(event: Event) -> None:
    if isinstance(event, Progress) and event.done == event.total:
        print(f"finished: {event.phase}")


def main(source: str, output: str) -> None:
    before = inspect(source)
    print(before.verdict)
    quick = AdaptationSettings(iters=24, crop=128, clip_length=6)
    result = deblur(source, output, replace(Settings(), adaptation=quick), show)
    after = inspect(output)
    soft = before.clues.soft
    gain = after.clues.sharpness[soft].mean() / before.clues.sharpness[soft].mean()
    print(f"{result.action} {result.frames} frames in {result.seconds:.0f} s")
    print(f"variance of the Laplacian of the {int(soft.sum())} soft frames: {gain:.1f} times the input's")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:3])
    except SelfHVDError as error:
        sys.exit(f"{error.message}\n{error.hint}")
