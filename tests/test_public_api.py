"""The public surface. Whoever changes it changes this file, and says so in the release notes."""

from __future__ import annotations

import dataclasses
import inspect as reflection
from pathlib import Path

import pytest

import selfhvd_tta

NAMES = [
    "CancelToken", "Event", "Finished", "Inspection", "Interrupted", "Listener", "Loaded", "Note", "Plan", "Progress",
    "Result", "SelfHVDError", "Settings", "Written", "__version__", "deblur", "inspect",
]  # fmt: skip
SIGNATURES = {
    "deblur": ["path", "output", "settings=None", "listen", "cancel=None"],
    "inspect": ["path", "settings=None", "listen", "cancel=None"],
}
# What callers read; more may be added behind.
FIELDS = {
    "Result": ["output", "frames", "action", "clues", "record", "seconds", "notes"],
    "Inspection": ["info", "clues", "pts", "verdict", "helpful"],
    "Note": ["text", "level"],
    "Plan": ["rows", "minutes"],
    "Progress": ["phase", "done", "total", "unit", "values"],
    "Finished": ["output", "seconds", "rows", "action"],
    "Loaded": ["role", "name", "file", "sha256", "licence"],
    "Written": ["what", "path"],
}
SETTINGS = ["clues", "alignment", "adaptation", "runtime", "output"]


def test_the_public_names_are_these() -> None:
    assert selfhvd_tta.__all__ == NAMES
    for name in NAMES:
        assert getattr(selfhvd_tta, name) is not None
    with pytest.raises(AttributeError):
        selfhvd_tta.nonsense  # noqa: B018


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures(name: str) -> None:
    parameters = reflection.signature(getattr(selfhvd_tta, name)).parameters.values()
    shown = [f"{p.name}=None" if p.default is None else p.name for p in parameters]
    assert shown[: len(SIGNATURES[name])] == SIGNATURES[name]
    assert all(p.default is not p.empty for p in list(parameters)[len(SIGNATURES[name]) :]), "new ones are optional"


@pytest.mark.parametrize("name", FIELDS)
def test_fields(name: str) -> None:
    kind = getattr(selfhvd_tta, name)
    assert [f.name for f in dataclasses.fields(kind)][: len(FIELDS[name])] == FIELDS[name]
    assert kind.__dataclass_params__.frozen


def test_settings_are_a_tree_of_frozen_values() -> None:
    settings = selfhvd_tta.Settings()
    inner = [f.name for f in dataclasses.fields(settings) if dataclasses.is_dataclass(getattr(settings, f.name))]
    assert set(SETTINGS) <= set(inner)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.method = "transfer"  # type: ignore[misc]


def test_errors_and_types_are_for_callers() -> None:
    assert issubclass(selfhvd_tta.Interrupted, selfhvd_tta.SelfHVDError)
    assert (Path(selfhvd_tta.__file__).parent / "py.typed").exists(), "type checkers may look into the package"
