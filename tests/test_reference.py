"""The generated pages of docs/reference say what the code says today."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from selfhvd_tta.config import setting_names
from selfhvd_tta.events import Progress

ROOT = Path(__file__).parent.parent
NAMES = ("settings.md", "models.md", "exit-codes.md", "events.md")


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs/generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", NAMES)
def test_the_page_follows_the_code(name: str, generate: ModuleType) -> None:
    assert set(generate.PAGES) == set(NAMES)
    page = (ROOT / "docs/reference" / name).read_text(encoding="utf-8")
    assert page == generate.PAGES[name](), "run: python docs/generate.py"


def test_every_setting_has_a_row() -> None:
    page = (ROOT / "docs/reference/settings.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]*\| \S", page, re.M)
    assert len(rows) == len(setting_names())


def test_every_phase_that_is_sent_is_documented() -> None:
    sent: set[str] = set()
    for folder in ("method", "run", "extras"):
        for path in (ROOT / "selfhvd_tta" / folder).rglob("*.py"):
            sent |= set(re.findall(r'Progress\("([^"]+)"', path.read_text(encoding="utf-8")))
    assert {"scan", "labels", "download", "compare"} <= sent
    documented = set(re.findall(r"``([^`]+)``", Progress.__doc__ or ""))
    assert sent <= documented, sent - documented
