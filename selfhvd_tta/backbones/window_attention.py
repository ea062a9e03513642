"""Shifted-window self-attention over space and time, and its residual groups, as RVRT uses them.

Liu et al., "Video Swin Transformer", CVPR 2022. Everything here works on tokens of shape (B, T, H, W, C).
"""

from __future__ import annotations

from functools import lru_cache
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Extent = tuple[int, int, int]


class MLP(nn.Module):
    """Two linear layers with a GELU between them, over the last dimension."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


def _split(x: Tensor, window: Extent) -> Tensor:
    """(B, T, H, W, C), multiples of the window, to (B, windows, tokens per window, C)."""
    batch, *size, channels = x.shape
    counts = [s // w for s, w in zip(size, window, strict=True)]
    x = x.view(batch, counts[0], window[0], counts[1], window[1], counts[2], window[2], channels)
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(batch, -1, window[0] * window[1] * window[2], channels)


def _join(x: Tensor, window: Extent, size: Extent) -> Tensor:
    """The inverse of :func:`_split`."""
    counts = [s // w for s, w in zip(size, window, strict=True)]
    x = x.view(x.shape[0], *counts, *window, x.shape[-1])
    return x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(x.shape[0], *size, x.shape[-1])


@lru_cache(maxsize=8)
def _shift_mask(size: Extent, window: Extent, shift: Extent, device: torch.device) -> Tensor:
    """(windows, 1, tokens, tokens): -inf between tokens that only the cyclic shift made neighbours, else 0."""
    region = torch.zeros(1, 1, 1, dtype=torch.long, device=device)
    for axis in range(3):
        position = torch.arange(size[axis], device=device)
        part = (position >= size[axis] - window[axis]).long() + (position >= size[axis] - shift[axis])
        part = part if shift[axis] else torch.zeros_like(part)
        region = region * 3 + part.view([-1 if i == axis else 1 for i in range(3)])
    regions = _split(region[None, ..., None], window)[0, :, None, :, 0]
    apart = regions[..., :, None] != regions[..., None, :]
    return torch.zeros(apart.shape, device=device).masked_fill(apart, -torch.inf)


class WindowAttention(nn.Module):
    """Multi-head self-attention within windows, with a learnt bias per relative position."""

    relative_position_index: Tensor

    def __init__(self, channels: int, window: Extent, heads: int) -> None:
        super().__init__()
        self.window = window
        self.heads = heads
        spans = [2 * side - 1 for side in window]
        self.relative_position_bias_table = nn.Parameter(torch.empty(spans[0] * spans[1] * spans[2], heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        places = torch.cartesian_prod(*(torch.arange(side) for side in window)).view(-1, 3)
        steps = places[:, None] - places[None] + torch.tensor(window) - 1
        index = (steps[..., 0] * spans[1] + steps[..., 1]) * spans[2] + steps[..., 2]
        self.register_buffer("relative_position_index", index)
        self.qkv_self = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Attend.

        Args:
            tokens: (B, windows, tokens, C).
            mask: (windows, 1, tokens, tokens), added to the logits, or None.

        Returns:
            The same shape as ``tokens``.
        """
        count = tokens.shape[2]
        query, key, value = self.qkv_self(tokens).unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
        bias = self.relative_position_bias_table[self.relative_position_index[:count, :count].flatten()]
        bias = bias.view(count, count, self.heads).permute(2, 0, 1)
        bias = (bias if mask is None else bias + mask).to(query.dtype)
        if bias.ndim == 3:
            bias = bias[None]
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias[None])
        return self.proj(attended.transpose(2, 3).flatten(-2))


class TransformerBlock(nn.Module):
    """Window attention, then an MLP; each behind a layer normalisation and with a residual."""

    def __init__(self, channels: int, window: Extent, heads: int, shifted: bool, expansion: int) -> None:
        super().__init__()
        self.window = window
        self.shifted = shifted
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, window, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = MLP(channels, expansion * channels)

    def _attend(self, x: Tensor) -> Tensor:
        size = cast(Extent, tuple(x.shape[1:4]))
        window = cast(Extent, tuple(min(w, s) for w, s in zip(self.window, size, strict=True)))
        # An axis that fits into one window is not shifted.
        shift = cast(
            Extent, tuple(w // 2 if self.shifted and s > w else 0 for s, w in zip(size, self.window, strict=True))
        )
        moved = any(shift)
        extra = [-s % w for s, w in zip(size, window, strict=True)]
        x = F.pad(self.norm1(x), (0, 0, 0, extra[2], 0, extra[1], 0, extra[0]))
        padded = cast(Extent, tuple(x.shape[1:4]))
        mask = _shift_mask(padded, window, shift, x.device) if moved else None
        if moved:
            x = x.roll([-s for s in shift], (1, 2, 3))
        x = _join(self.attn(_split(x, window), mask), window, padded)
        if moved:
            x = x.roll(shift, (1, 2, 3))
        return x[:, : size[0], : size[1], : size[2]]

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._attend(x)
        return x + self.mlp(self.norm2(x))


class ResidualGroup(nn.Module):
    """Transformer blocks, every second one with shifted windows, and a linear layer; residual."""

    def __init__(self, channels: int, window: Extent, heads: int, depth: int, expansion: int = 2) -> None:
        super().__init__()
        self.residual_group = nn.Module()
        self.residual_group.blocks = nn.ModuleList(
            TransformerBlock(channels, window, heads, bool(i % 2), expansion) for i in range(depth)
        )
        self.linear = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        inner = x
        for block in cast(nn.ModuleList, self.residual_group.blocks):
            inner = block(inner)
        return x + self.linear(inner)
