"""Windows and tiles against the whole clip at once, for every backbone: is a seam to be seen?

    python benchmarks/seams.py

Backbones whose weights are on this machine run with them, the others as small networks of the same structure with
random weights, whose memory is not that of trained ones. Differences are of outputs in [0, 1], times 255.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from selfhvd_tta import backbones  # noqa: E402
from selfhvd_tta.backbones import Backbone  # noqa: E402
from selfhvd_tta.backbones.wrapper import Network  # noqa: E402
from selfhvd_tta.errors import WeightsError  # noqa: E402
from selfhvd_tta.events import ignore  # noqa: E402
from selfhvd_tta.method.restoration import FADE, Compute, Restorer  # noqa: E402
from selfhvd_tta.run import networks as models  # noqa: E402
from selfhvd_tta.settings import RuntimeSettings, Settings  # noqa: E402

CPU = Compute(torch.device("cpu"))


def clip(count: int, height: int, width: int) -> torch.Tensor:
    """A moving texture: (N, 3, H, W) in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(1, 3, height // 4 + 8, width // 4 + 2 * count, generator=generator)
    picture = torch.nn.functional.interpolate(noise, scale_factor=4, mode="bicubic").clamp(0, 1)[0]
    return torch.stack([picture[:, :height, 2 * i : 2 * i + width] for i in range(count)])


def network(backbone: Backbone) -> tuple[Network, str]:
    """With its own weights if they are here, else a small one with random weights."""
    for variant in backbone.variants:
        settings = Settings(backbone=f"{backbone.id}:{variant.name}", runtime=RuntimeSettings(offline=True))
        try:
            return models.load_backbone(settings, CPU.device, ignore), f"{variant.name}, its weights"
        except WeightsError:
            continue
    from tests.test_backbones import make

    return make(backbone), "small, random weights"


@torch.no_grad()
def measure(backbone: Backbone) -> tuple[str, float, float, float, int]:
    """What it is; largest difference by windows; largest and mean difference by tiles; and the window."""
    net, what = network(backbone)
    window = 2 * (2 * backbone.reach + FADE) if backbone.reach else 5
    frames = clip(window + 12, 64, 72)
    whole = torch.stack(list(Restorer(net, backbone, CPU, len(frames) + 1).restore(iter(frames))))
    parts = torch.stack(list(Restorer(net, backbone, CPU, window).restore(iter(frames))))
    windows = 255 * float((whole - parts).abs().max())
    frames = clip(4, 192, 288)
    whole = torch.stack(list(Restorer(net, backbone, CPU, 4).restore(iter(frames))))
    parts = torch.stack(list(Restorer(net, backbone, CPU, 4, tile=160).restore(iter(frames))))
    difference = 255 * (whole - parts).abs()
    return what, windows, float(difference.max()), float(difference.mean()), window


def main() -> None:
    print("| backbone | weights | window | by windows, max | by tiles of 160, max | by tiles, mean |")
    print("| --- | --- | --- | --- | --- | --- |")
    for backbone in backbones.discover().values():
        what, windows, largest, mean, window = measure(backbone)
        print(f"| `{backbone.id}` | {what} | {window} | {windows:.2f} | {largest:.2f} | {mean:.3f} |", flush=True)


if __name__ == "__main__":
    main()
