"""The architecture's arrows: what a file may import of ours."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "selfhvd_tta"
FILES = sorted(PACKAGE.rglob("*.py"))
LEAVES = {"errors", "settings", "events", "files", "plugins", "times", "wording"}
# Which top-level parts of ours each part may import; arrows point downwards only.
ALLOWED = {
    "method": LEAVES | {"method", "backbones", "flows", "imaging"},
    "video": LEAVES | {"video"},
    "backbones": {"backbones", "flows", "plugins"},
    "flows": {"flows", "plugins", "imaging"},
    "imaging": set(),
    "weights": LEAVES | {"weights"},
    "console": LEAVES | {"console"},
    "errors": set(),
    "settings": {"errors", "times"},
    "times": {"errors"},
    "events": set(),
    "files": set(),
    "wording": set(),
    "plugins": {"errors"},
}


def imports_of(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_arrows_point_downwards(path: Path) -> None:
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    ours = {name.split(".")[1] for name in imports_of(path) if name.startswith("selfhvd_tta.")}
    if part in ALLOWED:
        assert ours <= ALLOWED[part], f"{part} imports {sorted(ours - ALLOWED[part])}"
    if part not in {"cli", "__main__"}:
        assert not any(name.startswith("cli") for name in ours)
    if part == "video":
        assert not any(name.split(".")[0] in {"torch", "torchvision"} for name in imports_of(path))
    if part == "method":
        concrete = {
            name
            for name in imports_of(path)
            if name.startswith(("selfhvd_tta.backbones.", "selfhvd_tta.flows."))
            and name.split(".")[2].islower()
            and (PACKAGE / name.split(".")[1] / f"{name.split('.')[2]}.py").exists()
            and name.split(".")[2] not in {"wrapper", "two_scales", "dis"}
        }
        assert not concrete, f"method names concrete networks: {concrete}"


SLOW = ("torch", "torchvision", "cv2", "av", "numpy")


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import selfhvd_tta, selfhvd_tta.settings", SLOW),
        (
            "from typer.testing import CliRunner; from selfhvd_tta.cli import app; "
            "assert CliRunner().invoke(app, ['deblur', '--help']).exit_code == 0",
            SLOW,
        ),
        (
            "from selfhvd_tta import pipeline, backbones, flows; backbones.discover(); flows.discover()",
            ("torchvision",),
        ),
    ],
    ids=["package", "help", "pipeline"],
)
def test_nothing_slow_is_imported_before_it_is_needed(code: str, absent: tuple[str, ...]) -> None:
    """``--help`` comes at once, and a run does not wait for what it does not use."""
    code += f"; import sys; sys.exit(', '.join(m for m in {absent!r} if m in sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.stderr.strip() == ""
    assert done.returncode == 0
