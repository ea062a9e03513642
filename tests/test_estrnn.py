"""ESTRNN against the official network's outputs, and its streaming."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from selfhvd_tta import backbones
from selfhvd_tta.backbones import Variant
from selfhvd_tta.backbones.estrnn import ESTRNN, SpatioTemporalAttention
from selfhvd_tta.backbones.wrapper import Network
from tests.conftest import shared_path


def fill(network: nn.Module, gain: float, seed: int = 0) -> None:
    """The weight recipe of the reference run: a seeded normal draw per parameter name."""
    state = {}
    for name, tensor in network.state_dict().items():
        generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()) + seed))
        z = generator.standard_normal(tuple(tensor.shape))
        scale = gain / math.sqrt(math.prod(tensor.shape[1:])) if tensor.ndim >= 2 else 0.02
        state[name] = torch.from_numpy((z * scale).astype(np.float32))
    network.load_state_dict(state)


def tiny(**changes: object) -> ESTRNN:
    torch.manual_seed(0)
    return ESTRNN(**{"n_features": 4, "n_blocks": 2, "global_residual": True, **changes}).eval()  # type: ignore[arg-type]


def test_keys_and_shapes_are_the_official_ones() -> None:
    expected = json.loads(Path(shared_path("conformance/estrnn.keys.json")).read_text())["state_dict"]
    actual = {name: list(tensor.shape) for name, tensor in ESTRNN().state_dict().items()}
    assert actual == {name: shape for name, shape, _ in expected}


def test_outputs_and_gradients_match_the_official_network() -> None:
    with np.load(shared_path("conformance/estrnn.seed0.npz")) as archive:
        reference = {name: archive[name] for name in archive.files}
    network = ESTRNN().eval()
    fill(network, gain=0.8)
    frames = torch.from_numpy(reference["input_u8"]).permute(0, 1, 4, 2, 3).float() / 255 - 0.5
    output = network(frames)
    np.testing.assert_allclose(output.detach().numpy(), reference["out"], atol=5e-5, rtol=0)
    output.square().mean().backward()
    parameters = dict(network.named_parameters())
    names = [str(name) for name in reference["grad_names"]]
    assert set(names) == set(parameters)
    norms = [float(parameters[name].grad.norm()) for name in names]  # type: ignore[union-attr]
    np.testing.assert_allclose(norms, reference["grad_norm"], rtol=2e-3)


def literal_attention(attention: SpatioTemporalAttention, window: list[Tensor]) -> Tensor:
    """Eq. 6-8 of the paper as they stand, pixel by pixel."""
    reference = window[attention.past]
    condensed = []
    for k, other in enumerate(window):
        if k != attention.past:
            pair = torch.cat((reference, other), 1)
            weights = attention.F_f(pair.mean((2, 3)))[:, :, None, None]
            condensed.append(attention.condense(weights * attention.F_p(pair)))
    return attention.fusion(torch.cat([*condensed, reference], 1))


@pytest.mark.parametrize(("past", "future"), [(2, 2), (1, 1), (0, 2), (3, 1)])
def test_composed_attention_equals_the_literal_one(past: int, future: int) -> None:
    torch.manual_seed(1)
    attention = SpatioTemporalAttention(2, past, future)
    features = torch.randn(2, past + future + 3, 10, 5, 7)
    composed = attention(features).unflatten(0, (2, 3))
    for t in range(3):
        window = [features[:, t + k] for k in range(past + future + 1)]
        torch.testing.assert_close(composed[:, t], literal_attention(attention, window), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cuts", [(9,), (1,) * 9, (4, 5), (5, 4), (2, 1, 6)])
def test_stream_equals_forward_however_cut(cuts: tuple[int, ...]) -> None:
    network, frames = tiny(), torch.rand(2, 9, 3, 16, 24) - 0.5
    state, outputs = None, []
    with torch.no_grad():
        for part in frames.split(cuts, 1):
            output, state = network.stream(part, state)
            outputs.append(output)
        torch.testing.assert_close(torch.cat(outputs, 1), network(frames), atol=1e-6, rtol=0)


def test_too_few_frames_give_no_output() -> None:
    assert tiny()(torch.zeros(1, 4, 3, 8, 8)).shape == (1, 0, 3, 8, 8)


def test_starts_near_the_identity_with_gradients_everywhere() -> None:
    network, frames = tiny(), torch.rand(1, 6, 3, 32, 32) - 0.5
    output = network(frames)
    distance = (output - frames[:, 2:4]).abs().mean()
    assert 1e-4 < distance < 0.2
    output.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())


@pytest.mark.parametrize("config", [{"n_features": 2, "n_blocks": 1}, {"past_frames": 1, "future_frames": 3}])
def test_other_configurations_keep_the_contract(config: dict[str, int]) -> None:
    network = tiny(**config)
    output = network(torch.zeros(2, 7, 3, 8, 12))
    assert output.shape == (2, 7 - network.past - network.future, 3, 8, 12)


def test_a_cpu_encodes_no_more_frames_at_once_than_its_caches_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny()
    frames = torch.rand(1, 7, 3, 16, 24) - 0.5
    sizes: list[int] = []
    encode = network.cell._encode

    def watched(some: Tensor) -> Tensor:
        sizes.append(len(some))
        return encode(some)

    monkeypatch.setattr(network.cell, "_encode", watched)
    with torch.no_grad():
        whole = network(frames)
        monkeypatch.setattr("selfhvd_tta.backbones.estrnn.CACHED_PIXELS", 3 * 16 * 24)
        pieces = network(frames)
    network(frames)
    assert sizes == [7, 3, 3, 1, 7], "a training step keeps everything anyway"
    torch.testing.assert_close(pieces, whole, atol=1e-6, rtol=0)


@pytest.mark.parametrize("count", [1, 2, 6])
def test_a_reflected_clip_is_encoded_once_with_the_same_result(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = backbones.discover()["estrnn"]
    raw = tiny()
    network = Network(raw, backbone, Variant("tiny", value_range=(-0.5, 0.5)))
    frames = torch.rand(2, count, 3, 14, 22)
    assert raw.cell.F_B0.weight.grad is None
    output = network(frames)
    output.square().mean().backward()
    gradients = [p.grad.clone() for p in raw.parameters()]  # type: ignore[union-attr]
    raw.zero_grad()
    monkeypatch.setattr(ESTRNN, "forward_in_order", lambda self, frames, order: self(frames[:, order]))
    expected = network(frames)
    expected.square().mean().backward()
    torch.testing.assert_close(output, expected, atol=1e-6, rtol=0)
    for mine, parameter in zip(gradients, raw.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("bfloat16", [False, True])
def test_the_unfused_reference_is_the_same_network(bfloat16: bool) -> None:
    from benchmarks.unfused import UnfusedESTRNN

    torch.manual_seed(0)
    network = ESTRNN(n_features=4, n_blocks=2, global_residual=True).eval()
    frames = torch.rand(2, 7, 3, 16, 24) - 0.5
    with torch.no_grad():
        expected = UnfusedESTRNN(network)(frames)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            output = network(frames).float()
    torch.testing.assert_close(output, expected, atol=1 / 255 if bfloat16 else 1e-5, rtol=0)
