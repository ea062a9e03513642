"""Small networks, clips and flows for tests of the method: the real classes, only little."""

from __future__ import annotations

import numpy as np
import torch

from selfhvd_tta import backbones
from selfhvd_tta.backbones import Backbone, Variant
from selfhvd_tta.backbones.wrapper import Network
from selfhvd_tta.events import Listener, ignore
from selfhvd_tta.flows import FlowEstimator, FlowField
from selfhvd_tta.method.adaptation import Adaptation
from selfhvd_tta.method.clues import laplacian_variance, select_clues
from selfhvd_tta.method.restoration import Compute
from selfhvd_tta.method.supervision import Inputs
from selfhvd_tta.method.working_set import WorkingSet, restrict
from selfhvd_tta.settings import ClueSettings, Settings


class Still(FlowEstimator):
    """Knows that nothing moves."""

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> FlowField:
        return FlowField(torch.zeros_like(source[:, :2]), torch.ones_like(source[:, :1]))


class Drift(torch.nn.Module):
    """Bidirectional: every output mixes its frame with neighbours up to ``radius`` frames away."""

    def __init__(self, radius: int = 2) -> None:
        super().__init__()
        self.kernel = torch.nn.Parameter(torch.linspace(1, 2, 2 * radius + 1))
        self.radius = radius

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        weights = self.kernel / self.kernel.sum()
        padded = torch.nn.functional.pad(
            frames.flatten(2).transpose(1, 2), (self.radius, self.radius), mode="replicate"
        )
        mixed = padded.unfold(2, 2 * self.radius + 1, 1) @ weights
        return mixed.transpose(1, 2).reshape(frames.shape)


DRIFT = Backbone(
    id="drift",
    summary="for tests",
    licence="MIT",
    paper="none",
    build=Drift,
    variants=(Variant("default"),),
    temporal="bidirectional",
    reach=2,
)


def adaptation_of(
    clip: np.ndarray,
    settings: Settings,
    listen: Listener = ignore,
    flow: FlowEstimator | None = None,
    features: torch.nn.Module | None = None,
    window: int = 40,
) -> Adaptation:
    """Adaptation of the small ESTRNN to a clip, on the CPU."""
    network, backbone = small_estrnn()
    cpu = Compute(torch.device("cpu"))
    return Adaptation(
        Inputs(network, backbone, working_set(clip), flow or Still(), features, cpu, window), settings, listen
    )


def drift() -> tuple[Network, Backbone]:
    """A bidirectional network whose windows can be checked exactly."""
    return Network(Drift(), DRIFT, DRIFT.variants[0]), DRIFT


def small_estrnn(seed: int = 0) -> tuple[Network, Backbone]:
    """A very small ESTRNN of the official structure, with a global residual."""
    backbone = backbones.discover()["estrnn"]
    torch.manual_seed(seed)
    variant = Variant("tiny", {"n_features": 2, "n_blocks": 1, "global_residual": True}, value_range=(-0.5, 0.5))
    return Network(backbone.build(**variant.config), backbone, variant).eval(), backbone


def blurry_clip(count: int = 8, height: int = 48, width: int = 56, seed: int = 0) -> np.ndarray:
    """(N, H, W, 3) uint8: a still texture, every third frame sharp, the others blurred."""
    import cv2

    rng = np.random.default_rng(seed)
    picture = cv2.resize(rng.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8), (width, height))
    picture = np.clip(picture.astype(int) + rng.integers(-20, 21, picture.shape), 0, 255).astype(np.uint8)
    return np.stack([picture if i % 3 == 1 else cv2.GaussianBlur(picture, (0, 0), 1.5) for i in range(count)])


def working_set(clip: np.ndarray) -> WorkingSet:
    """All frames of a clip, one shot."""
    import cv2

    values = np.array([laplacian_variance(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY)) for f in clip])
    clues = select_clues(values, [range(len(clip))], ClueSettings())
    rows, runs = restrict(clues, list(range(len(clip))))
    return WorkingSet(torch.from_numpy(clip).permute(0, 3, 1, 2).contiguous(), tuple(range(len(clip))), rows, runs)
