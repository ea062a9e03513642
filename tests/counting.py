"""What a computation asks of memory and of the host, counted operation by operation; no GPU is needed."""

from __future__ import annotations

import weakref
from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Operations whose result depends on values: a GPU has to be waited for.
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal", "is_nonzero", "linalg_inv_ex")


class Counting(TorchDispatchMode):
    """Counts while it is entered; works on real tensors and on fake ones (``FakeTensorMode`` around it).

    Attributes:
        operations: calls by name.
        waits: of them, those for which the host has to wait for a GPU: values asked for, and copies to host memory or
            from memory that is not pinned. Only operations on CUDA tensors count, real or fake.
        peak: most bytes that tensors made since entering held at the same time.
        live: bytes that they hold now.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.live = self.peak = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        before = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        for tensor in before:  # what came in from outside is not counted
            self._known.add(tensor.untyped_storage())
        name = func._schema.name.removeprefix("aten::")
        if name in WAITS and any(tensor.device.type == "cuda" for tensor in before):
            self.waits[name] += 1  # first: a fake tensor has no values to give
        result = func(*args, **kwargs)
        self.operations[name] += 1
        after = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        if self._copies(name, before, after):
            self.waits[name] += 1
        for tensor in after:
            self._keep(tensor.untyped_storage())
        return result

    @staticmethod
    def _copies(name: str, before: list[torch.Tensor], after: list[torch.Tensor]) -> bool:
        if name not in ("_to_copy", "copy_"):
            return False
        kinds = {tensor.device.type for tensor in (*before, *after)}
        if kinds != {"cpu", "cuda"}:
            return False
        source = before[-1] if name == "copy_" else before[0]
        return source.device.type == "cuda" or not source.is_pinned()

    def _keep(self, storage: Any) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self.live -= size
