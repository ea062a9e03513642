"""Job files: every setting, errors that name the key, and back again without loss."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfhvd_tta import config
from selfhvd_tta.errors import UsageError
from selfhvd_tta.settings import QUALITIES, Settings


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    if get_origin(hint) is Literal:
        return st.sampled_from(get_args(hint))
    if get_args(hint):
        return st.one_of(*(values_of(k) for k in get_args(hint)))
    return {
        bool: st.booleans(),
        int: st.one_of(st.integers(0, 400), st.integers()),
        float: st.one_of(st.floats(0, 1), st.floats(allow_nan=False, allow_infinity=False)),
        str: st.text(st.characters(exclude_categories=["Cs"])),
        type(None): st.none(),
    }[hint]


def hint_of(name: str) -> Any:
    kind: Any = Settings
    for part in name.split("."):
        kind = get_type_hints(kind)[part]
    return kind


@st.composite
def some_settings(draw: st.DrawFn) -> Settings:
    """Valid settings, several of them changed at once."""
    result = Settings()
    for name in draw(st.lists(st.sampled_from(config.setting_names()), max_size=8, unique=True)):
        try:
            result = config.override(result, {name: draw(values_of(hint_of(name)))})
        except UsageError:
            continue
    return result


@given(some_settings(), st.booleans())
@settings(max_examples=200, deadline=None)
def test_round_trip(wanted: Settings, comments: bool) -> None:
    assert config.parse(config.dumps(wanted, comments)) == wanted
    assert config.from_table(config.to_table(wanted)) == wanted


def test_every_setting_is_in_the_file_and_explained() -> None:
    text = config.dumps(Settings())
    for name in config.setting_names():
        leaf = name.rpartition(".")[2]
        assert f"\n{leaf} = " in text or f"\n# {leaf} =" in text, name
    assert "# Optimiser steps of both stages together; 0 applies the backbone as it is.\niters = 2000\n" in text
    assert "# crf =" in text
    assert max(map(len, text.splitlines())) <= config.WIDTH


def test_what_a_file_cannot_say_is_the_default() -> None:
    # TOML has no null: a setting may be None only where None is its default.
    for name in config.setting_names():
        hint = hint_of(name)
        if get_origin(hint) in (Union, type(int | None)) and type(None) in get_args(hint):
            value: Any = Settings()
            for part in name.split("."):
                value = getattr(value, part)
            assert value is None, name


def test_names_of_leaves_are_unique() -> None:
    # The command line's flags are named by the last part alone.
    leaves = [name.rpartition(".")[2] for name in config.setting_names()]
    assert len(leaves) == len(set(leaves))


def test_a_file_changes_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text('backbone = "estrnn"\n[adaptation]\niters = 50\nlearning_rate = 1\n[output]\ncodec = "hevc"\n')
    got = config.load(path)
    defaults = Settings()
    assert got.adaptation == dataclasses.replace(defaults.adaptation, iters=50, learning_rate=1.0)
    assert isinstance(got.adaptation.learning_rate, float)
    assert (got.backbone, got.output.codec, got.runtime) == ("estrnn", "hevc", defaults.runtime)


def test_flags_win_over_the_file() -> None:
    base = config.parse("[adaptation]\niters = 50\ncrop = 64\n[output]\ncrf = 30")
    got = config.override(base, {"iters": 7, "crf": None, "alignment.flow": "dis"})
    assert (got.adaptation.iters, got.adaptation.crop, got.output.crf, got.alignment.flow) == (7, 64, None, "dis")


@settings(deadline=None)
@given(st.floats(1e-12, 1))
def test_a_low_rate_lowers_the_rate_at_the_end(rate: float) -> None:
    got = config.override(Settings(), {"learning_rate": rate}).adaptation
    assert got.learning_rate == rate
    assert got.final_learning_rate == min(1e-7, rate)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("iter = 3", "j: iter is not a setting", "Did you mean adaptation.iters?"),
        ("[adaption]\niters = 3", "j: adaption is not a setting", "Did you mean"),
        ("[adaptation]\nitres = 3", "j: adaptation.itres is not a setting", "Did you mean adaptation.iters?"),
        ("[adaptation]\niters = true", "j: adaptation.iters is True, but it must be a whole number", ""),
        ("[adaptation]\niters = 3.0", "j: adaptation.iters is 3.0, but it must be a whole number", ""),
        ('[adaptation]\niters = "3"', "j: adaptation.iters is '3', but it must be a whole number", ""),
        ("[adaptation]\nrscr = 1", "j: adaptation.rscr is 1, but it must be true or false", ""),
        ("[adaptation]\nlearning_rate = nan", "j: adaptation.learning_rate is nan, but it must be a finite number", ""),
        (f"[clues]\ncontrast = 1{'0' * 400}", "but it must be a finite number", ""),
        ("backbone = 3", "j: backbone is 3, but it must be text in quotes", ""),
        ('method = "magic"', "j: method is 'magic', but it must be one of auto, adapt, transfer", ""),
        ("[output]\ncodec = ['h264']", "j: output.codec is ['h264'], but it must be one of h264", ""),
        ("adaptation = 3", "j: adaptation is 3, but it must be a table", "[adaptation]"),
        ("[method]\na = 1", "j: method is {'a': 1}, but it must be one of", ""),
        ("[clues]\nsegment = 1", "j: clues.segment is 1, but it must be at least 2 frames", ""),
        ("[adaptation]\niters = 5\niters = 6", "j: is not TOML", "quotes"),
        ("method = adapt", "j: is not TOML", "quotes"),
    ],
)
def test_mistakes_are_named(text: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        config.parse(text, "j")
    assert message in caught.value.message
    assert caught.value.message.count("j: ") == 1
    assert "\n" not in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(("content", "words"), [(None, "no such file"), (b"\xff\xfe", "UTF-8")])
def test_files_that_cannot_be_read(content: bytes | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=words):
        config.load(path)
    with pytest.raises(UsageError, match="cannot be read"):
        config.load(tmp_path)


def test_a_quality_sets_what_is_not_named() -> None:
    quick = config.override(Settings(), {"quality": "quick", "strength": 0.5})
    assert (quick.method, quick.alignment.teachers, quick.strength) == ("transfer", 3, 0.5)
    named = config.override(Settings(), {"quality": "quick", "teachers": 7})
    assert (named.method, named.alignment.teachers) == ("transfer", 7)
    assert config.parse('quality = "best"').method == "adapt"
    assert config.parse('quality = "best"\nmethod = "refit"').method == "refit"
    assert config.override(Settings(), {"quality": "balanced"}) == Settings()
    with pytest.raises(UsageError, match="quick, balanced, best"):
        config.parse('quality = "good"')
    for name in QUALITIES.values():
        assert set(name) <= set(config.setting_names())


def test_naming_steps_asks_for_adaptation() -> None:
    assert config.override(Settings(), {"iters": 2000}).method == "adapt"
    assert config.parse("[adaptation]\niters = 2000").method == "adapt"
    assert config.override(Settings(), {"iters": 7, "method": "auto"}).needs_adaptation
    assert config.override(Settings(method="transfer"), {"iters": 7}).method == "transfer"
    assert config.parse(config.dumps(Settings())).method == "auto"
