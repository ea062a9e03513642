"""What leaves the repository: the description on PyPI, the site, the citation, the workflow."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
URL = "https://github.com/someone/selfhvd-tta"


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def links(text: str) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", text)


def test_links_of_the_description_are_absolute(hook: ModuleType) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = hook.long_description(readme, URL)
    assert len(links(shown)) == len(links(readme)) > 5
    assert all(link.startswith("https://") for link in links(shown))
    assert f"({URL}/raw/main/docs/images/before-after.jpg)" in shown


def test_without_an_address_nothing_points_nowhere(hook: ModuleType) -> None:
    shown = hook.long_description((ROOT / "README.md").read_text(encoding="utf-8"), "")
    assert "![" not in shown
    assert "*Frames 0" not in shown, "a caption without its picture"
    assert all(link.startswith("https://") for link in links(shown))


def test_the_site_builds(tmp_path: Path) -> None:
    """Strictly: a page left out of the navigation, a broken link or a missing anchor is an error."""
    pytest.importorskip("material", reason="needs the extra 'docs'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    first = (tmp_path / "site/index.html").read_text(encoding="utf-8")
    assert "images/before-after.jpg" in first
    assert not re.search(r'<(?:script|link|img)[^>]*(?:src|href)="https?://', first), "something comes from elsewhere"
    assert (tmp_path / "site/cards/relay-lite/index.html").exists()


def test_the_citation_has_the_version_of_the_package() -> None:
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    assert version is not None
    assert f"\nversion: {version[1]}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_the_workflow_runs_what_developers_run() -> None:
    workflow = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    assert "- run: .ci/run\n" in workflow
    assert (ROOT / ".ci/run").stat().st_mode & 0o100
