"""The guide's own example of a new backbone, installed as the guide says, passes the contract tests as they are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "docs/lab/adding-a-backbone.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """With the guide's file and entry point on the path, as an installed package has them."""
    folder = tmp_path_factory.mktemp("plugin")
    code = re.search(r"```python\n(.*?)```", GUIDE, re.S)
    entry = re.search(r'\[project\.entry-points\."(.+?)"\]\n(\w+) = "(.+?)"', GUIDE)
    assert code is not None
    assert entry is not None
    module = folder.joinpath(*entry[3].partition(":")[0].split(".")).with_suffix(".py")
    module.parent.mkdir(parents=True)
    (module.parent / "__init__.py").touch()
    module.write_text(code[1], encoding="utf-8")
    info = folder / "your_package-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: your-package\nVersion: 1\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[{entry[1]}]\n{entry[2]} = {entry[3]}\n", encoding="utf-8")
    return os.environ | {"PYTHONPATH": os.pathsep.join((str(folder), str(ROOT))), "OMP_NUM_THREADS": "1"}


def test_it_passes_the_contract_tests(environment: dict[str, str]) -> None:
    command = re.search(r"^python -m (pytest .*)$", GUIDE, re.M)
    assert command is not None
    # The other networks are tested elsewhere: here the example's tests, and those over the whole registry.
    picked = ["-k", "sharpener or every_network or every_small", "-p", "no:cacheprovider", "-n", "0"]
    done = subprocess.run(
        [sys.executable, "-m", *command[1].split(), *picked],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert re.search(r"\b1[0-9] passed", done.stdout), done.stdout


def test_it_is_a_choice_of_the_command_line(environment: dict[str, str]) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "selfhvd_tta", "models"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    assert "sharpener" in shown.stdout
