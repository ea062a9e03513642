"""The pool of training clips: the same whoever makes them and wherever they are kept, renewed slowly, shared out."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from selfhvd_tta.errors import DeviceError
from selfhvd_tta.lab.training import pool as pool_module
from selfhvd_tta.lab.training.config import PretrainConfig
from selfhvd_tta.lab.training.pool import ClipPool, Maker, augment
from selfhvd_tta.lab.training.sources import SceneSource


@pytest.fixture
def photos(tmp_path: Path) -> tuple[Path, ...]:
    (tmp_path / "photos").mkdir()
    paths = tuple(tmp_path / "photos" / f"{index}.png" for index in range(2))
    for index, path in enumerate(paths):
        noise = np.random.default_rng(index).integers(0, 256, (120, 120, 3)).astype(np.uint8)
        cv2.imwrite(str(path), cv2.GaussianBlur(noise, (0, 0), 1.5))
    return paths


def at_full_pace(_number: int) -> float:
    return 1.0


def pool_of(photos: tuple[Path, ...], folder: Path, **options: Any) -> ClipPool:
    source = SceneSource(photos, size=24, frames=4)
    maker = Maker(source, folder, 0, torch.device("cpu"), at_full_pace)
    return ClipPool(maker, **{"capacity": 2, "renewal": 5, **options})


def test_pool_renews_one_clip_at_a_time(photos: tuple[Path, ...], tmp_path: Path) -> None:
    pool = pool_of(photos, tmp_path / "pool")
    for step in range(30):
        blurry, sharp = pool.batch(step, 2, 16, 3)
        assert blurry.shape == sharp.shape == (2, 3, 3, 16, 16)
        assert len(list((tmp_path / "pool").iterdir())) <= 4
    other = pool_of(photos, tmp_path / "other")
    np.testing.assert_allclose(other.batch(29, 2, 16, 3)[1], sharp)


def test_workers_and_memory_change_nothing_but_the_time(
    photos: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "AHEAD", 12)
    plain = pool_of(photos, tmp_path / "plain")
    with pool_of(photos, tmp_path / "ahead", workers=1, keep_on=torch.device("cpu")) as ahead:
        for step in (0, 7):
            for a, b in zip(plain.batch(step, 2, 16, 3), ahead.batch(step, 2, 16, 3), strict=True):
                assert torch.equal(a, b)
        # By now the worker was told of what comes next, and makes it without being asked for it.
        pending = dict(ahead.pending)
        assert pending
        for future in pending.values():
            future.result()
        assert all(ahead.maker.path(number).exists() for number in pending)
        assert len(ahead.kept) <= 2 + 2
    assert len(list((tmp_path / "ahead").iterdir())) > len(list((tmp_path / "plain").iterdir()))


def test_what_goes_wrong_in_a_worker_is_told(photos: tuple[Path, ...], tmp_path: Path) -> None:
    for photo in photos:
        photo.write_bytes(b"broken")
    with pool_of(photos, tmp_path / "pool", workers=1) as pool:
        with pytest.raises(ValueError, match="not a readable image"):
            pool.batch(0, 1, 16, 3)
        assert pool.executor is not None
        pool.executor.submit(os._exit, 1).exception()  # as if memory had run out
        with pytest.raises(DeviceError, match="ended from outside"):
            pool.batch(1000, 1, 16, 3)


def test_processes_share_out_the_clips_of_a_step(photos: tuple[Path, ...], tmp_path: Path) -> None:
    whole = pool_of(photos, tmp_path / "pool").batch(3, 4, 16, 3)
    parts = [pool_of(photos, tmp_path / "pool", share=(rank, 2)).batch(3, 2, 16, 3) for rank in range(2)]
    for side in range(2):
        assert torch.equal(whole[side], torch.cat([part[side] for part in parts]))


def test_a_clip_that_another_process_removed_is_made_again(photos: tuple[Path, ...], tmp_path: Path) -> None:
    pool = pool_of(photos, tmp_path / "pool")
    first = pool.clip(0).clone()
    pool.maker.path(0).unlink()
    assert torch.equal(pool.clip(0), first)


def test_other_data_are_other_clips(photos: tuple[Path, ...], tmp_path: Path) -> None:
    """A run that goes on with more photographs or another size must not find the old clips."""
    pool = pool_of(photos, tmp_path / "pool")
    fewer = SceneSource(pool.maker.source.scenes[:1], 24, 4)  # type: ignore[attr-defined]
    assert Maker(fewer, tmp_path / "pool", 0, torch.device("cpu"), at_full_pace).path(0) != pool.maker.path(0)


def test_a_curriculum_begins_slowly_and_ends_at_full_speed(tmp_path: Path) -> None:
    plain = PretrainConfig(data=(tmp_path,), output=tmp_path)
    settings = replace(plain, pool=10, renewal=5, curriculum=100)
    paces = [settings.pace(number) for number in range(60)]
    assert paces[:10] == [0.3] * 10
    assert settings.pace(9 + 10) == pytest.approx(0.3 + 0.7 * 0.5)
    assert paces[29:] == [1.0] * 31
    assert all(b >= a for a, b in pairwise(paces))
    assert plain.pace(0) == 1.0


def test_augmentation_treats_both_sides_alike() -> None:
    side = torch.randint(0, 256, (1, 5, 20, 22, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pair = side.expand(2, -1, -1, -1, -1)
    seen = set()
    for seed in range(20):
        blurry, sharp = augment(pair, 12, 3, np.random.default_rng(seed))
        assert blurry.shape == (3, 12, 12, 3)
        assert torch.equal(blurry, sharp)
        seen.add(blurry.numpy().tobytes())
    assert len(seen) == 20
