"""Layers that several networks share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint


def recompute(function: Callable[..., Any], *inputs: Any) -> Any:
    """``function(*inputs)`` whose inner activations are recomputed in the backward pass instead of being kept.

    Without gradients it is a plain call. No layer of ours draws random numbers, so their state is not saved.
    """
    if not torch.is_grad_enabled():
        return function(*inputs)
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)
