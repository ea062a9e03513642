"""The weights of the reference runs: pseudo-random, each tensor a function of its name, so they pin the names too."""

from __future__ import annotations

import math
import zlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

# Constants of a network (not floating, ImageNet statistics, Haar bank) stay as they are.
CONSTANTS = {"mean", "std", "relative_position_index", "haar_weights"}


def reference_value(name: str, shape: tuple[int, ...], gain: float, seed: int = 0) -> NDArray[np.float32]:
    """The value of one tensor."""
    leaf = name.rsplit(".", 1)[-1]
    z = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()) + seed)).standard_normal(shape)
    if (leaf in {"beta", "gamma"} and len(shape) == 4) or name.endswith("tokernel.bias"):
        z = 0.30 * z
    elif len(shape) >= 2:
        z = z * (gain / math.sqrt(math.prod(shape[1:])))
    elif leaf == "weight":
        z = 1 + 0.05 * z
    else:
        z = 0.02 * z
    return z.astype(np.float32)


def fill_with_reference_weights(network: nn.Module, gain: float) -> None:
    """Set every tensor of the network's state but the constants."""
    network.load_state_dict(
        {
            name: tensor
            if name.rsplit(".", 1)[-1] in CONSTANTS
            else torch.from_numpy(reference_value(name, tuple(tensor.shape), gain))
            for name, tensor in network.state_dict().items()
        }
    )
