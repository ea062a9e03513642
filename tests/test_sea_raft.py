"""SEA-RAFT against the official code with deterministic weights; padding, certainty, loading."""

from __future__ import annotations

import json
import math
import zlib
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from selfhvd_tta.flows import FlowEstimator, discover, sea_raft
from selfhvd_tta.flows.sea_raft import SEARAFT, SEARAFTNetwork
from tests.conftest import shared_path
from tests.pictures import shifted_pair


def recipe(name: str, shape: list[int], gain: float) -> Tensor:
    """The weights of the reference runs: pseudo-random, a function of the tensor's name (seed 0)."""
    # The shortcut's norm goes by two names and has to get the same values under both.
    name = name.replace(".bn3.", ".downsample.1.")
    leaf = name.rsplit(".", 1)[-1]
    z = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()))).standard_normal(shape)
    if leaf == "running_mean":
        z = 0.05 * z
    elif leaf == "running_var":
        z = 1 + 0.1 * np.abs(z)
    elif len(shape) >= 2:
        z = z * (gain / math.sqrt(math.prod(shape[1:])))
    elif leaf == "weight":
        z = 1 + 0.05 * z
    else:
        z = 0.02 * z
    return torch.from_numpy(z.astype(np.float32))


@cache
def official_state(variant: str) -> dict[str, Tensor]:
    keys = json.loads(shared_path(f"conformance/searaft_{variant}.keys.json").read_text())
    return {
        name: torch.zeros((), dtype=torch.int64)
        if name.endswith("num_batches_tracked")
        else recipe(name, shape, keys["gain"])
        for name, shape, _ in keys["state_dict"]
    }


def reference_estimator(variant: str) -> SEARAFT:
    descriptor = discover()["sea-raft"]
    estimator = descriptor.build(**descriptor.variant(variant).config)
    sea_raft.load(estimator, official_state(variant))
    return estimator.eval()


def vectors(name: str) -> dict[str, np.ndarray]:
    with np.load(shared_path(f"conformance/{name}.npz")) as file:
        return dict(file)


def frames(reference: dict[str, np.ndarray]) -> tuple[Tensor, Tensor]:
    pair = torch.from_numpy(reference["input_u8"]).permute(0, 1, 4, 2, 3).float()
    return pair[:, 0], pair[:, 1]


def close(ours: Tensor, official: np.ndarray, atol: float = 1e-4) -> bool:
    return torch.allclose(ours, torch.from_numpy(official), rtol=0, atol=atol)


@pytest.mark.shared
@pytest.mark.parametrize("variant", ["s", "m"])
def test_same_outputs_and_gradients_as_the_official_network(variant: str) -> None:
    reference = vectors(f"searaft_{variant}.seed0")
    network = reference_estimator(variant).network
    predictions = network(*frames(reference))
    last = predictions[-1]
    assert close(last.flow, reference["flow"])
    assert close(last.info, reference["info"])
    assert close(sea_raft.expected_log_scale(last.info), reference["heatmap"])
    means = [[each.flow.abs().mean().item(), each.info.abs().mean().item()] for each in predictions]
    official = np.stack([reference["flow_iter_mean_abs"], reference["info_iter_mean_abs"]], axis=1)
    np.testing.assert_allclose(means, official, rtol=1e-4)

    loss = last.flow.square().mean() + last.info.square().mean()
    np.testing.assert_allclose(loss.item(), reference["grad_loss"], rtol=1e-4)
    loss.backward()
    ours = {name: parameter.grad for name, parameter in network.named_parameters()}
    assert set(ours) == set(reference["grad_names"].tolist())
    norms = [0.0 if ours[name] is None else ours[name].norm().item() for name in reference["grad_names"].tolist()]
    np.testing.assert_allclose(norms, reference["grad_norm"], rtol=2e-3, atol=1e-6)


@pytest.mark.shared
def test_same_maps_at_half_resolution_as_the_official_script() -> None:
    reference = vectors("searaft_s_custom.seed0")
    source, target = (frame / 255 for frame in frames(reference))
    estimator = reference_estimator("s")
    prediction = estimator.predict(source, target)
    heatmap = sea_raft.expected_log_scale(prediction.info)
    assert close(prediction.flow[..., ::3, ::3], reference["flow_stride3"], 2e-4)
    assert close(prediction.info[..., ::3, ::3], reference["info_stride3"])
    assert close(heatmap[..., ::3, ::3], reference["heatmap_stride3"])
    assert close(-estimator(source, target).certainty.log()[..., ::3, ::3], reference["heatmap_stride3"], 1e-3)
    assert close(sea_raft.expected_log_scale(torch.from_numpy(reference["rand_info"])), reference["rand_heatmap"])


