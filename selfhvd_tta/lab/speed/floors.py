"""What the hardware allows: measured rates of the device, and the least work that a task needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from selfhvd_tta.lab.speed.timing import measure


@dataclass(frozen=True)
class Rates:
    """What this device was seen to do.

    Attributes:
        matmul: operations per second of a large square product, by dtype name; a multiply-add counts as two.
        convolution: the same for a 3x3 convolution, 64 channels to 64, channels last.
        copy: bytes per second of a large copy, read and written bytes counted.
    """

    matmul: dict[str, float]
    convolution: dict[str, float]
    copy: float

    def operations(self, dtype: str) -> float:
        """The better of the two compute rates."""
        return max(self.matmul[dtype], self.convolution[dtype])


@dataclass(frozen=True)
class Work:
    """The least that a task needs: operations of its networks, bytes that have to be read or written once."""

    operations: float = 0.0
    bytes: float = 0.0

    def floor(self, rates: Rates, dtype: str) -> float:
        """Seconds below which this device cannot get."""
        return max(self.operations / rates.operations(dtype), self.bytes / rates.copy)


def measure_rates(device: torch.device, dtypes: tuple[torch.dtype, ...], repeats: int = 5, size: int = 0) -> Rates:
    """Measure the device.

    Args:
        device: which.
        dtypes: compute types.
        repeats: timed rounds; the best one counts, for a rate is a limit.
        size: side of the product; 0: 1024 on a CPU, 8192 on a GPU.
    """
    gpu = device.type != "cpu"
    side = size or (8192 if gpu else 1024)
    matmul, convolution = {}, {}
    for dtype in dtypes:
        name = str(dtype).removeprefix("torch.")
        a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        batch, edge = (16, side // 16) if gpu else (2, side // 8)
        x = torch.randn(batch, 64, edge, edge, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
        w = torch.randn(64, 64, 3, 3, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)

        def product(a: torch.Tensor = a, b: torch.Tensor = b) -> torch.Tensor:
            return a @ b

        def convolve(x: torch.Tensor = x, w: torch.Tensor = w) -> torch.Tensor:
            return F.conv2d(x, w, padding=1)

        with torch.no_grad():
            times = measure({"matmul": product, "convolution": convolve}, device, repeats, 2)
        matmul[name] = 2.0 * side**3 / times["matmul"].best
        convolution[name] = 2.0 * 9 * 64 * 64 * batch * edge**2 / times["convolution"].best
    source = torch.zeros((2**30 if gpu else 2**26) if not size else 2**20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copied = measure({"copy": lambda: target.copy_(source)}, device, repeats, 2)["copy"].best
    return Rates(matmul, convolution, 2 * source.numel() / copied)


def count_operations(call: Callable[[], object]) -> float:
    """Operations of the convolutions and matrix products in one call, backward passes included."""
    counter = FlopCounterMode(display=False)
    with counter:
        call()
    return float(counter.get_total_flops())
