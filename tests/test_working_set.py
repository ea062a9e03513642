"""Which frames adaptation holds, and how clues translate into rows."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from selfhvd_tta.method.clues import select_clues
from selfhvd_tta.method.working_set import choose_frames, restrict
from selfhvd_tta.settings import ClueSettings


def shaky(count: int) -> np.ndarray:
    return np.where(np.arange(count) % 7 == 0, 300.0, 60.0)


def test_a_short_video_is_taken_whole() -> None:
    clues = select_clues(shaky(40), [range(40)], ClueSettings())
    assert choose_frames(clues, 40, 20) == list(range(40))


def test_a_long_video_is_sampled_where_it_is_soft() -> None:
    values = np.full(1000, 300.0)
    values[400:600] = shaky(200)
    clues = select_clues(values, [range(1000)], ClueSettings())
    picked = choose_frames(clues, 100, 20)
    assert 80 <= len(picked) <= 100
    assert all(380 <= i < 620 for i in picked)


@given(st.integers(2, 300), st.integers(2, 120), st.lists(st.integers(1, 299), max_size=4))
def test_contract(count: int, limit: int, cuts: list[int]) -> None:
    edges = sorted({0, count, *(c for c in cuts if c < count)})
    shots = [range(a, b) for a, b in itertools.pairwise(edges)]
    clues = select_clues(shaky(count), shots, ClueSettings())
    picked = choose_frames(clues, limit, 20)
    assert picked == sorted(set(picked))
    assert 1 <= len(picked) <= max(limit, 1)
    rows, runs = restrict(clues, picked)
    assert [r for run in runs for r in run] == list(range(len(picked)))
    for run in runs:
        numbers = [picked[r] for r in run]
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
        assert len({clues.shot_of(n) for n in numbers}) == 1, "a run crosses no cut"
    for row in range(len(picked)):
        j = int(rows.nearest[row])
        assert rows.sharp[j]
        assert clues.shot_of(picked[j]) == clues.shot_of(picked[row])
