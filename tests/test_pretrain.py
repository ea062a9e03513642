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
from typer.testing import CliRunner

from selfhvd_tta.backbones import Backbone, Variant
from selfhvd_tta.backbones.estrnn import BACKBONE, ESTRNN
from selfhvd_tta.backbones.wrapper import Network
from selfhvd_tta.cli import app
from selfhvd_tta.errors import UsageError, WeightsError
from selfhvd_tta.lab.datasets.photos import split_photos
from selfhvd_tta.lab.training import network as network_module
from selfhvd_tta.lab.training import pretrain as module
from selfhvd_tta.lab.training.config import PretrainConfig
from selfhvd_tta.lab.training.loop import learning_rate
from selfhvd_tta.lab.training.losses import restoration_loss
from selfhvd_tta.lab.training.muon import orthogonalise
from selfhvd_tta.lab.training.pool import Maker
from selfhvd_tta.lab.training.pretrain import PretrainProgress, export_weights, pretrain
from selfhvd_tta.lab.training.sources import open_data
from selfhvd_tta.lab.training.validation import ValidationClip, validate
from selfhvd_tta.weights import load as load_weights
from selfhvd_tta.weights import save

TINY = Variant("tiny", {"n_features": 2, "n_blocks": 1, "global_residual": True}, (), "rgb", (-0.5, 0.5))


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PretrainConfig:
    """Two photographs, a network of a thousand parameters, crops of 16 pixels."""
    backbone: Backbone = replace(BACKBONE, id="tiny", variants=(TINY,))
    monkeypatch.setattr(network_module, "discover", lambda: {"tiny": backbone})
    (tmp_path / "photos").mkdir()
    for index in range(2):
        noise = np.random.default_rng(index).integers(0, 256, (120, 120, 3)).astype(np.uint8)
        cv2.imwrite(str(tmp_path / "photos" / f"{index}.png"), cv2.GaussianBlur(noise, (0, 0), 1.5))
    monkeypatch.setattr(module, "validation_sets", lambda _data: {"photos": [still_clip()], "night": [still_clip()]})
    return PretrainConfig(
        data=(tmp_path / "photos",),
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


def still_clip() -> ValidationClip:
    """Two sharp frames, one mildly and one severely degraded one, without any motion."""
    sharp = np.random.default_rng(0).integers(60, 200, (4, 16, 16, 3)).astype(np.uint8)
    blurry = sharp.copy()
    blurry[2] += 4
    blurry[3] += 40
    return ValidationClip(blurry, sharp, np.array([False, False, True, True]))


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
    sharp = np.random.default_rng(0).integers(60, 200, (4, 24, 24, 3)).astype(np.uint8)
    source = open_data(config.data, 24, 4).source
    maker = Maker(source, config.output / "pool", config.seed, torch.device("cpu"), config.pace)
    np.save(maker.path(0), np.stack([sharp - 40, sharp]))
    settings = replace(config, steps=100, pool=1, renewal=0, learning_rate=5e-3)
    pretrain(settings, lambda progress: losses.append(progress.loss))
    assert losses[1] < 0.3 * losses[0]


@pytest.mark.parametrize("shape", [(3, 6, 6), (2, 4, 20), (2, 20, 4)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrices))
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_single_pictures_can_be_trained_on(config: PretrainConfig) -> None:
    last = pretrain(replace(config, clip_length=1, batch=4, steps=2, device="cpu", precision="bf16"))
    assert last.step == 2
    assert np.isfinite(last.loss)


def test_a_precision_that_was_never_verified_is_refused(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain: Backbone = replace(BACKBONE, id="tiny", variants=(TINY,), autocast=frozenset())
    monkeypatch.setattr(network_module, "discover", lambda: {"tiny": plain})
    with pytest.raises(UsageError, match="not verified"):
        pretrain(replace(config, precision="bf16"))


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
    assert [line["step"] for line in lines] == [progress.step for progress in seen] == [3, 6]
    assert set(lines[0]["validation"]) == {"blurry", "severe", "sharp"}
    assert lines[0]["further"] == {"night": lines[0]["validation"]}
    facts = json.loads((config.output / "run.json").read_text())
    assert facts["config"]["steps"] == 6
    assert "2 photographs" not in facts["trained_on"]  # one of the two is held out
    assert "1 photographs" in facts["trained_on"]


def test_what_was_logged_after_the_checkpoint_is_taken_back(config: PretrainConfig) -> None:
    pretrain(replace(config, steps=4, validate_every=2))
    log = config.output / "log.jsonl"
    with log.open("a") as file:
        file.write(json.dumps({"step": 5, "loss": 1.0}) + '\n{"step": 6, "lo')  # killed while writing
    pretrain(replace(config, steps=6, validate_every=2))
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [2, 4, 6]


def test_initial_weights_start_a_new_run(config: PretrainConfig, tmp_path: Path) -> None:
    pretrain(config)
    second = replace(config, output=tmp_path / "second", initial=config.output / "checkpoint.pt", steps=1)
    assert pretrain(second).step == 1
    first, moved = weights_of(config.output), weights_of(second.output)
    distance = max(float((first[name] - moved[name]).abs().max()) for name in first)
    assert 0 < distance < 2 * config.learning_rate


def test_a_run_goes_on_from_exported_weights(config: PretrainConfig, tmp_path: Path) -> None:
    pretrain(config)
    export_weights(config, tmp_path / "out.safetensors", {})
    second = replace(config, output=tmp_path / "second", initial=tmp_path / "out.safetensors", steps=1)
    pretrain(second)
    average = torch.load(config.output / "checkpoint.pt", weights_only=True)["average"]
    moved = weights_of(second.output)
    distance = max(float((average[name] - moved[name]).abs().max()) for name in moved)
    assert 0 < distance < 2 * config.learning_rate + 1e-3


def test_bundled_weights_are_found_by_that_name(config: PretrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_module, "discover", lambda: {"tiny": BACKBONE})
    settings = replace(config, initial=Path("bundled"), steps=1, variant="lite", learning_rate=1e-9)
    pretrain(settings)
    bundled = load_weights("estrnn-lite", offline=True).tensors
    for name, tensor in weights_of(config.output).items():
        torch.testing.assert_close(tensor, bundled[name].float(), atol=1e-6, rtol=0)


def test_initial_weights_that_do_not_fit_are_refused(config: PretrainConfig, tmp_path: Path) -> None:
    save(tmp_path / "other.safetensors", {"weight": torch.zeros(3)}, {"backbone": "x", "variant": "y"})
    with pytest.raises(WeightsError, match="do not fit"):
        pretrain(replace(config, initial=tmp_path / "other.safetensors"))
    with pytest.raises(UsageError, match="come with this program"):
        pretrain(replace(config, initial=Path("bundled")))
    with pytest.raises(UsageError, match="no checkpoint"):
        pretrain(replace(config, initial=tmp_path / "none.pt"))


def test_accumulated_parts_give_the_gradient_of_the_batch(config: PretrainConfig, tmp_path: Path) -> None:
    whole, parts = replace(config, output=tmp_path / "a"), replace(config, output=tmp_path / "b", accumulate=2)
    pretrain(whole)
    pretrain(parts)
    for name, tensor in weights_of(whole.output).items():
        torch.testing.assert_close(tensor, weights_of(parts.output)[name], atol=1e-5, rtol=1e-4)


def test_a_checkpoint_of_another_network_is_refused(config: PretrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    pretrain(replace(config, steps=1))
    wider = replace(TINY, config={"n_features": 4, "n_blocks": 1})
    monkeypatch.setattr(network_module, "discover", lambda: {"tiny": replace(BACKBONE, id="tiny", variants=(wider,))})
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


def test_the_frequency_term_is_the_distance_of_the_transforms() -> None:
    output, target = torch.rand(2, 1, 2, 3, 12, 16, generator=torch.Generator().manual_seed(0)).unbind()
    term = restoration_loss(output, target, 0.05, 0.7) - restoration_loss(output, target, 0.05)
    difference = np.fft.rfft2((output - target).numpy(), norm="ortho")
    assert float(term) == pytest.approx(0.7 * np.stack([difference.real, difference.imag]).__abs__().mean(), rel=1e-5)
    same = target.clone().requires_grad_()
    restoration_loss(same, target, 0.05, 1.0).backward()
    assert same.grad is not None
    assert torch.isfinite(same.grad).all()


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
        ({"data": (Path("/nowhere"),)}, "nowhere"),
    ],
)
def test_wrong_names_are_said(config: PretrainConfig, changes: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        pretrain(replace(config, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"crop": 999},
        {"clip_length": 99},
        {"steps": 0},
        {"learning_rate": -1.0},
        {"batch": 2, "accumulate": 3},
        {"curriculum": 10, "renewal": 0},
        {"frequency": -1.0},
    ],
)
def test_contradictions_are_refused(config: PretrainConfig, changes: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        replace(config, **changes)  # type: ignore[arg-type]


def test_the_command_passes_everything_on(config: PretrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[PretrainConfig] = []

    def record(told: PretrainConfig, *_listeners: object) -> PretrainProgress:
        seen.append(told)
        return PretrainProgress(0, 0.0, 0.0, 0.0)

    monkeypatch.setattr(module, "pretrain", record)
    words = ["pretrain", str(config.data[0]), "-o", str(config.output), "--device", "cpu"]
    assert CliRunner().invoke(app, words).exit_code == 0
    more = (
        "--backbone estrnn:c80b15 --initial bundled --gamma-blur --crop 192 --clip-length 12 --pool 7 --renewal 3 "
        "--seed 5 --steps 9 --budget 2 --batch 4 --accumulate 2 --learning-rate 1e-4 --frequency 0.1 --curriculum 50 "
        "--precision bf16 --workers 2 --validate-every 11"
    )
    assert CliRunner().invoke(app, [*words, *more.split()]).exit_code == 0
    plain, full = seen
    expected = PretrainConfig(data=config.data, output=config.output, variant="lite")
    assert plain == expected
    assert full == replace(
        expected,
        variant="c80b15",
        initial=Path("bundled"),
        gamma_blur=True,
        crop=192,
        clip_length=12,
        clip_size=256,
        clip_frames=16,
        pool=7,
        renewal=3,
        seed=5,
        steps=9,
        budget=120.0,
        batch=4,
        accumulate=2,
        learning_rate=1e-4,
        frequency=0.1,
        curriculum=50,
        precision="bf16",
        workers=2,
        validate_every=11,
    )
