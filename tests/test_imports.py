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
GROUND = {"errors", "events", "files", "imaging", "plugins", "times", "wording"}
BASE = GROUND | {"settings"}
# Which parts of ours each part may import, itself apart; arrows point downwards only.
ALLOWED = {
    "errors": set(),
    "events": set(),
    "imaging": set(),
    "files": {"errors"},
    "plugins": {"errors"},
    "times": {"errors"},
    "wording": set(),
    "settings": GROUND,
    "config": BASE,
    "console": GROUND,
    "video": BASE,
    "weights": BASE,
    "flows": BASE,
    "backbones": BASE | {"flows"},
    "method": BASE | {"flows", "backbones"},
    "run": BASE | {"config", "video", "weights", "flows", "backbones", "method"},
    "pipeline": BASE | {"video", "weights", "flows", "backbones", "method", "run"},
    "extras": BASE | {"config", "video", "weights", "flows", "backbones", "method", "run", "pipeline"},
    "batch": BASE | {"config", "console", "video", "run", "pipeline", "extras"},
    "ui": BASE | {"config", "console", "video", "method", "run", "pipeline", "extras", "batch"},
    "lab": BASE | {"__version__", "config", "video", "weights", "flows", "backbones", "method", "run", "pipeline"},
    "__init__": {"errors", "events", "settings", "run", "pipeline"},
    "__main__": {"cli"},
}
# Inside the lab: what is measured and what is trained do not know each other.
INSIDE_LAB = {
    "datasets": set(),
    "simulation": {"datasets"},
    "training": {"datasets", "simulation"},
    "evaluation": {"datasets", "simulation"},
    "speed": {"datasets", "simulation", "evaluation"},
}
MOST_AT_THE_TOP = 14


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
    if part != "cli":  # the command line may import everything
        assert part in ALLOWED, f"{part} is new: say what it may import"
        assert ours - {part} <= ALLOWED[part], f"{part} imports {sorted(ours - {part} - ALLOWED[part])}"
    if part == "lab" and len(path.relative_to(PACKAGE).parts) > 2:
        room = path.relative_to(PACKAGE).parts[1]
        rooms = {name.split(".")[2] for name in imports_of(path) if name.startswith("selfhvd_tta.lab.")}
        assert rooms - {room} <= INSIDE_LAB[room], f"lab/{room} imports {sorted(rooms - {room} - INSIDE_LAB[room])}"
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


SENTENCES = {"text", "message", "hint", "verdict"}
PARSERS = {"startswith", "endswith", "partition", "rpartition", "split"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_meaning_is_read_out_of_a_sentence(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in PARSERS:
            said = node.func.value
            assert not (isinstance(said, ast.Attribute) and said.attr in SENTENCES), f"{path}:{node.lineno}"


def test_the_top_of_the_package_stays_small() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= MOST_AT_THE_TOP


MOST_PARAMETERS = 7
# Their parameters are the command's flags, or the structure of a network as its authors named it.
GENERATED = {
    *("ablate", "batch", "bench", "deblur", "inspect", "pretrain", "pretrain_flow", "pretrain_merge", "simulate"),
    "stills",
}


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    given = function.args
    names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg) if a]
    return len([name for name in names if name not in {"self", "cls"}])


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_functions_have_few_parameters(path: Path) -> None:
    part = path.relative_to(PACKAGE).parts[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            free = (part == "cli" and node.name in GENERATED) or (part == "backbones" and node.name == "__init__")
            assert free or parameters(node) <= MOST_PARAMETERS, f"{path}:{node.lineno} {node.name}"


def test_no_public_class_name_is_used_twice() -> None:
    places: dict[str, list[str]] = {}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(str(path.relative_to(PACKAGE)))
    assert not {name: found for name, found in places.items() if len(found) > 1}


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
