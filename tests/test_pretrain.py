"""Pretraining: learns, stops and continues exactly, keeps within its budget, exports what the table can load."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from selfhvd_tta.backbones import Backbone, Variant
from selfhvd_tta.backbones.estrnn import BACKBONE, ESTRNN
from selfhvd_tta.backbones.wrapper import Network
from selfhvd_tta.errors import UsageError
from selfhvd_tta.training import pretrain as module
from selfhvd_tta.training.dataset import ClipPool, augment
from selfhvd_tta.training.muon import orthogonalise
from selfhvd_tta.training.pretrain import (
    PretrainConfig,
    PretrainProgress,
    export_weights,
    learning_rate,
    pretrain,
    restoration_loss,
    split_photos,
    validate,
)
from selfhvd_tta.training.simulate import ShakeSettings, SimulatedClip

TINY = Variant("tiny", {"n_features": 2, "n_blocks": 1, "global_residual": True}, (), "rgb", (-0.5, 0.5))


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PretrainConfig:
    """Two photographs, a network of a thousand parameters, crops of 16 pixels."""
    backbone: Backbone = replace(BACKBONE, id="tiny", variants=(TINY,))
    monkeypatch.setattr(module, "discover", lambda: {"tiny": backbone})
    (tmp_path / "photos").mkdir()
    for index in range(2):
        noise = np.random.default_rng(index).integers(0, 256, (120, 120, 3)).astype(np.uint8)
        cv2.imwrite(str(tmp_path / "photos" / f"{index}.png"), cv2.GaussianBlur(noise, (0, 0), 1.5))
    monkeypatch.setattr(module, "validation_clips", lambda *_args, **_kwargs: [still_clip()])
    return PretrainConfig(
        photos=(tmp_path / "photos",),
        output=tmp_path / "run",
        backbone="tiny",
        steps=6,
        crop=16,
        clip_length=3,
        batch=2,
        pool=2,
        renewal=2,
        clip_size=24,
        clip_frames=4,
        warmup=1,
        validate_every=0,
    )


def still_clip() -> SimulatedClip:
    """Two sharp frames, one mildly and one severely degraded one, without any motion."""
    sharp = np.random.default_rng(0).integers(60, 200, (4, 16, 16, 3)).astype(np.uint8)
    blurry = sharp.copy()
    blurry[2] += 4
    blurry[3] += 40
    return SimulatedClip(blurry, sharp, np.array([0.0, 0.0, 3.0, 9.0]), (), ShakeSettings())


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoint.pt", weights_only=True)["network"]


def test_a_resumed_run_equals_the_uninterrupted_one(config: PretrainConfig, tmp_path: Path) -> None:
    # A constant rate, since the cosine of a run of 3 steps is not that of a run of 6.
    whole = replace(config, output=tmp_path / "whole", learning_rate=1e-3, final_learning_rate=1e-3)
    parts = replace(whole, output=tmp_path / "parts")
    pretrain(whole)
    pretrain(replace(parts, steps=3))
    last = pretrain(parts)
    assert last.step == 6
    for name, tensor in weights_of(whole.output).items():
        assert torch.equal(tensor, weights_of(parts.output)[name]), name


def test_the_network_learns_a_change_of_brightness(config: PretrainConfig) -> None:
    losses: list[float] = []
    pool = config.output / "pool"
    pool.mkdir(parents=True)
    sharp = np.random.default_rng(0).integers(60, 200, (4, 24, 24, 3)).astype(np.uint8)
    np.save(pool / f"{config.seed}-24x4-000000.npy", np.stack([sharp - 40, sharp]))
    settings = replace(config, steps=100, pool=1, renewal=0, learning_rate=5e-3)
    pretrain(settings, lambda progress: losses.append(progress.loss))
    assert losses[1] < 0.3 * losses[0]


@pytest.mark.parametrize("shape", [(3, 6, 6), (2, 4, 20), (2, 20, 4)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrices))
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_the_budget_ends_the_run_with_a_checkpoint(config: PretrainConfig) -> None:
    last = pretrain(replace(config, steps=10**6, budget=0.3, validate_every=10**6))
    assert 0.3 <= last.seconds < 20
    assert last.validation is not None
    again = pretrain(replace(config, steps=10**6, budget=0.3))
    assert again.step == last.step


def test_log_has_one_json_object_per_report(config: PretrainConfig) -> None:
    seen: list[PretrainProgress] = []
    pretrain(replace(config, validate_every=3), seen.append)
    lines = [json.loads(line) for line in (config.output / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [progress.step for progress in seen] == [3, 6, 6]
    assert set(lines[0]["validation"]) == {"blurry", "severe", "sharp"}


def test_initial_weights_start_a_new_run(config: PretrainConfig, tmp_path: Path) -> None:
    pretrain(config)
    second = replace(config, output=tmp_path / "second", initial=config.output / "checkpoint.pt", steps=1)
    assert pretrain(second).step == 1
    first, moved = weights_of(config.output), weights_of(second.output)
    distance = max(float((first[name] - moved[name]).abs().max()) for name in first)
    assert 0 < distance < 2 * config.learning_rate


def test_a_checkpoint_of_another_network_is_refused(config: PretrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    pretrain(replace(config, steps=1))
    wider = replace(TINY, config={"n_features": 4, "n_blocks": 1})
    monkeypatch.setattr(module, "discover", lambda: {"tiny": replace(BACKBONE, id="tiny", variants=(wider,))})
    with pytest.raises(UsageError, match="another network"):
        pretrain(config)


def test_exported_weights_are_the_average_in_half_precision(config: PretrainConfig, tmp_path: Path) -> None:
    pretrain(config)
    digest = export_weights(config, tmp_path / "out.safetensors", {"licence": "MIT"})
    tensors = load_file(tmp_path / "out.safetensors")
    assert len(digest) == 64
    assert all(tensor.dtype == torch.float16 for tensor in tensors.values())
    network = Network(ESTRNN(**TINY.config), BACKBONE, TINY)
    network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    average = torch.load(config.output / "checkpoint.pt", weights_only=True)["average"]
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, average[name], atol=1e-3, rtol=1e-3)


def test_validation_tells_blurry_severe_and_sharp_apart() -> None:
    class Darker(torch.nn.Module):
        """Takes 4 codes away: heals frame 2, helps frame 3, harms the sharp ones."""

        def __init__(self) -> None:
            super().__init__()
            self.amount = torch.nn.Parameter(torch.tensor(4 / 255))

        def forward(self, frames: torch.Tensor) -> torch.Tensor:
            return frames - self.amount

    result = validate(Network(Darker(), replace(BACKBONE, context=(0, 0)), Variant("only")), [still_clip()])
    helped = 20 * np.log10(40 / 36)
    assert result.severe == pytest.approx(helped, abs=0.01)
    assert result.blurry > result.severe
    assert result.sharp < -10


def test_learning_rate_warms_up_and_anneals(config: PretrainConfig) -> None:
    settings = replace(config, warmup=10, learning_rate=1.0, final_learning_rate=0.1)
    assert learning_rate(settings, 0, 0.0) == pytest.approx(0.1)
    assert learning_rate(settings, 50, 0.5) == pytest.approx(0.55)
    assert learning_rate(settings, 99, 1.0) == pytest.approx(0.1)


def test_loss_is_zero_at_the_target_quadratic_near_it_and_linear_far_away() -> None:
    target = torch.rand(1, 2, 3, 16, 16)
    zero, near, twice_near, far, twice_far = (
        float(restoration_loss(target + offset, target, 0.05)) for offset in (0.0, 0.005, 0.01, 2.0, 4.0)
    )
    assert zero == pytest.approx(0, abs=1e-8)
    assert twice_near / near == pytest.approx(4, rel=0.05)
    assert twice_far / far == pytest.approx(2, rel=0.05)


def test_pool_renews_one_clip_at_a_time(config: PretrainConfig, tmp_path: Path) -> None:
    photos = sorted(config.photos[0].iterdir())
    options = {"capacity": 2, "renewal": 5, "size": 24, "frames": 4, "seed": 0, "device": torch.device("cpu")}
    pool = ClipPool(photos, tmp_path / "pool", **options)  # type: ignore[arg-type]
    for step in range(30):
        blurry, sharp = pool.batch(step, 2, 16, 3)
        assert blurry.shape == sharp.shape == (2, 3, 3, 16, 16)
        assert len(list((tmp_path / "pool").iterdir())) <= 2
    other = ClipPool(photos, tmp_path / "other", **options)  # type: ignore[arg-type]
    np.testing.assert_allclose(other.batch(29, 2, 16, 3)[1], sharp)


def test_augmentation_treats_both_sides_alike() -> None:
    pair = np.random.default_rng(0).integers(0, 256, (1, 5, 20, 22, 3)).astype(np.uint8).repeat(2, 0)
    for seed in range(20):
        blurry, sharp = augment(pair, 12, 3, np.random.default_rng(seed))
        assert blurry.shape == (3, 12, 12, 3)
        assert np.array_equal(blurry, sharp)


def test_photos_are_split_by_name_or_every_ninth() -> None:
    known = [Path("a.jpg"), Path("plasma_Path.jpg"), Path("z.jpg")]
    assert split_photos(known) == ([known[0], known[2]], [known[1]])
    others = [Path(f"{i:02}.jpg") for i in range(20)]
    trainable, held = split_photos(others)
    assert len(held) == 3
    assert not set(trainable) & set(held)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"backbone": "nothing"}, "no backbone"),
        ({"variant": "nothing"}, "no variant"),
        ({"photos": (Path("/nowhere"),)}, "nowhere"),
    ],
)
def test_wrong_names_are_said(config: PretrainConfig, changes: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        pretrain(replace(config, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("changes", [{"crop": 999}, {"clip_length": 99}, {"steps": 0}, {"learning_rate": -1.0}])
def test_contradictions_are_refused(config: PretrainConfig, changes: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        replace(config, **changes)  # type: ignore[arg-type]
