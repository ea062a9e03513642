"""A frame in overlapping tiles, for frames that do not fit into memory as a whole."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

OVERLAP = 64
SMALLEST = 128
# Tiles start on the pixel grid of networks that work at a fraction of the resolution.
GRID = 32


@dataclass(frozen=True)
class Tile:
    """Rows ``top..bottom-1`` and columns ``left..right-1`` of a frame."""

    top: int
    bottom: int
    left: int
    right: int

    def crop(self, frames: Tensor) -> Tensor:
        """The tile of (..., H, W)."""
        return frames[..., self.top : self.bottom, self.left : self.right]


def cover(length: int, side: int, overlap: int = OVERLAP) -> list[tuple[int, int]]:
    """Intervals of at most ``side`` pixels that cover ``0..length-1``.

    Neighbours overlap by ``overlap`` or more; all start at multiples of :data:`GRID`.

    Raises:
        ValueError: the side is not larger than the overlap and the grid together.
    """
    if length <= side:
        return [(0, length)]
    step = (side - overlap) // GRID * GRID
    if step <= 0:
        raise ValueError(f"tiles of {side} pixels cannot overlap by {overlap}")
    starts = list(range(0, length - overlap, step))
    return [(start, min(start + side, length)) for start in starts]


def tiles_of(height: int, width: int, side: int, overlap: int = OVERLAP) -> list[Tile]:
    """Tiles of a frame, row by row."""
    rows, columns = cover(height, side, overlap), cover(width, side, overlap)
    return [Tile(top, bottom, left, right) for top, bottom in rows for left, right in columns]


def feather(tile: Tile, height: int, width: int, overlap: int = OVERLAP) -> Tensor:
    """Weight of each of a tile's pixels, (h, w), above 0 and at most 1.

    Towards another tile it falls linearly over the middle half of the overlap: the outer quarter, where the network saw
    the least around the pixel, hardly counts.
    """
    rows = _ramp(tile.top, tile.bottom, height, overlap)
    columns = _ramp(tile.left, tile.right, width, overlap)
    return rows[:, None] * columns[None, :]


def _ramp(start: int, stop: int, length: int, overlap: int) -> Tensor:
    place = torch.arange(stop - start) + 0.5
    margin, span = overlap / 4, overlap / 2
    weight = torch.ones(stop - start)
    if start > 0:
        weight = torch.minimum(weight, (place - margin) / span)
    if stop < length:
        weight = torch.minimum(weight, (stop - start - place - margin) / span)
    return weight.clamp(1e-4, 1)


def join_tiles(parts: Iterable[tuple[Tile, Tensor]], height: int, width: int, overlap: int = OVERLAP) -> Tensor:
    """Frames of which the tiles are given one after the other, each (..., h, w)."""
    total: Tensor | None = None
    weights = torch.zeros(height, width)
    for tile, part in parts:
        weight = feather(tile, height, width, overlap)
        if total is None:
            total = part.new_zeros((*part.shape[:-2], height, width), dtype=torch.float32)
        tile.crop(total).add_(part.float() * weight.to(part.device))
        tile.crop(weights).add_(weight)
    assert total is not None
    return total.div_(weights.to(total.device))
