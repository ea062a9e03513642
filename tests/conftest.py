"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Two processes of tests share the cores: more threads in each would wait for one another. Set before torch is loaded.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

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
