"""Training of the merging network: samples and what is done to them, runs that stop and go on exactly, the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from selfhvd_tta.cli import main
from selfhvd_tta.errors import UsageError, WeightsError
from selfhvd_tta.events import ignore
from selfhvd_tta.lab.simulation.simulate import ShakeSettings, simulate_clip
from selfhvd_tta.lab.training.clip_files import ClipSize, make_all
from selfhvd_tta.lab.training.config import MergeTrainingConfig
from selfhvd_tta.lab.training.losses import restoration_loss
from selfhvd_tta.lab.training.merge_samples import (
    CANDIDATES,
    MergeSamples,
    SamplePool,
    gear_of,
    make_samples,
    outputs_of,
)
from selfhvd_tta.lab.training.merge_training import (
    ADAM,
    SOFTNESS,
    augmented,
    export_merge,
    is_inner,
    train_merge,
    training_batch,
)
from selfhvd_tta.lab.training.optimisers import build_optimisers
from selfhvd_tta.method.composite import apply
from selfhvd_tta.method.merge_network import evidence
from selfhvd_tta.run.networks import MERGER, load_merger
from selfhvd_tta.settings import AlignmentSettings, RuntimeSettings, Settings
from selfhvd_tta.weights import load, load_file
from tests.media import shaky_file
from tests.pictures import texture
from tests.tiny import drift


def photograph(seed: int = 0, side: int = 200) -> np.ndarray:
    return (texture(side, side, seed) * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def samples() -> MergeSamples:
    settings = ShakeSettings(width=64, height=48, frames=6, speed=(2.0, 3.0), gap=(2.5, 3.5), calm=(0.5, 1.0))
    made = make_samples(simulate_clip(photograph(), settings, 1), gear_of("nafnet:lite"), np.random.default_rng(0))
    assert made is not None
    return made


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> MergeTrainingConfig:
    """Two clips of six frames, crops of 32 pixels."""
    photos = tmp_path_factory.mktemp("photos")
    for index in range(2):
        cv2.imwrite(str(photos / f"{index}.png"), photograph(index))
    return MergeTrainingConfig(
        photos=(photos,),
        output=tmp_path_factory.mktemp("run") / "whole",
        steps=4,
        clips=2,
        width=64,
        height=64,
        frames=6,
        crop=32,
        batch=3,
        warmup=1,
        final_learning_rate=6e-3,  # a cosine depends on the number of steps
        validate_every=2,
        checkpoint_every=0.0,
    )


@pytest.fixture(scope="module")
def trained(config: MergeTrainingConfig) -> MergeTrainingConfig:
    train_merge(config)
    return config


def pool_in(folder: Path, config: MergeTrainingConfig) -> SamplePool:
    return SamplePool(
        sorted(config.photos[0].iterdir()),
        folder,
        backbone=config.backbone,
        clips=config.clips,
        size=ClipSize(config.width, config.height, config.frames),
        seed=config.seed,
        device=torch.device("cpu"),
    )


def test_samples_are_those_of_a_run(samples: MergeSamples) -> None:
    assert len(samples) >= 2
    assert samples.observed.shape == samples.current.shape == samples.truth.shape == (len(samples), 3, 48, 64)
    assert samples.images.shape == (len(samples), CANDIDATES, 3, 48, 64)
    for index, count in enumerate(samples.found):
        assert 1 <= count <= CANDIDATES
        assert not samples.images[index, count:].any()
        found = samples.sample(index).composite.candidates
        assert found is not None
        assert len(found.images) == len(found.shares) == count
    # Where they are trusted, aligned frames look like the truth; a frame of the clip as it is does not.
    trusted = np.broadcast_to(samples.masks[:, 0] > 200, samples.truth.shape)
    truth = samples.truth.astype(float)
    assert 0.2 < trusted.mean() < 1
    assert np.abs(samples.images[:, 0] - truth)[trusted].mean() < 0.4 * np.abs(samples.observed[::-1] - truth).mean()


def test_a_part_of_a_sample_is_cut_out_of_all_of_it(samples: MergeSamples) -> None:
    whole, part = samples.sample(1), samples.sample(1, 5, 9, 32)
    cut = whole.mapped(lambda picture: picture[..., 5:37, 9:41])
    for a, b in zip(_seen(cut), _seen(part), strict=True):
        assert torch.equal(a, b)
    assert part.truth.shape == (1, 3, 32, 32)


def _seen(sample: object) -> tuple[torch.Tensor, ...]:
    return (*evidence(sample.observed, sample.current, sample.composite, CANDIDATES), sample.truth)  # type: ignore[attr-defined]


def test_augmentation_moves_everything_together(samples: MergeSamples) -> None:
    """The blend of what was turned is the blend, turned; so is the truth, and every map."""
    sample = samples.sample(0, 0, 0, 48)
    seen, blend, truth = _seen(sample)
    kinds = set()
    for seed in range(16):
        turned_seen, turned_blend, turned_truth = _seen(augmented(sample, 0.0, np.random.default_rng(seed)))
        fits = []
        for way in range(8):

            def turn(picture: torch.Tensor, way: int = way) -> torch.Tensor:
                picture = picture.flip(-1) if way & 1 else picture
                picture = picture.flip(-2) if way & 2 else picture
                return picture.transpose(-1, -2) if way & 4 else picture

            # Colours may be swapped: their mean stays.
            if torch.allclose(turn(truth).mean(1), turned_truth.mean(1), atol=1e-6):
                fits.append(way)
                assert torch.allclose(turn(blend).mean(1), turned_blend.mean(1), atol=1e-6)
                maps = [9, *range(19, seen.shape[1])]
                assert torch.equal(turn(seen)[:, maps], turned_seen[:, maps])
        assert len(fits) == 1
        kinds.add(fits[0])
    assert len(kinds) >= 4


def test_some_samples_have_no_backbone(samples: MergeSamples) -> None:
    sample = samples.sample(0)
    without = augmented(sample, 1.0, np.random.default_rng(0))
    assert torch.equal(without.current, without.observed)
    with_it = augmented(sample, 0.0, np.random.default_rng(0))
    assert not torch.equal(with_it.current, with_it.observed)


def test_a_network_that_needs_the_clip_gets_all_of_it() -> None:
    network, _ = drift()
    frames = torch.rand(7, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(outputs_of(network, frames, [5, 0]), network(frames[None])[0][[5, 0]], atol=1e-6)


def test_clips_are_decided_by_seed_and_number(trained: MergeTrainingConfig, tmp_path: Path) -> None:
    """Whichever process makes them; the photograph of the training half of two is the second."""
    pool = pool_in(tmp_path, trained)
    pool.photos = pool.photos[1:]
    heard: list[tuple[int, int]] = []
    make_all(pool, 2, lambda done, total: heard.append((done, total)))
    assert heard == [(1, 2), (2, 2)]
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == sorted(path.name for path in (trained.output / "pool").iterdir())
    for number in range(2):
        mine, theirs = vars(pool.of(number)), vars(pool_in(trained.output / "pool", trained).of(number))
        assert all(np.array_equal(mine[name], theirs[name]) for name in mine)


def test_a_run_is_logged_and_validated(trained: MergeTrainingConfig) -> None:
    lines = [json.loads(line) for line in (trained.output / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    assert all(np.isfinite(line["loss"]) for line in lines)
    measured = lines[-1]["validation"]
    assert 15 < measured["blend_blurry"] < 60
    assert -20 < measured["blurry"] < 20


def test_a_resumed_run_equals_the_uninterrupted_one(trained: MergeTrainingConfig, tmp_path: Path) -> None:
    parts = replace(trained, output=tmp_path / "parts")
    (tmp_path / "parts").mkdir()
    for folder in ("pool", "held_out"):
        (tmp_path / "parts" / folder).symlink_to(trained.output / folder)
    for steps in (2, 4):
        train_merge(replace(parts, steps=steps))
    states = [torch.load(run.output / "checkpoint.pt", weights_only=True) for run in (trained, parts)]
    assert states[0]["step"] == states[1]["step"] == 4
    for kind in ("network", "average"):
        for name, tensor in states[0][kind].items():
            assert torch.equal(tensor, states[1][kind][name]), name


def test_training_lowers_the_loss(trained: MergeTrainingConfig) -> None:
    """On one batch, seen again and again, from the bundled weights."""
    network = load_merger(
        Settings(runtime=RuntimeSettings(offline=True, precision="fp32")), torch.device("cpu"), ignore
    )
    assert network is not None
    network.requires_grad_(True)
    seen, blend, truth = training_batch(pool_in(trained.output / "pool", trained), 0, trained)
    assert len(seen) == trained.batch
    optimisers = build_optimisers(network, 1e-3, is_inner, ADAM)
    losses = []
    for _ in range(12):
        loss = restoration_loss(blend + network.correction(seen), truth, SOFTNESS)
        network.zero_grad()
        loss.backward()
        for optimiser in optimisers:
            optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]


def test_optimisers_share_out_every_weight_once() -> None:
    from selfhvd_tta.method.merge_network import MergeNetwork

    network = MergeNetwork()
    muon, adam = build_optimisers(network, 1.0, is_inner, ADAM)
    given = [id(p) for optimiser in (muon, adam) for group in optimiser.param_groups for p in group["params"]]
    assert sorted(given) == sorted(id(p) for p in network.parameters())
    by_adam = {id(p) for group in adam.param_groups for p in group["params"]}
    assert {id(network.intro.weight), id(network.ending.weight), id(network.down.bias)} <= by_adam
    assert id(network.down.weight) not in by_adam


def test_exported_weights_start_another_run_and_are_taken_by_the_product(
    trained: MergeTrainingConfig, tmp_path: Path
) -> None:
    file = tmp_path / "merge.safetensors"
    digest = export_merge(trained, file, {"licence": "MIT"})
    found = load_file(file)
    assert digest == found.sha256
    assert found.config == {
        "backbone": "merge", "variant": "w48", "outputs_of": "relay:lite", "licence": "MIT", "step": 4
    }  # fmt: skip
    average = torch.load(trained.output / "checkpoint.pt", weights_only=True)["average"]
    assert all(torch.equal(found.tensors[name], tensor.half()) for name, tensor in average.items())
    settings = Settings(alignment=AlignmentSettings(merge_weights=str(file)))
    merger = load_merger(settings, torch.device("cpu"), ignore)
    assert merger is not None
    sample = pool_in(trained.output / "pool", trained).of(0).sample(0)
    merged = merger(sample.observed, sample.current, sample.composite)
    assert merged.shape == sample.observed.shape
    assert not torch.equal(merged, apply(sample.composite, sample.current))
    bundled = load(MERGER, offline=True).tensors
    for name, source, expected in (
        ("file", file, average),
        ("bundled", Path("bundled"), bundled),
        ("checkpoint", trained.output / "checkpoint.pt", average),
    ):
        run = tmp_path / name
        run.mkdir()
        for folder in ("pool", "held_out"):
            (run / folder).symlink_to(trained.output / folder)
        still = replace(trained, output=run, initial=source, steps=1, learning_rate=1e-9, final_learning_rate=1e-9)
        train_merge(still)
        state = torch.load(run / "checkpoint.pt", weights_only=True)["average"]
        assert state["down.weight"].dtype is torch.float32
        assert torch.allclose(state["down.weight"], expected["down.weight"].float(), atol=1e-3), name


@pytest.mark.parametrize(
    "changes",
    [{"steps": 0}, {"crop": 65}, {"batch": 0}, {"clips": 0}, {"recorded": 1.5}, {"learning_rate": 0.0}],
)
def test_contradictions_are_refused(config: MergeTrainingConfig, changes: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(changes))):
        replace(config, **changes)


def test_what_does_not_fit_is_refused(trained: MergeTrainingConfig, tmp_path: Path) -> None:
    def start(name: str, **changes: object) -> None:
        train_merge(replace(trained, output=tmp_path / name, **changes))

    with pytest.raises(UsageError, match="unknown backbone"):
        start("a", backbone="nonesuch")
    with pytest.raises(UsageError, match="no photographs"):
        start("b", photos=(tmp_path,))
    with pytest.raises(WeightsError, match="no weights file"):
        start("c", initial=tmp_path / "none.safetensors")
    (tmp_path / "torn.pt").write_bytes(b"torn")
    with pytest.raises(UsageError, match="not a checkpoint, or is damaged"):
        start("d", initial=tmp_path / "torn.pt")
    torch.save({"network": {"other": torch.zeros(1)}, "average": {}}, tmp_path / "other.pt")
    with pytest.raises(UsageError, match="another network"):
        start("e", initial=tmp_path / "other.pt")
    assert not list(tmp_path.glob("*/pool/*")), "nothing was made before that"


def command(*arguments: object) -> int:
    with pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in arguments])
    assert isinstance(exit_.value.code, int)
    return exit_.value.code


def test_the_command_trains_and_its_file_is_used(
    trained: MergeTrainingConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, file, video = tmp_path / "run", tmp_path / "mine.safetensors", shaky_file(tmp_path / "shaky.mkv", 6, 0.2)
    small = ["--clips", 1, "--clip-size", 64, "--clip-frames", 6, "--crop", 32, "--batch", 2, "--device", "cpu"]
    given = [trained.photos[0], "-o", run, *small, "--initial", "bundled", "--export", file, "--licence", "MIT"]
    assert command("pretrain-merge", *given, "--steps", 1) == 0
    assert command("pretrain-merge", *given, "--steps", 2) == 0
    assert "weights of step 2 written to" in capsys.readouterr().err
    assert load_file(file).config["licence"] == "MIT"
    deblur = ["deblur", video, "-o", tmp_path / "sharp.mkv", "--method", "transfer", "--device", "cpu", "--offline"]
    deblur += ["--flow", "dis:ultrafast", "--merge-weights"]
    assert command(*deblur, file) == 0
    assert (tmp_path / "sharp.mkv").stat().st_size > 0
    assert command(*deblur, tmp_path / "none.safetensors", "--overwrite") == 4
    assert command(*deblur, file, "--overwrite", "--merge", "weighted") == 2
    assert "--merge-weights" in capsys.readouterr().err


def test_the_command_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("pretrain-merge", tmp_path, "-o", tmp_path / "run", "--device", "cpu") == 2
    assert "no photographs" in capsys.readouterr().err
