"""Test-time adaptation that makes a shaky, blurry handheld video sharp (after SelfHVD, CVPR 2026).

Importing this package is cheap: torch is imported when :func:`deblur` or :func:`inspect` is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from selfhvd_tta.errors import Interrupted, SelfHVDError
from selfhvd_tta.events import Event, Finished, Listener, Loaded, Note, Plan, Progress, Written
from selfhvd_tta.run.cancelling import CancelToken
from selfhvd_tta.settings import Settings

if TYPE_CHECKING:
    from selfhvd_tta.pipeline import Result, deblur
    from selfhvd_tta.run.scan import Inspection, inspect

__version__ = "0.1.0"

__all__ = [
    "CancelToken",
    "Event",
    "Finished",
    "Inspection",
    "Interrupted",
    "Listener",
    "Loaded",
    "Note",
    "Plan",
    "Progress",
    "Result",
    "SelfHVDError",
    "Settings",
    "Written",
    "__version__",
    "deblur",
    "inspect",
]

_HOME = {"deblur": "pipeline", "Result": "pipeline", "inspect": "run.scan", "Inspection": "run.scan"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
