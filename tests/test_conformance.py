"""The networks against outputs and gradients of their official code, with deterministic weights (no trained ones)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from selfhvd_tta.backbones import discover
from tests.conftest import shared_path
from tests.reference_weights import fill_with_reference_weights

pytestmark = pytest.mark.shared


@dataclass(frozen=True)
class Reference:
    """One set of official outputs: which network, which vectors, and how closely ours has to agree."""

    vectors: str
    backbone: str
    variant: str
    keys: str
    atol: float = 5e-5

    def __str__(self) -> str:
        return self.vectors


REFERENCES = [
    Reference("nafnet_w32.seed0", "nafnet", "gopro-w32", "nafnet_w32", 1e-4),
    Reference("nafnet_w32_tlc.seed0", "nafnet", "gopro-w32", "nafnet_w32", 1e-4),
    Reference("dstnetplus_base.seed0", "dstnetplus", "base-gopro", "dstnetplus_base"),
    Reference("ifirnn.seed0", "ifirnn", "c2h3", "ifirnn"),
    Reference("basicvsrpp.seed0", "basicvsrpp", "gopro", "basicvsrpp"),
    Reference("rvrt.seed0", "rvrt", "gopro", "rvrt"),
]
# Official state-dict keys and the variant that has to have exactly these.
KEYS = [
    ("nafnet_w32", "nafnet", "gopro-w32"),
    ("nafnet_w64", "nafnet", "gopro-w64"),
    ("nafnet_w64", "nafnet", "reds-w64"),
    ("dstnetplus_base", "dstnetplus", "base-gopro"),
    ("dstnetplus_l", "dstnetplus", "l-gopro"),
    ("ifirnn", "ifirnn", "c2h3"),
    ("basicvsrpp", "basicvsrpp", "gopro"),
    ("rvrt", "rvrt", "gopro"),
]


def official_keys(name: str) -> dict[str, Any]:
    return json.loads(shared_path(f"conformance/{name}.keys.json").read_text())


def build(backbone: str, variant: str) -> nn.Module:
    descriptor = discover()[backbone]
    return descriptor.build(**descriptor.variant(variant).config).eval()


@pytest.mark.parametrize(("keys", "backbone", "variant"), KEYS, ids=lambda value: value)
def test_state_dict_has_the_official_keys_and_shapes(keys: str, backbone: str, variant: str) -> None:
    with torch.device("meta"):
        own = {name: list(tensor.shape) for name, tensor in build(backbone, variant).state_dict().items()}
    assert own == {name: shape for name, shape, _ in official_keys(keys)["state_dict"]}


@pytest.mark.parametrize("reference", REFERENCES, ids=str)
def test_output_and_gradients_match_the_official_network(reference: Reference, record_property: Any) -> None:
    keys = official_keys(reference.keys)
    vectors = np.load(shared_path(f"conformance/{reference.vectors}.npz"))
    network = build(reference.backbone, reference.variant)
    fill_with_reference_weights(network, keys["gain"])
    low, _ = discover()[reference.backbone].variant(reference.variant).value_range
    frames = torch.from_numpy(vectors["input_u8"]).permute(0, 1, 4, 2, 3).contiguous().float() / 255 + low

    with torch.set_grad_enabled("grad_norm" in vectors):
        out = network(frames)
    result = out.detach()
    pairs = [
        ("out_frame_mean", result.double().mean((2, 3, 4))),
        ("out_frame_std", result.double().std((2, 3, 4), correction=0)),
    ]
    if "out" in vectors:
        pairs += [("out", result)]
    else:
        row, column = result.shape[-2] // 2 - 16, result.shape[-1] // 2 - 16
        pairs += [
            ("out_stride3", result[..., ::3, ::3]),
            ("out_crop", result[..., row : row + 32, column : column + 32]),
        ]
        assert list(result.shape) == vectors["out_shape"].tolist()
    for name, value in pairs:
        difference = float(np.abs(value.numpy() - vectors[name]).max())
        record_property(name, difference)
        assert difference <= reference.atol, name

    if "grad_norm" in vectors:
        out.square().mean().backward()
        gradients = {name: parameter.grad for name, parameter in network.named_parameters() if parameter.requires_grad}
        assert set(gradients) == set(vectors["grad_names"].tolist())
        worst = 0.0
        for name, expected in zip(vectors["grad_names"].tolist(), vectors["grad_norm"], strict=True):
            gradient = gradients[name]
            assert gradient is not None, name
            relative = abs(float(gradient.double().norm()) - expected) / expected
            worst = max(worst, relative)
            assert relative <= 2e-3, (name, relative)
        record_property("grad_norm", float(worst))
