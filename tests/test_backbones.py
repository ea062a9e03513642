"""The contract of every backbone, over the registry; small configurations with the structure of the real ones."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from selfhvd_tta.backbones import Backbone, discover
from selfhvd_tta.backbones.wrapper import Network
from selfhvd_tta.weights.rows import Bundled, table
from tests.reference_weights import fill_with_reference_weights

REGISTRY = discover()
# The smallest configuration of each that keeps its structure: every branch, scale and kind of layer, few channels. A
# backbone that is not listed is tested in its default variant.
SMALL: dict[str, dict[str, Any]] = {
    "basicvsrpp": {"channels": 4, "blocks": 1, "outer_blocks": 1, "groups": 4},
    "dstnetplus": {"channels": 6, "kernel_blocks": 1, "blocks": 2},
    "estrnn": {"n_features": 4, "n_blocks": 1, "global_residual": True},
    "ifirnn": {"width": 4, "blocks": 1},
    "nafnet": {"width": 4, "encoder_blocks": (1, 2), "decoder_blocks": (1, 1), "train_size": 16},
    "relay": {"width": 4, "inner_blocks": 1, "features": 2, "aligner_width": 4},
    "rvrt": {
        "channels": 12,
        "heads": 2,
        "deformable_groups": 4,
        "deformable_heads": 4,
        "upsampling_channels": 4,
        "checkpointing": False,
    },
}
# GAIN of the reference weights; RMS of what the small network changes in `waves()`, and three of its outputs. Taken
# from networks whose full configurations agreed with the official outputs, to hold where those are not available.
PINNED = {
    "basicvsrpp": (0.80, (0.04036, 0.54943, 0.89610, 0.04197)),
    "dstnetplus": (0.65, (0.03604, 0.56132, 0.74641, 0.09661)),
    "estrnn": (0.80, (0.03837, 0.58598, 0.88999, 0.09140)),
    "ifirnn": (0.85, (0.32154, 0.45009, 0.49601, 0.49826)),
    "nafnet": (0.80, (0.50770, 0.98177, 0.10112, 0.01940)),
    "rvrt": (1.00, (0.18696, 0.63566, 0.59279, 0.07691)),
}
BACKBONES = pytest.mark.parametrize("backbone", REGISTRY.values(), ids=lambda backbone: backbone.id)


def make(backbone: Backbone, **changes: Any) -> Network:
    """A small network with random weights everywhere, also where it starts from zeros."""
    variant = backbone.variant()
    torch.manual_seed(0)
    raw = backbone.build(**{**SMALL.get(backbone.id, variant.config), **changes})
    for name, parameter in raw.named_parameters():
        if parameter.requires_grad and parameter.ndim > 1:
            fan_in = parameter[0].numel() if parameter.ndim != 4 or parameter.shape[0] > 1 else 1
            nn.init.normal_(parameter, std=(0.3 if "offset" in name or "spynet" in name else 0.7) / fan_in**0.5)
        elif parameter.requires_grad:
            parameter.data += 0.05 * torch.randn_like(parameter)
    return Network(raw, backbone, variant).eval()


def clip(count: int, height: int = 24, width: int = 32, batch: int = 1, seed: int = 1) -> Tensor:
    """A smooth random pattern that moves; (B, T, 3, H, W) in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 3, 6 + height // 6, 6 + width // 6, generator=generator)
    pattern = nn.functional.interpolate(coarse, (height + 2 * count, width + 2 * count), mode="bicubic").clamp(0, 1)
    return torch.stack([pattern[..., t : t + height, 2 * t : 2 * t + width] for t in range(count)], 1)


def waves() -> Tensor:
    """Coloured waves that move; (1, 5, 3, 26, 34) in [0, 1], from a formula."""
    y, x = torch.meshgrid(torch.arange(26.0), torch.arange(34.0), indexing="ij")
    frames = [
        torch.stack([torch.sin((x - 2 * t) * (0.3 + 0.1 * c) + (y + t) * (0.5 - 0.1 * c) + c) for c in range(3)])
        for t in range(5)
    ]
    return (0.5 + 0.45 * torch.stack(frames))[None]


def gradients(network: Network, frames: Tensor) -> dict[str, Tensor]:
    network.zero_grad()
    network(frames).square().mean().backward()
    return {
        name: parameter.grad.clone()
        for name, parameter in network.raw.named_parameters()
        if parameter.requires_grad and parameter.grad is not None
    }


def test_every_small_configuration_belongs_to_a_backbone() -> None:
    assert set(SMALL) <= set(REGISTRY)


def test_every_network_with_official_weights_is_pinned() -> None:
    """A network of your own needs no pinned outputs: it has nothing to agree with."""
    official = {row.model for row in table().values() if row.kind == "backbone" and not isinstance(row.source, Bundled)}
    assert official <= set(PINNED)


@pytest.mark.parametrize("name", PINNED)
def test_pinned_outputs(name: str) -> None:
    backbone, (gain, expected) = REGISTRY[name], PINNED[name]
    raw = backbone.build(**SMALL[name]).eval()
    fill_with_reference_weights(raw, gain)
    frames = waves()
    with torch.no_grad():
        out = Network(raw, backbone, backbone.variant())(frames)
    change = (out - frames).square().mean().sqrt()
    found = torch.stack([change, out[0, 0, 0, 3, 5], out[0, 2, 1, 13, 20], out[0, 4, 2, 25, 33]])
    torch.testing.assert_close(found, torch.tensor(expected), atol=5e-5, rtol=0)


