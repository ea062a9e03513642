"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHARED = Path(os.environ.get("SELFHVD_SHARED", ROOT.parent / "shared"))


def shared_path(relative: str) -> Path:
    """A file of the developers' shared folder; skips the test where it is absent."""
    path = SHARED / relative
    if not path.exists():
        pytest.skip(f"developers' shared folder has no {relative} here")
    return path


@pytest.fixture
def shared() -> object:
    return shared_path
