"""Flags follow from the settings, and everything that the first edition's commands took is still taken."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from selfhvd_tta import config
from selfhvd_tta.cli import app
from selfhvd_tta.cli.options import FILE_ONLY, flag_names
from selfhvd_tta.lab.training.config import FlowTrainingConfig, MergeTrainingConfig, PretrainConfig, RunConfig
from selfhvd_tta.settings import Settings

# Flags, defaults and 'config show' of the last commit before the command line was generated from the settings.
BEFORE = json.loads((Path(__file__).parent / "first_edition_flags.json").read_text())
# What was decided to be different since.
CHANGED = {"method": "auto"}
ADDED = {"literal": False, "strength": 1.0, "progressive": False}
ADDED_TO_ALIGNMENT = {"blur": "auto"}
ADDED_TO_ADAPTATION = {"random_removal": False}
WITHOUT_METHOD = {"bench", "ablate"}


def command(name: str) -> Any:
    found: Any = typer.main.get_command(app)
    for part in name.split():
        found = found.commands[part]
    return found


def plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("name", BEFORE["commands"])
def test_every_flag_is_still_there_with_its_default(name: str) -> None:
    now = {p.name: p for p in command(name).params}
    for parameter, before in BEFORE["commands"][name].items():
        assert parameter in now, parameter
        flags = {*now[parameter].opts, *now[parameter].secondary_opts}
        assert flags >= set(before["flags"]), parameter
        changed = {} if name in WITHOUT_METHOD else CHANGED | {"width": None}  # inspect fits the terminal
        assert plain(now[parameter].default) == changed.get(parameter, before["default"]), parameter


def test_config_show_has_the_same_keys_and_values() -> None:
    wanted = BEFORE["config show"] | CHANGED | ADDED
    wanted["alignment"] = wanted["alignment"] | ADDED_TO_ALIGNMENT
    wanted["adaptation"] = wanted["adaptation"] | ADDED_TO_ADAPTATION
    assert config.tomllib.loads(config.dumps(Settings())) == wanted


def test_flags_are_the_settings_with_their_types_and_texts() -> None:
    options = {p.name: p for p in command("deblur").params}
    assert set(config.setting_names()) >= FILE_ONLY
    for name in flag_names():
        *path, leaf = name.split(".")
        node: Any = Settings()
        for part in path:
            node = getattr(node, part)
        option = options[leaf]
        assert option.default == getattr(node, leaf), name
        assert option.help.startswith(config.attribute_docs(type(node))[leaf].replace("``", "")), name
        assert option.opts == [f"--{leaf.replace('_', '-')}"], name


def test_a_flag_of_any_type_becomes_its_setting() -> None:
    given = {
        "method": "transfer",
        "weights": "w.safetensors",
        "iters": 3,
        "learning_rate": 0.5,
        "detail": False,
        "force": True,
        "codec": "hevc",
        "budget": 90.0,
    }
    flags = ["--method", "transfer", "--weights", "w.safetensors", "--iters", "3", "--learning-rate", "0.5"]
    flags += ["--no-detail", "--force", "--codec", "hevc", "--budget", "1m30s"]
    shown = CliRunner().invoke(app, ["config", "show", *flags])
    assert shown.exit_code == 0, shown.output
    assert config.parse(shown.output) == config.override(Settings(), given)


def test_a_flag_can_undo_a_switch_of_the_job_file(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text("force = true\n[adaptation]\nrscr = false\n")
    flags = ["--config", str(tmp_path / "job.toml"), "--no-force", "--rscr"]
    shown = CliRunner().invoke(app, ["config", "show", *flags])
    assert config.parse(shown.output) == Settings()


@pytest.mark.parametrize("columns", [80, 50])
@pytest.mark.parametrize("name", ["deblur", "batch"])
def test_help_shows_the_everyday_options_under_headings(name: str, columns: int) -> None:
    short = CliRunner().invoke(app, [name, "--help"], terminal_width=columns).output
    full = CliRunner().invoke(app, [name, "--help-all"], terminal_width=columns).output
    for text in (short, full):
        assert max(map(len, text.splitlines())) <= columns
        assert "\nOptions:\n" in text
        assert "\nDisplay:\n" in text
    for flag in ("--output", "--method", "--range", "--overwrite"):
        assert f"{flag} " in short, flag
    for flag in ("--label-refresh", "--[no-]rscr", "--checkpoint-minutes", "--chroma"):
        assert f"{flag} " not in short, flag
        assert flag in full, flag
    assert f"{name} --help-all" in " ".join(short.split())
    for heading in ("Adaptation:", "Alignment and labels:", "Running:", "Output:"):
        assert f"\n{heading}\n" not in short, heading
        assert f"\n{heading}\n" in full, heading


def test_the_program_lists_its_commands_by_heading() -> None:
    text = CliRunner().invoke(app, ["--help"]).output
    first, second = text.index("\nCommands:\n"), text.index("\nFor those who train and measure:\n")
    assert first < text.index("  deblur ") < second < text.index("  pretrain ")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("pretrain", PretrainConfig), ("pretrain-flow", FlowTrainingConfig), ("pretrain-merge", MergeTrainingConfig)],
)
def test_flags_of_training_are_its_config_with_defaults_and_texts(name: str, kind: type[RunConfig]) -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    docs = {n: text for base in reversed(kind.__mro__) for n, text in config.attribute_docs(base).items()}
    options = {p.name: p for p in command(name).params}
    for shared in ("initial", "steps", "crop", "batch", "learning_rate", "seed"):
        assert options[shared].default == defaults[shared], shared
        assert options[shared].help == docs[shared], shared
    assert options["output"].help == docs["output"]
