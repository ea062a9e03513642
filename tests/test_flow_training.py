"""Training of the flow: pairs and their truth, what the loss asks for, runs that stop and go on exactly."""

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

from selfhvd_tta.cli import app
from selfhvd_tta.errors import UsageError
from selfhvd_tta.flows.shake_network import Reading
from selfhvd_tta.lab.simulation.scene import pixel_grid, project, sample
from selfhvd_tta.lab.simulation.simulate import ShakeSettings, SimulatedClip, simulate_clip
from selfhvd_tta.lab.simulation.true_flow import true_flow
from selfhvd_tta.lab.training.config import FlowTrainingConfig
from selfhvd_tta.lab.training.flow_batches import FlowBatch, augmented, batch_of
from selfhvd_tta.lab.training.flow_pairs import FlowPairs, make_pair, make_pairs, residual_truth
from selfhvd_tta.lab.training.flow_structures import build_structure, flow_loss
from selfhvd_tta.lab.training.flow_training import export_flow, train_flow
from tests.pictures import texture
from tests.test_global_motion import SHAKE, flow_of


def photograph(seed: int = 0, side: int = 260) -> np.ndarray:
    return (texture(side, side, seed) * 255).astype(np.uint8)


def clip_of(seed: int = 3, **changes: object) -> SimulatedClip:
    settings = ShakeSettings(
        width=128, height=96, frames=8, speed=(2.0, 3.0), gap=(4.0, 6.0), calm=(0.5, 1.0), subframes=(5, 9)
    )
    return simulate_clip(photograph(), replace(settings, **changes), seed)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def still_pairs() -> FlowPairs:
    pairs = make_pairs(clip_of(objects=1), 4, np.random.default_rng(0))
    assert pairs is not None
    return pairs


