"""One training in several processes, one per GPU, as ``torchrun`` starts them.

Every process draws its own part of each step's clips; gradients are averaged by ``DistributedDataParallel``, so that
all processes hold the same weights and the result is that of one process with a batch as large as all of theirs.
Only the first one measures, logs and saves.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

# The others wait while the first one simulates the validation clips or measures on them.
PATIENCE = timedelta(minutes=30)


@dataclass(frozen=True)
class Ranks:
    """Which process this is.

    Attributes:
        rank: among all, from 0.
        count: of processes.
        local: among those on this machine.
    """

    rank: int = 0
    count: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this one measures, logs and saves."""
        return self.rank == 0

    def device(self, name: str) -> torch.device:
        """The device of this process: with several on CUDA, each has its own."""
        device = torch.device(name)
        if self.count > 1 and device.type == "cuda":
            return torch.device("cuda", self.local)
        return device


def ranks_of_environment() -> Ranks:
    """What ``torchrun`` says in the environment; without it, the only process."""
    rank, count, local = (
        int(os.environ.get(name, kind)) for name, kind in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))
    )
    return Ranks(rank, count, local)


@contextmanager
def process_group(ranks: Ranks, device: torch.device) -> Iterator[None]:
    """Join the other processes, if there are any."""
    if ranks.count == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def share_gradients(network: nn.Module, ranks: Ranks, device: torch.device) -> nn.Module:
    """The network itself, or one whose backward pass averages the gradients over all processes."""
    if ranks.count == 1:
        return network
    # Convolutions of one by one give gradients whose strides differ in name only; torch warns of it once per process.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    # A static graph also allows for parameters that no output depends on.
    return DistributedDataParallel(
        network, device_ids=[device.index] if device.type == "cuda" else None, static_graph=True
    )


def agreed(value: float, ranks: Ranks, device: torch.device) -> float:
    """The first process's value: clocks differ, decisions must not."""
    if ranks.count == 1:
        return value
    held = torch.tensor([value], dtype=torch.float64, device=device)
    dist.broadcast(held, 0)
    return float(held)


def mean_over_ranks(value: Tensor, ranks: Ranks) -> Tensor:
    """Mean of a scalar over all processes."""
    if ranks.count == 1:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / ranks.count
