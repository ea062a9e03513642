"""The commands in the guides run: on a tiny clip, with few steps, in the order in which they stand there."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import typer

from selfhvd_tta import inspect
from selfhvd_tta.cli import app
from selfhvd_tta.cli.timeline import timeline
from selfhvd_tta.errors import SelfHVDError, WeightsError
from tests.commands import QUICK, ROOT, run
from tests.media import shaky_file
from tests.test_docs import commands_in

GUIDES = ("first-video", "reports", "batch", "long-videos", "quality-tips", "choosing-a-backbone")
PAGES = ["README.md", *(f"docs/guides/{name}.md" for name in GUIDES)]
SMALL = ["--crop", "32", "--clip-length", "3", "--teachers", "1", "--flow", "dis:ultrafast", "--preset", "ultrafast"]
HERE = ["--offline", "--device", "cpu", "--overwrite"]
# Reading only, or in need of data, a network, or a cluster.
ELSEWHERE = {"pretrain", "pretrain-flow", "pretrain-merge", "simulate", "bench", "weights", "doctor", "ui"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shaky_file(tmp_path_factory.mktemp("clip") / "clip.mp4", 6, 0.2)


def runnable(words: list[str]) -> list[str] | None:
    """A command from a guide as it can be run here; None for one that is only named, or needs what is not here."""
    if not words or words[0] in ELSEWHERE or "--ray" in words or any(w.isupper() or "$" in w for w in words[1:]):
        return None
    if words[0] in ("deblur", "batch"):
        if len(words) < 2 or "..." in words:
            return None
        few = ["--method", "transfer"] if words[0] == "batch" else [] if "0" in words else ["--iters", "2"]
        time = ["--budget", "2s"] if {"--preview", "--budget"} & set(words) else []
        return [*words, *SMALL, *few, *time, *HERE]
    return [*words, "--flow", "dis:ultrafast", *HERE] if words[0] == "stills" else words


@pytest.mark.parametrize("page", PAGES)
def test_commands_run(page: str, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("shaky", "in", "a", "b", "minute", "whole", "extra", "examples/shaky"):
        path = tmp_path / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, path)
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday/x.mov").write_bytes(clip.read_bytes())
    (tmp_path / "job.toml").write_text("[adaptation]\niters = 2\n")
    done = 0
    text = re.sub(r"`(selfhvd-tta [^`]*)`", "", re.sub(r"```bash.*?```", "", (ROOT / page).read_text(), flags=re.S))
    for words in commands_in(text):
        command = runnable(words)
        if command is None:
            continue
        try:
            code = app(args=command, standalone_mode=False, prog_name="selfhvd-tta")
        except WeightsError:
            assert {"--backbone", "--weights", "--adapted", "--flow"} & set(words), words
            continue
        except SelfHVDError as error:
            pytest.fail(f"selfhvd-tta {' '.join(words)}: {error.message}")
        assert code in (None, 0), words
        done += 1
    assert done, "a page without a command that can be run has no place in this test"


def test_the_guide_shows_what_inspect_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    printed = " ".join(timeline(inspect("examples/shaky.mp4"), 52))
    guide = Path("docs/guides/first-video.md").read_text()
    assert " ".join(printed.split()) in " ".join(guide.split())


def test_the_readme_is_about_the_example_clip() -> None:
    words = next(w for w in commands_in((ROOT / "README.md").read_text()) if "examples/shaky.mp4" in w)
    assert {"--offline", "--iters"} <= set(words), "the first command needs neither network nor patience"


@pytest.mark.parametrize(
    "script", [*ROOT.glob("examples/**/*.py"), *ROOT.glob("benchmarks/*.py")], ids=lambda p: p.name
)
def test_scripts_import_what_exists(script: Path) -> None:
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("selfhvd_tta"):
            module = importlib.import_module(node.module or "")
            for name in node.names:
                assert hasattr(module, name.name) or importlib.util.find_spec(f"{node.module}.{name.name}"), name.name


# -- events for other programs


def test_documented_events_are_those_that_come(clip: Path, tmp_path: Path) -> None:
    page = (ROOT / "docs/reference/events.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", page, re.M))
    flags = [*QUICK, "--iters", "2", "--crop", "32", "--clip-length", "3", "--compare", "side", "--json"]
    done = run("deblur", clip, "-o", tmp_path / "o.mp4", *flags)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    failed = run("deblur", tmp_path / "none.mp4", "-o", tmp_path / "o2.mp4", "--json")
    events += [json.loads(line) for line in failed.stdout.splitlines()]
    assert {e["event"] for e in events} == {"note", "loaded", "plan", "progress", "finished", "written", "error"}
    for event in events:
        documented = set(re.findall(r"`(\w+)`", rows[event["event"]]))
        assert set(event) - {"event"} <= documented, event
    phases = {e["phase"] for e in events if e["event"] == "progress"}
    assert all(f"`{phase}`" in rows["progress"] for phase in phases), phases
    assert failed.returncode == events[-1]["exit_code"] == 1
    batch = run("batch", clip, "-o", tmp_path / "out", *QUICK, "--method", "transfer", "--json")
    for event in map(json.loads, batch.stdout.splitlines()):
        assert "video" in event
        documented = set(re.findall(r"`(\w+)`", rows[event["event"]])) | {"video"}
        assert set(event) - {"event"} <= documented, event


# -- shells, containers, notebooks


def complete(words: str, position: int) -> list[str]:
    environment = os.environ | {
        "_SELFHVD_TTA_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(position),
    }
    done = subprocess.run(
        [sys.executable, "-c", "from selfhvd_tta.cli import main; main()"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.split()


def test_completion_knows_commands_options_and_values() -> None:
    assert complete("selfhvd-tta ins", 1) == ["inspect"]
    assert "--preview" in complete("selfhvd-tta deblur a.mp4 --pre", 3)
    assert complete("selfhvd-tta deblur a.mp4 --compare ", 4) == ["side", "wipe", "stack"]
    # Typer would look for the shell that started it, and tests may be started by none.
    named = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    command = [sys.executable, "-m", "selfhvd_tta", "--show-completion", "bash"]
    shown = subprocess.run(command, cwd=ROOT, env=named, capture_output=True, text=True, timeout=60)
    assert "complete -o default -F" in shown.stdout, shown.stderr


def test_the_notebook_is_valid_and_its_commands_exist() -> None:
    from tests.test_docs import flags_of

    notebook = json.loads((ROOT / "examples/colab.ipynb").read_text())
    assert notebook["nbformat"] == 4
    program: Any = typer.main.get_command(app)
    known = flags_of(program.commands["deblur"]) | flags_of(program.commands["inspect"])
    code = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    for cell in code:
        compile(cell, "cell", "exec")
    flags = set(re.findall(r'"(--[a-z-]+)"', "\n".join(code)))
    assert {"--plot", "--preview", "--report", "--budget"} <= flags <= known | {"--depth"}


def test_the_notebook_runs_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dry run: commands are recorded instead of executed, and each has to be one that exists."""
    notebook = json.loads((ROOT / "examples/colab.ipynb").read_text())
    cells = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    address, folder = "https://example.org/selfhvd-tta.git", tmp_path / "selfhvd-tta"
    ran: list[list[str]] = []

    def record(command: list[str], **_: Any) -> None:
        ran.append(command)
        if command[0] == "git":
            folder.mkdir()

    shown = types.ModuleType("IPython.display")
    shown.__dict__.update(Image=str, Video=lambda path, **_: path, display=print)
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", shown)
    monkeypatch.setattr(subprocess, "run", record)
    install = cells[0].replace("/content/selfhvd-tta", str(folder))
    with pytest.raises(SystemExit, match="address of the repository"):
        exec(install, {})
    names: dict[str, Any] = {}
    for cell in [install.replace('repository = ""', f'repository = "{address}"'), *cells[1:]]:
        exec(cell, names)
    assert ran[0] == ["git", "clone", "--depth", "1", address, str(folder)]
    assert ran[1][-1] == f"{folder}[report]"
    ours = [command[1:] for command in ran if command[0] == "selfhvd-tta"]
    assert [command[0] for command in ours] == ["doctor", "inspect", "deblur", "deblur"]
    program: Any = typer.main.get_command(app)
    for name, *arguments in ours:
        program.commands[name].make_context(name, arguments)


def test_the_image_copies_what_exists_and_runs_as_nobody_special() -> None:
    text = (ROOT / "Dockerfile").read_text()
    ignored = (ROOT / ".dockerignore").read_text().split()
    for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.M):
        for name in line.split()[:-1]:
            assert (ROOT / name).exists(), name
            assert f"!{name}" in ignored, f"{name} does not reach the build"
    users = re.findall(r"^USER (\w+)$", text, re.M)
    assert users
    assert users[-1] != "root"
    assert "VOLUME /cache" in text
    assert "SELFHVD_TTA_CACHE=/cache" in text
    assert text.index("USER") > text.index("install -d"), "folders are made before rights are given up"