def flow_pixel_by_pixel(clip: SimulatedClip, source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Plainly: every pixel has an instant of its own, and a pose of the camera for it."""
    height, width = clip.blurry.shape[1:3]
    points = pixel_grid(height, width)

    def times(places: np.ndarray, frame: int) -> np.ndarray:
        return frame + clip.settings.readout * places[..., 1] / clip.settings.height

    def front_layer(places: np.ndarray, frame: int) -> np.ndarray:
        front = np.zeros(places.shape[:-1], int)
        for index, layer in enumerate(clip.layers[1:], 1):
            on_plane = project(layer.view(times(places, frame)), places)
            alpha = sample(layer.texture[:, 3:], torch.from_numpy(on_plane).float()[None])[0, 0].numpy()
            front[alpha > 0.5] = index
        return front

    flow, visible, front = np.zeros((height, width, 2)), np.zeros((height, width), bool), front_layer(points, source)
    for index, layer in enumerate(clip.layers):
        on_plane, found = project(layer.view(times(points, source)), points), points
        for _ in range(6):
            found = project(np.linalg.inv(layer.view(times(found, target))), on_plane)
        mine = front == index
        flow[mine] = (found - points)[mine]
        inside = (np.abs(found) <= [(width - 1) / 2, (height - 1) / 2]).all(-1)
        visible |= mine & inside & (front_layer(found, target) == index)
    return flow, visible


@pytest.mark.parametrize("changes", [{}, {"readout": 0.6, "parallax": 0.5}, {"objects": 1, "readout": 0.4}])
def test_true_flow_is_the_simulators(changes: dict[str, object]) -> None:
    clip = clip_of(**changes)
    flow, visible = true_flow(clip, 2, 5)
    reference, seen = flow_pixel_by_pixel(clip, 2, 5)
    assert np.abs(flow - reference).max() < 0.05
    assert (visible != seen).mean() < 0.002
    assert np.abs(reference).max() > 1


def test_a_homography_leaves_nothing_of_its_own_flow() -> None:
    ahead, behind, origin = residual_truth(flow_of(SHAKE, 90, 120), flow_of(np.linalg.inv(SHAKE), 90, 120), SHAKE)
    assert np.abs(ahead).max() < 1e-4
    inside = (origin[..., 0] >= 0) & (origin[..., 0] <= 119) & (origin[..., 1] >= 0) & (origin[..., 1] <= 89)
    assert inside.mean() > 0.7
    # The flow back is looked up at the nearest pixel, half a pixel away at most.
    assert np.abs(behind)[inside].max() < 0.03


def test_what_a_homography_leaves_in_closed_form() -> None:
    """The true motion is the homography after a shift of (1, -2): the shift is left."""
    shift = np.array([[1, 0, 1.0], [0, 1, -2.0], [0, 0, 1]])
    truth = SHAKE @ shift
    ahead, behind, origin = residual_truth(flow_of(truth, 90, 120), flow_of(np.linalg.inv(truth), 90, 120), SHAKE)
    assert np.allclose(ahead, [1, -2], atol=1e-3)
    inside = (origin > 2).all(-1) & (origin < [117, 87]).all(-1)
    assert np.allclose(behind[inside], [-1, 2], atol=0.03)


@pytest.mark.parametrize("order", [(1, 4), (4, 1)])
def test_truth_of_a_pair_aligns_its_frames_better_than_nothing(order: tuple[int, int]) -> None:
    clip = clip_of(objects=1, object_speed=(5.0, 6.0), shot_noise=0.0, read_noise=0.0)
    pair = make_pair(clip, *order)
    assert pair is not None
    first, second = (frame.transpose(1, 2, 0).astype(np.float32) for frame in pair.frames)
    ys, xs = np.mgrid[:96, :128].astype(np.float32)
    for a, b, flow, seen in ((first, second, pair.truth[0], pair.visible[0]), (second, first, *_back(pair))):
        x, y = xs + flow[0].astype(np.float32), ys + flow[1].astype(np.float32)
        moved = cv2.remap(b, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        by_itself = seen & (np.hypot(*flow.astype(np.float32)) > 3)
        assert by_itself.sum() > 100
        left, before = np.abs(moved - a)[by_itself].mean(), np.abs(b - a)[by_itself].mean()
        assert left < 0.5 * before


def _back(pair: object) -> tuple[np.ndarray, np.ndarray]:
    return pair.truth[1], pair.visible[1]  # type: ignore[attr-defined]


def test_augmentation_moves_pictures_and_flows_together(still_pairs: FlowPairs) -> None:
    """A pair made by its own flow stays one: the guess always leads to the same colours."""
    height, width = still_pairs.frames.shape[-2:]
    source = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    target = source.roll((2, -3), (-2, -1))
    flow = torch.tensor((-3.0, 2.0)).view(1, 2, 1, 1).expand(1, 2, height, width)
    one = torch.ones(1, 1, height, width)
    batch = FlowBatch(source, target, flow, one, flow, one)
    turned = set()
    for seed in range(12):
        part = augmented(batch, 64, np.random.default_rng(seed))
        dx, dy = (round(float(value)) for value in part.truth[0, :, 0, 0])
        assert torch.equal(part.guess, part.truth)
        moved = part.target.roll((-dy, -dx), (-2, -1))
        assert torch.allclose(moved[..., 8:-8, 8:-8], part.source[..., 8:-8, 8:-8], atol=1e-6)
        turned.add((dx, dy))
    assert len(turned) >= 4


def test_both_directions_are_learned(still_pairs: FlowPairs) -> None:
    batch = batch_of(still_pairs, [0, 1])
    assert torch.equal(batch.source[:2], batch.target[2:])
    assert torch.equal(batch.target[:2], batch.source[2:])
    assert torch.equal(batch.truth[2:], torch.from_numpy(still_pairs.truth[:2, 1]).float())
    assert (batch.gap >= 0).all()


def test_loss_is_least_at_the_truth_and_its_own_scale() -> None:
    truth = torch.zeros(1, 2, 8, 8)
    visible = torch.ones(1, 1, 8, 8)

    def loss(error: float, scale: float, seen: float = 5.0) -> float:
        flow = torch.tensor((error, 0.0)).view(1, 2, 1, 1).expand(1, 2, 8, 8)
        one = torch.ones(1, 1, 8, 8)
        return float(flow_loss([Reading(flow, one * float(np.log(scale)), one * seen)], truth, visible))

    assert loss(0.0, 0.5) < loss(0.3, 0.5) < loss(1.0, 0.5)
    # In two dimensions the likeliest scale is half of the distance.
    assert loss(2.0, 1.0) < loss(2.0, 0.6)
    assert loss(2.0, 1.0) < loss(2.0, 1.7)
    assert loss(0.0, 0.5, 5.0) < loss(0.0, 0.5, -5.0)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for index in range(2):
        cv2.imwrite(str(folder / f"{index}.png"), photograph(index))
    return folder


@pytest.fixture(scope="module")
def config(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> FlowTrainingConfig:
    """Two clips of three frames' pairs, crops of 32 pixels."""
    return FlowTrainingConfig(
        photos=(photos,),
        output=tmp_path_factory.mktemp("run") / "whole",
        steps=6,
        clips=2,
        pairs=2,
        width=96,
        height=64,
        frames=5,
        crop=32,
        batch=2,
        warmup=1,
        validation_pairs=1,
        validate_every=0,
        checkpoint_every=0.0,
    )


@pytest.fixture(scope="module")
def trained(config: FlowTrainingConfig) -> FlowTrainingConfig:
    train_flow(config)
    return config


def test_a_run_is_logged_and_validated(trained: FlowTrainingConfig) -> None:
    last = json.loads((trained.output / "log.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 6
    assert 0 < last["validation"]["mean"] < 20
    assert last["validation"]["guess_mean"] > 0


def test_a_resumed_run_equals_the_uninterrupted_one(trained: FlowTrainingConfig, tmp_path: Path) -> None:
    """Stopped after three steps; the rate is constant, as a cosine depends on the number of steps."""
    constant = replace(trained, final_learning_rate=trained.learning_rate)
    states = []
    for name, parts in (("whole", (6,)), ("parts", (3, 6))):
        for steps in parts:
            train_flow(replace(constant, output=tmp_path / name, steps=steps))
        states.append(torch.load(tmp_path / name / "checkpoint.pt", weights_only=True))
    assert states[0]["step"] == states[1]["step"] == 6
    for kind in ("network", "average"):
        for name, tensor in states[0][kind].items():
            assert torch.equal(tensor, states[1][kind][name]), name


def test_training_lowers_the_loss(still_pairs: FlowPairs) -> None:
    """On one batch, seen again and again."""
    batch = augmented(batch_of(still_pairs, [0, 1]), 64, np.random.default_rng(0))
    torch.manual_seed(0)
    network = build_structure("proofreader")
    optimiser = torch.optim.Adam(network.parameters(), 5e-3)
    losses = []
    for _ in range(20):
        loss = flow_loss(network(batch.source, batch.target, batch.guess, batch.gap), batch.truth, batch.visible)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.3


def test_exported_weights_start_another_run_and_fit_the_flow(trained: FlowTrainingConfig, tmp_path: Path) -> None:
    from selfhvd_tta.flows.shake import FLOW

    file = tmp_path / "flow.safetensors"
    digest = export_flow(trained, file, {"licence": "MIT"})
    assert len(digest) == 64
    tensors = load_file(file)
    average = torch.load(trained.output / "checkpoint.pt", weights_only=True)["average"]
    assert all(torch.equal(tensors[name], tensor.half()) for name, tensor in average.items())
    assert FLOW.load is not None
    FLOW.load(FLOW.build(), {name: tensor.float() for name, tensor in tensors.items()})
    further = replace(
        trained, output=tmp_path / "further", initial=file, steps=1, learning_rate=1e-9, final_learning_rate=1e-9
    )
    train_flow(further)
    state = torch.load(tmp_path / "further" / "checkpoint.pt", weights_only=True)["network"]
    assert torch.allclose(state["head.weight"], average["head.weight"], atol=1e-3)


def test_another_structure_is_refused(trained: FlowTrainingConfig) -> None:
    with pytest.raises(UsageError, match="raft-small"):
        train_flow(replace(trained, structure="raft-small"))


@pytest.mark.parametrize("changes", [{"steps": 0}, {"crop": 40}, {"crop": 512}, {"batch": 0}])
def test_contradictions_are_refused(config: FlowTrainingConfig, changes: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        replace(config, **changes)


def test_raft_has_the_structure_that_the_plugin_loads() -> None:
    from selfhvd_tta.flows.raft import FLOW

    state = build_structure("raft-small").state_dict()
    assert FLOW.load is not None
    FLOW.load(FLOW.build(), {name.removeprefix("network."): tensor for name, tensor in state.items()})


def test_command_says_what_is_missing(tmp_path: Path) -> None:
    from selfhvd_tta.cli import main

    assert CliRunner().invoke(app, ["pretrain-flow", "--help"]).exit_code == 0
    with pytest.raises(SystemExit) as exit_:
        main(["pretrain-flow", str(tmp_path), "-o", str(tmp_path / "run"), "--device", "cpu"])
    assert exit_.value.code == 2
