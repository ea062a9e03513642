"""What a run does with less when memory runs out while sharp frames are aligned and merged."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from selfhvd_tta.errors import DeviceError, is_out_of_memory

CPU = torch.device("cpu")
Result = TypeVar("Result")
Module = TypeVar("Module", bound=nn.Module)


class Economy:
    """Comes down one step whenever memory runs out; labels, forecast and blending of a run share it.

    Attributes:
        one_by_one: pairs are aligned one after the other.
        half_size: flow is found on frames of half the size.
        on_cpu: alignment and merging take place on the CPU.
        warn: told in one line what changes.
    """

    def __init__(self) -> None:
        self.one_by_one = False
        self.half_size = False
        self.on_cpu = False
        self.warn: Callable[[str], None] = lambda text: None
        self._copies: dict[int, nn.Module] = {}

    def run(self, work: Callable[[], Result], doing: str, device: torch.device) -> Result:
        """The result of ``work``, which is called again with less after each time that memory runs out.

        Args:
            work: reads the attributes, may be repeated.
            doing: what it does, completes "memory ran out while ...".
            device: on which it does that as long as ``on_cpu`` is not set.

        Raises:
            DeviceError: memory does not even suffice for the least.
        """
        while True:
            try:
                return work()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                change = self._descend(device)
                if change is None:
                    raise DeviceError(
                        f"not enough memory on {device} while {doing}",
                        "Use fewer --teachers, close other programs, or scale the video down first.",
                    ) from error
            # Not before: the traceback of the error holds the tensors of what has failed.
            release(device)
            self.warn(f"memory ran out while {doing}: continuing with {change}")

    def _descend(self, device: torch.device) -> str | None:
        if not self.one_by_one:
            self.one_by_one = True
            return "one pair of frames at a time"
        if not self.half_size:
            self.half_size = True
            return "flow at half the size"
        if not self.on_cpu and device.type != "cpu":
            self.on_cpu = True
            return "alignment on the CPU, which is slower"
        return None

    def placed(self, tensor: Tensor) -> Tensor:
        """The tensor where alignment takes place."""
        return tensor.to(CPU) if self.on_cpu else tensor

    def module(self, module: Module) -> Module:
        """The module where alignment takes place; a copy, made once, if it lies elsewhere."""
        if not self.on_cpu:
            return module
        if id(module) not in self._copies:
            self._copies[id(module)] = copy.deepcopy(module).to(CPU)
        return cast(Module, self._copies[id(module)])


def release(device: torch.device) -> None:
    """Give back what is kept for later allocations."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
