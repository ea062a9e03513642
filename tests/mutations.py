"""Seeded damage to files."""

from __future__ import annotations

import random


def mutate(data: bytes, seed: int) -> bytes:
    """A damaged copy: bits flipped, a run zeroed, a part cut out or doubled, the end cut off, or several of these."""
    rng = random.Random(seed)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        start = rng.randrange(len(data))
        length = min(len(data) - start, rng.choice((1, 2, 8, 64, 512, 4096)))
        kind = rng.choice(("flip", "flip", "noise", "zero", "cut", "double", "end"))
        if kind == "flip":
            bit = bytes([data[start] ^ 1 << rng.randrange(8)])
            data = data[:start] + bit + data[start + 1 :]
        elif kind == "noise":
            data = data[:start] + rng.randbytes(length) + data[start + length :]
        elif kind == "zero":
            data = data[:start] + bytes(length) + data[start + length :]
        elif kind == "cut":
            data = data[:start] + data[start + length :]
        elif kind == "double":
            data = data[: start + length] + data[start:]
        else:
            data = data[: max(1, start)]
        if len(data) < 2:
            return data
    return data
