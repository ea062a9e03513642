"""Random sharp-clue removal as an index list, and supervision selection."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from selfhvd_tta.method.sevd import remove_at_random, remove_sharp_clues, supervision_is_label


def test_a_removed_frame_shows_its_nearest_blurry_one() -> None:
    sharp = np.array([False, False, True, True, True, False])
    rng = np.random.default_rng(0)
    seen = {tuple(remove_sharp_clues([0, 1, 2, 3, 4, 5], sharp, rng, None)) for _ in range(200)}
    assert all(k[0] == 0 and k[1] == 1 and k[5] == 5 for k in seen), "blurry frames stay"
    assert {k[2] for k in seen} == {2, 1}
    assert {k[4] for k in seen} == {4, 5}
    assert {k[3] for k in seen} == {3, 1, 5}, "1 and 5 are equally near to 3"


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.integers(0, 2**31), st.none() | st.integers(1, 4))
def test_contract_of_rscr(pattern: list[bool], seed: int, most: int | None) -> None:
    offset = 7
    sharp = np.array([False] * offset + pattern)
    clip = list(range(offset, offset + len(pattern)))
    shown = remove_sharp_clues(clip, sharp, np.random.default_rng(seed), most)
    changed = [p for p in range(len(clip)) if shown[p] != clip[p]]
    assert len(shown) == len(clip)
    assert all(sharp[clip[p]] and not sharp[shown[p]] and shown[p] in clip for p in changed)
    if any(pattern) and not all(pattern):
        assert 1 <= len(changed) <= (most or len(clip)), "0 < l <= L"
    else:
        assert not changed


def test_sis_needs_visibility_and_sharpness() -> None:
    visible = torch.tensor([0.9, 0.9, 0.4, 0.5])
    label = torch.tensor([20.0, 5.0, 20.0, 20.0])
    teacher = torch.tensor([10.0, 10.0, 10.0, 10.0])
    assert supervision_is_label(visible, label, teacher, 0.5).tolist() == [True, False, False, False]


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.integers(0, 2**31), st.none() | st.integers(1, 4))
def test_random_removal_takes_as_many_frames_but_any(pattern: list[bool], seed: int, most: int | None) -> None:
    clip = list(range(7, 7 + len(pattern)))
    sharp = np.array([False] * 7 + pattern)
    shown = remove_at_random(clip, sharp, np.random.default_rng(seed), most)
    changed = [p for p in range(len(clip)) if shown[p] != clip[p]]
    limit = min(sum(pattern), most or len(clip), len(clip) - 1)
    assert len(shown) == len(clip)
    assert (1 <= len(changed) <= limit) if limit >= 1 else not changed
    left = {clip[p] for p in range(len(clip)) if p not in changed}
    for p in changed:
        assert shown[p] in left
        assert abs(shown[p] - clip[p]) == min(abs(other - clip[p]) for other in left)


def test_random_removal_reaches_blurry_frames() -> None:
    sharp = np.array([False, False, True, False, False])
    rng = np.random.default_rng(0)
    seen = [remove_at_random([0, 1, 2, 3, 4], sharp, rng, None) for _ in range(100)]
    assert {p for k in seen for p in range(5) if k[p] != p} == set(range(5))