@pytest.mark.shared
@pytest.mark.parametrize("variant", ["s", "m"])
def test_state_dict_is_the_official_one(variant: str) -> None:
    keys = json.loads(shared_path(f"conformance/searaft_{variant}.keys.json").read_text())
    state = reference_estimator(variant).network.state_dict()
    assert {name: list(tensor.shape) for name, tensor in state.items()} == {
        name: shape for name, shape, _ in keys["state_dict"]
    }


def test_loading_accepts_one_name_of_a_shared_tensor_and_a_prefix_but_nothing_else() -> None:
    torch.manual_seed(0)
    state = SEARAFT().network.state_dict()
    file = {f"module.{name}": tensor for name, tensor in state.items() if ".bn3." not in name}
    estimator = SEARAFT()
    sea_raft.load(estimator, file)
    assert all(torch.equal(state[name], tensor) for name, tensor in estimator.network.state_dict().items())
    with pytest.raises(RuntimeError, match="Missing key"):
        sea_raft.load(estimator, {name: file[name] for name in list(file)[1:]})
    with pytest.raises(RuntimeError, match="Unexpected key"):
        sea_raft.load(estimator, file | {"surplus": torch.zeros(1)})
    with pytest.raises(TypeError, match="not of FlowEstimator"):
        sea_raft.load(FlowEstimator(), file)


def test_padding_does_not_move_the_flow() -> None:
    """Frames of 128 x 128 need no padding; cut by a few pixels they do, and the common part stays about the same."""
    torch.manual_seed(0)
    network = SEARAFTNetwork(iterations=1).eval()
    source, target = (255 * frame for frame in shifted_pair(136, 136, (2, 1)))
    with torch.no_grad():
        padded = network(source[..., 3:, 5:], target[..., 3:, 5:])[-1].flow
        by_hand = network(
            *(torch.nn.functional.pad(each[..., 3:, 5:], (2, 3, 1, 2), mode="replicate") for each in (source, target))
        )[-1].flow
    assert padded.shape[-2:] == (133, 131)
    assert torch.equal(padded, by_hand[..., 1:134, 2:133])


def test_both_directions_in_one_pass_are_those_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    estimator = SEARAFT(iterations=2).eval()
    source, target = torch.rand(2, 2, 3, 150, 170)
    apart = estimator(source, target), estimator(target, source)
    seen: list[int] = []
    real = estimator.network.fnet.forward
    monkeypatch.setattr(estimator.network.fnet, "forward", lambda x: (seen.append(len(x)), real(x))[1])
    together = estimator.both(source, target)
    for one, other in zip(apart, together, strict=True):
        assert other.flow.shape == (2, 2, 150, 170)
        torch.testing.assert_close(one.flow, other.flow, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(one.certainty, other.certainty, atol=1e-3, rtol=1e-3)
    assert seen == [4], "every frame is encoded once"


def test_certainty_falls_with_the_scale_of_the_error_and_is_clamped() -> None:
    def info(first: float, second: float, scale: float) -> Tensor:
        return torch.tensor([first, second, scale, 3.0]).view(1, 4, 1, 1)

    # One component alone: log b itself; its logarithm is kept within 0..10; the other component counts as 0.
    assert sea_raft.expected_log_scale(info(50, -50, 2.0)).item() == pytest.approx(2.0)
    assert sea_raft.expected_log_scale(info(50, -50, -4.0)).item() == 0
    assert sea_raft.expected_log_scale(info(50, -50, 99.0)).item() == pytest.approx(10.0)
    assert sea_raft.expected_log_scale(info(-50, 50, 99.0)).item() == pytest.approx(0, abs=1e-6)
    assert sea_raft.expected_log_scale(info(0, 0, 4.0)).item() == pytest.approx(2.0)


def test_variants_are_of_the_published_sizes() -> None:
    sizes = {}
    for variant in discover()["sea-raft"].variants:
        with torch.device("meta"):
            network = SEARAFTNetwork(variant.config["blocks"])
        sizes[variant.name] = sum(parameter.numel() for parameter in network.parameters())
    assert sizes == {"s": 8_883_460, "m": 19_663_876}