@BACKBONES
def test_descriptor(backbone: Backbone) -> None:
    names = [variant.name for variant in backbone.variants]
    assert len(names) == len(set(names)) > 0
    assert backbone.summary
    assert backbone.licence
    assert backbone.paper
    assert backbone.autocast <= {"bfloat16", "float16"}
    assert (backbone.reach > 0) == (backbone.temporal == "bidirectional")
    with torch.device("meta"):
        for variant in backbone.variants:
            backbone.build(**variant.config)


@BACKBONES
@pytest.mark.parametrize("shape", [(1, 1, 3, 17, 30), (2, 3, 3, 25, 18), (1, 4, 3, 1, 40)], ids=str)
def test_any_shape_comes_back(backbone: Backbone, shape: tuple[int, ...]) -> None:
    with torch.no_grad():
        out = make(backbone)(torch.rand(shape))
    assert out.shape == shape
    assert out.dtype == torch.float32
    assert out.isfinite().all()


@BACKBONES
def test_raw_network_takes_its_smallest_size(backbone: Backbone) -> None:
    multiple = backbone.size_multiple
    side = -(-backbone.min_size // multiple) * multiple
    past, future = backbone.context
    count = past + 2 + future
    with torch.no_grad():
        out = make(backbone).raw(torch.rand(1, count, 3, side, side + multiple))
    assert out.shape == (1, 2, 3, side, side + multiple)


@BACKBONES
def test_clips_of_a_batch_do_not_touch_each_other(backbone: Backbone) -> None:
    network = make(backbone)
    frames = clip(4, batch=2)
    with torch.no_grad():
        together = network(frames)
        for i in range(2):
            torch.testing.assert_close(network(frames[i : i + 1])[0], together[i], atol=2e-5, rtol=1e-4)


@BACKBONES
def test_nothing_is_remembered_between_clips(backbone: Backbone) -> None:
    network = make(backbone)
    frames, other = clip(4), clip(2, seed=2)
    mirrored = torch.cat([other, other.flip(1)], 1)
    with torch.no_grad():
        before = network(frames)
        network(mirrored)
        assert torch.equal(network(frames), before)


@BACKBONES
def test_training_mode_changes_nothing(backbone: Backbone) -> None:
    network = make(backbone)
    frames = clip(2)
    with torch.no_grad():
        expected = network(frames)
        assert torch.equal(network.train()(frames), expected)


@BACKBONES
def test_every_parameter_is_trained_and_twice_alike(backbone: Backbone) -> None:
    network = make(backbone)
    frames = clip(4)
    first = gradients(network, frames)
    trainable = {name for name, parameter in network.raw.named_parameters() if parameter.requires_grad}
    assert set(first) == trainable
    dead = [name for name, gradient in first.items() if not gradient.isfinite().all() or not gradient.any()]
    assert not dead
    again = gradients(network, frames)
    assert all(torch.equal(first[name], again[name]) for name in first)


@BACKBONES
def test_checkpointing_changes_no_gradient(backbone: Backbone) -> None:
    if "checkpointing" not in inspect.signature(backbone.build).parameters:
        pytest.skip("this network has no checkpointing")
    frames = clip(4)
    kept = gradients(make(backbone, checkpointing=False), frames)
    recomputed = gradients(make(backbone, checkpointing=True), frames)
    assert set(kept) == set(recomputed)
    for name, gradient in kept.items():
        torch.testing.assert_close(recomputed[name], gradient, atol=1e-7, rtol=1e-4, msg=name)


@BACKBONES
def test_time(backbone: Backbone) -> None:
    network = make(backbone)
    frames = clip(6)
    changed = frames.clone()
    changed[:, 5] = clip(1, seed=3)[:, 0]
    with torch.no_grad():
        difference = (network(changed) - network(frames)).abs().amax((0, 2, 3, 4))
    assert difference[5] > 1e-4
    if backbone.temporal == "frame":
        assert not difference[:5].any()
    elif backbone.temporal == "causal":
        assert not difference[: 5 - backbone.context[1]].any()
    else:
        assert difference[:5].all()


@BACKBONES
def test_stream_equals_the_whole_clip(backbone: Backbone) -> None:
    network = make(backbone)
    if backbone.temporal == "bidirectional":
        with pytest.raises(ValueError, match="cannot stream"):
            network.open_stream()
        return
    frames = clip(7)
    stream = network.open_stream()
    outputs = [stream.push(part) for part in frames.split((1, 4, 2), 1)]
    streamed = torch.cat([*outputs, stream.finish()], 1)
    with torch.no_grad():
        torch.testing.assert_close(streamed, network(frames), atol=1e-5, rtol=1e-4)


@BACKBONES
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_autocast(backbone: Backbone, dtype: str) -> None:
    """Error below 5 % of what the network changes, and finite gradients close to those of float32."""
    if dtype not in backbone.autocast:
        pytest.skip(f"{backbone.id} is not said to work in {dtype}")
    network = make(backbone)
    frames = clip(4)
    with torch.no_grad():
        exact = network(frames)
        with torch.autocast("cpu", getattr(torch, dtype)):
            rounded = network(frames)
    assert rounded.dtype == torch.float32
    error, change = (rounded - exact).square().mean().sqrt(), (exact - frames).square().mean().sqrt()
    assert 0.01 < change < 100
    assert error <= 0.05 * change
    expected = torch.cat([gradient.flatten() for gradient in gradients(network, frames).values()])
    network.zero_grad()
    with torch.autocast("cpu", getattr(torch, dtype)):
        out = network(frames)
    out.square().mean().backward()
    found = torch.cat([p.grad.flatten() for p in network.raw.parameters() if p.grad is not None])
    assert found.isfinite().all()
    assert torch.cosine_similarity(found, expected, 0) > 0.99
