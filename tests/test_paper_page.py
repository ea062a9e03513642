"""The page about the paper names places that exist and values that hold."""

from __future__ import annotations

import ast
import importlib
import re
from functools import reduce

import pytest

from selfhvd_tta.config import setting_names
from selfhvd_tta.settings import Settings
from tests.conftest import ROOT

PAGE = (ROOT / "docs/concepts/paper.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| `")]
PLACES = sorted(set(re.findall(r"`([\w/]+\.py)::([\w.]+)`", PAGE)))


@pytest.mark.parametrize(("file", "symbol"), PLACES, ids=lambda part: str(part))
def test_the_place_exists(file: str, symbol: str) -> None:
    assert (ROOT / file).is_file()
    module = importlib.import_module(file.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
    assert reduce(getattr, symbol.split("."), module) is not None


def test_every_equation_of_the_losses_has_a_place() -> None:
    rows = {line.split("|")[1].strip(): line for line in PAGE.splitlines() if line.startswith("| Eq. ")}
    assert set(rows) == {f"Eq. {number}" for number in (1, *range(3, 15))}
    assert all("::" in row for row in rows.values())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_defaults_and_literal_values_are_those_of_the_code(row: list[str]) -> None:
    name, _, default, literal, _ = row
    name = name.strip("`")
    assert name in setting_names()
    for settings, stated in ((Settings(), default), (Settings(literal=True), literal)):
        assert reduce(getattr, name.split("."), settings) == ast.literal_eval(stated.strip("`"))


def test_no_setting_that_literal_changes_is_left_out() -> None:
    ours, paper = Settings(), Settings(literal=True)

    def value(settings: Settings, name: str) -> object:
        return reduce(getattr, name.split("."), settings)

    changed = {name for name in setting_names() if value(ours, name) != value(paper, name)}
    assert changed - {"literal", "method"} <= {row[0].strip("`") for row in ROWS}
