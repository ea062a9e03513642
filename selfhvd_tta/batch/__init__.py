"""Many videos: each in its own process, so that a failure does not affect the others.

``make_plan`` finds the videos and decides what to do, ``run`` does it, ``batch.json`` in the output folder
remembers it, so that the same command continues where an earlier one ended.
"""

from selfhvd_tta.batch.events import (
    BatchEvent,
    BatchListener,
    Outcome,
    VideoEnded,
    VideoEvent,
    VideoStarted,
    as_json,
    forward,
)
from selfhvd_tta.batch.ledger import LEDGER
from selfhvd_tta.batch.plan import BatchPlan, Task, describe, make_plan
from selfhvd_tta.batch.run import Summary, run

__all__ = [
    "LEDGER",
    "BatchEvent",
    "BatchListener",
    "BatchPlan",
    "Outcome",
    "Summary",
    "Task",
    "VideoEnded",
    "VideoEvent",
    "VideoStarted",
    "as_json",
    "describe",
    "forward",
    "make_plan",
    "run",
]
