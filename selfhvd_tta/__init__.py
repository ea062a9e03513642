"""Test-time adaptation that makes a shaky, blurry handheld video sharp (after SelfHVD, CVPR 2026).

Importing this package is cheap: torch is imported when :func:`deblur` runs.
"""

from __future__ import annotations

from selfhvd_tta.errors import SelfHVDError
from selfhvd_tta.settings import Settings

__version__ = "0.1.0"

__all__ = ["SelfHVDError", "Settings", "__version__"]
