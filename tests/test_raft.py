"""RAFT: the authors' key names, and its accuracy with their weights."""

from __future__ import annotations

from itertools import product

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from selfhvd_tta.flows import raft
from tests.conftest import shared_path
from tests.pictures import inner, tensor, texture


def official_names_of_raft_large() -> set[str]:
    """Key names of the authors' ``raft-things.pth``, written down from the layout of their modules."""
    leaves = ("weight", "bias")
    norm_leaves = (*leaves, "running_mean", "running_var", "num_batches_tracked")
    names: set[str] = set()
    for encoder in ("fnet", "cnet"):
        norms = norm_leaves if encoder == "cnet" else ()  # fnet's instance norms have no parameters
        names |= {f"{encoder}.{part}.{leaf}" for part, leaf in product(("conv1", "conv2"), leaves)}
        names |= {f"{encoder}.norm1.{leaf}" for leaf in norms}
        for layer, block, index in product((1, 2, 3), (0, 1), (1, 2)):
            names |= {f"{encoder}.layer{layer}.{block}.conv{index}.{leaf}" for leaf in leaves}
            names |= {f"{encoder}.layer{layer}.{block}.norm{index}.{leaf}" for leaf in norms}
        for layer in (2, 3):
            names |= {f"{encoder}.layer{layer}.0.downsample.0.{leaf}" for leaf in leaves}
            for part in ("norm3", "downsample.1"):
                names |= {f"{encoder}.layer{layer}.0.{part}.{leaf}" for leaf in norms}
    parts = [f"encoder.{part}" for part in ("convc1", "convc2", "convf1", "convf2", "conv")]
    parts += [f"gru.conv{gate}{step}" for gate, step in product("zrq", (1, 2))]
    parts += ["flow_head.conv1", "flow_head.conv2", "mask.0", "mask.2"]
    return names | {f"update_block.{part}.{leaf}" for part, leaf in product(parts, leaves)}


@pytest.mark.parametrize("prefix", ["", "module."])
def test_every_official_name_of_raft_large_has_its_place(prefix: str) -> None:
    estimator = raft.RAFT("large")
    mapped = [raft.official_to_torchvision(prefix + name) for name in official_names_of_raft_large()]
    kept = [name for name in mapped if name is not None]
    assert len(kept) == len(set(kept))
    assert set(kept) == set(estimator.network.state_dict())
    # 2 layers x 5 tensors of cnet's downsampling norms are listed twice in the authors' file.
    assert len(mapped) - len(kept) == 10


def test_official_weights_land_where_they_belong() -> None:
    tensors = {
        f"module.{name}": tensor for name, tensor in load_file(shared_path("weights/raft-small.safetensors")).items()
    }
    estimator = raft.RAFT("small")
    raft.load(estimator, tensors)
    state = estimator.network.state_dict()
    assert torch.equal(
        state["context_encoder.layer2.0.convnormrelu2.0.weight"], tensors["module.cnet.layer2.0.conv2.weight"]
    )
    assert torch.equal(
        state["update_block.recurrent_block.convgru1.convq.bias"], tensors["module.update_block.gru.convq.bias"]
    )


def test_torchvision_names_load_too_and_both_strictly() -> None:
    torch.manual_seed(1)
    one, other = raft.RAFT("small"), raft.RAFT("small")
    state = one.network.state_dict()
    raft.load(other, state)
    assert all(torch.equal(state[name], value) for name, value in other.network.state_dict().items())
    short = dict(list(state.items())[:-1])
    with pytest.raises(RuntimeError, match="Missing key"):
        raft.load(other, short)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        raft.load(other, state | {"feature_encoder.surplus": torch.zeros(1)})


@pytest.fixture(scope="module")
def trained() -> raft.RAFT:
    estimator = raft.RAFT("small")
    raft.load(estimator, load_file(shared_path("weights/raft-small.safetensors")))
    return estimator.eval()


def smooth_warp(height: int, width: int, length: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Source, target and the true flow: about ``length`` px right and down, varying slowly over the frame."""
    target = texture(height, width)
    ys, xs = np.mgrid[:height, :width].astype(np.float32)
    flow = np.stack([0.8 * length + np.sin(ys / 25), 0.6 * length + np.cos(xs / 30)], -1).astype(np.float32)
    source = cv2.remap(target, xs + flow[..., 0], ys + flow[..., 1], cv2.INTER_CUBIC)
    return source, target, flow


def test_end_point_error(trained: raft.RAFT) -> None:
    source, target, truth = smooth_warp(128, 160, 8)
    flow = trained(tensor(source), tensor(target)).flow
    assert inner((flow - tensor(truth)).norm(dim=1), 16).mean() < 0.5


def test_scaled_down_estimation_gives_flow_in_pixels_of_the_frame(trained: raft.RAFT) -> None:
    source, target, truth = smooth_warp(190, 255, 8)
    trained.max_pixels = 128 * 171
    try:
        flow = trained(tensor(source), tensor(target)).flow
    finally:
        trained.max_pixels = 1280 * 720
    assert flow.shape[-2:] == (190, 255)
    assert inner((flow - tensor(truth)).norm(dim=1), 24).mean() < 1.0


def test_iterations_must_be_positive() -> None:
    with pytest.raises(ValueError, match="iterations"):
        raft.RAFT("small", iterations=0)
