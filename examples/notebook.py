"""A tour of the Python interface, as cells for editors that know ``# %%`` (VS Code, Spyder, PyCharm, Jupytext).

Run it whole with: python examples/notebook.py examples/shaky.mp4 /tmp/tour
It takes some minutes on a CPU: the settings are for a first look, not for the best result.
"""

# %% What there is
from __future__ import annotations

import sys
import threading
from dataclasses import replace
from pathlib import Path

from selfhvd_tta import CancelToken, Event, Interrupted, Progress, Settings, deblur, inspect
from selfhvd_tta.settings import AdaptationSettings, RuntimeSettings

video = Path(sys.argv[1] if len(sys.argv) > 2 else "examples/shaky.mp4")
folder = Path(sys.argv[2] if len(sys.argv) > 2 else "tour")
folder.mkdir(exist_ok=True)

# %% Look first: which frames are sharp, and can the video gain?
seen = inspect(video)
print(f"{seen.info.width}x{seen.info.height}, {len(seen.pts)} frames: {seen.verdict}")
sharpest, blurriest = int(seen.clues.sharpness.argmax()), int(seen.clues.sharpness.argmin())
print(f"sharpest frame {sharpest}, blurriest frame {blurriest}")

# %% Settings are frozen: change a copy
settings = replace(
    Settings(),
    adaptation=AdaptationSettings(iters=24, crop=128, clip_length=6),
    runtime=RuntimeSettings(offline=True),
)


# %% Progress comes as typed events
def show(event: Event) -> None:
    if isinstance(event, Progress) and event.done == event.total:
        figures = ", ".join(f"{name} {value:.4f}" for name, value in event.values)
        print(f"{event.phase}: {event.done} {event.unit} {figures}")


# %% The quick method: no network, the sharp frames themselves
quick = deblur(video, folder / "quick.mp4", replace(settings, method="transfer"), show)
print(quick.action, quick.frames, f"{quick.seconds:.0f} s")

# %% Another thread can end a run; nothing appears at the output, and the same call would continue
token = CancelToken()
threading.Timer(3.0, token.cancel).start()
try:
    deblur(video, folder / "sharp.mp4", settings, cancel=token)
except Interrupted as stopped:
    print(stopped.message)

# %% Adaptation: the losses are in the record
result = deblur(video, folder / "sharp.mp4", settings, show)
if result.record is not None and result.record.steps:
    first, last = result.record.steps[0], result.record.steps[-1]
    print(f"{len(result.record.steps)} steps, loss {first['loss']:.4f} in the first, {last['loss']:.4f} in the last")

# %% Did it help? The measure compares a frame with itself here: same picture, before and after
after = inspect(folder / "sharp.mp4")
soft = seen.clues.soft
if soft.any():
    gain = after.clues.sharpness[soft] / seen.clues.sharpness[soft]
    print(f"soft frames: variance of the Laplacian times {float(gain.mean()):.1f}")
