"""Activations of VGG (Simonyan and Zisserman, 2015), whose differences agree with how people see images.

The structure and its key names (``features.N.weight``) are torchvision's; the weights are read from the Hub in part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from selfhvd_tta.errors import UsageError, WeightsError
from selfhvd_tta.weights import check_state, load_part
from selfhvd_tta.weights.cache import OnProgress

Structure = Literal["vgg16", "vgg19"]

_CONVOLUTIONS: Mapping[Structure, tuple[int, ...]] = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
_CHANNELS = (64, 128, 256, 512, 512)
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


def layer_names(structure: Structure = "vgg19") -> tuple[str, ...]:
    """``conv1_1``, ``conv1_2``, ``conv2_1``, ...: block and place in it, from one."""
    return tuple(
        f"conv{block}_{place}"
        for block, count in enumerate(_CONVOLUTIONS[structure], 1)
        for place in range(1, count + 1)
    )


def check_layer(layer: str, structure: Structure = "vgg19") -> None:
    """Refuse a layer that the network does not have.

    Raises:
        UsageError: no such layer.
    """
    if layer not in layer_names(structure):
        raise UsageError(f"{structure} has no layer '{layer}'", f"Layers: {', '.join(layer_names(structure))}.")


class PerceptualFeatures(nn.Module):
    """VGG up to one convolution; gives that layer's activations before its ReLU. Frozen, without dropout or norms.

    Args:
        layer: name of the last convolution, ``conv1_1`` to ``conv5_4`` (VGG16: ``conv5_3``).
        structure: which network.

    Attributes:
        scale: the output is ``scale`` times smaller than the input in height and width (rounded down).

    Raises:
        UsageError: no such layer.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, layer: str = "conv3_4", structure: Structure = "vgg19") -> None:
        super().__init__()
        check_layer(layer, structure)
        self.layer, self.structure = layer, structure
        block, place = int(layer[4]), int(layer[6])
        self.scale = 2 ** (block - 1)
        modules: list[nn.Module] = []
        channels = 3
        for index, (count, width) in enumerate(zip(_CONVOLUTIONS[structure][:block], _CHANNELS, strict=False), 1):
            if index > 1:
                modules.append(nn.MaxPool2d(2))
            for _ in range(place if index == block else count):
                modules += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
                channels = width
        self.features = nn.Sequential(*modules[:-1])  # the last ReLU is left out
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    @property
    def tensor_names(self) -> tuple[str, ...]:
        """Key names of the weights that are needed, in the order of the network."""
        return tuple(self.state_dict())

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Load weights with torchvision's key names; those of later layers are ignored.

        Raises:
            WeightsError: some are missing or of another shape.
        """
        expected = self.state_dict()
        needed = {name: tensor.float() for name, tensor in tensors.items() if name in expected}
        check_state(expected, needed, f"Weights of {self.structure}")
        self.load_state_dict(needed)

    def forward(self, images: Tensor) -> Tensor:
        """Activations.

        Args:
            images: (B, 3, H, W) RGB in [0, 1], H and W at least ``scale``.

        Returns:
            (B, C, H // scale, W // scale), not rectified. Gradients flow to ``images`` only.
        """
        result: Tensor = self.features((images - self.mean) / self.std)
        return result


@dataclass(frozen=True)
class Unavailable:
    """Why there are no perceptual features, and what to do about it; one line each."""

    reason: str
    hint: str = ""


def load_perceptual(
    layer: str = "conv3_4", *, offline: bool, on_progress: OnProgress | None = None
) -> PerceptualFeatures | Unavailable:
    """VGG19 with ImageNet weights, of which only the layers in use are fetched (9 MB up to ``conv3_4``).

    Args:
        layer: name of the last convolution.
        offline: take the weights from a cache or go without.
        on_progress: called with bytes so far and in all while downloading.

    Raises:
        UsageError: no such layer.
    """
    network = PerceptualFeatures(layer)
    try:
        weights = load_part("vgg19", layer, network.tensor_names, offline=offline, on_progress=on_progress)
        network.load(weights.tensors)
    except WeightsError as error:
        return Unavailable(error.message, error.hint)
    return network
