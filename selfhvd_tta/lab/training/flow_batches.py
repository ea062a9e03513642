"""Training batches of pairs: both directions of each, cropped, mirrored, transposed, recoloured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from selfhvd_tta.flows.shake import round_trip
from selfhvd_tta.lab.training.flow_pairs import FlowPairs, PairPool


@dataclass(frozen=True)
class FlowBatch:
    """Pairs in one direction each: frames (B, 3, h, w) in [0, 1], flows (B, 2, h, w) and gap (B, 1, h, w) in pixels."""

    source: Tensor
    target: Tensor
    guess: Tensor
    gap: Tensor
    truth: Tensor
    visible: Tensor

    def to(self, device: torch.device) -> FlowBatch:
        return FlowBatch(**{name: tensor.to(device) for name, tensor in vars(self).items()})


def batch_of(pairs: FlowPairs, chosen: list[int]) -> FlowBatch:
    """Whole pairs, each in both directions: first all the ways there, then all the ways back."""
    frames = torch.from_numpy(pairs.frames[chosen]).float() / 255
    guess, truth = (torch.from_numpy(flows[chosen]).float() for flows in (pairs.guess, pairs.truth))
    visible = torch.from_numpy(pairs.visible[chosen]).float()[:, :, None]
    ways = torch.cat((guess[:, 0], guess[:, 1])), torch.cat((guess[:, 1], guess[:, 0]))
    return FlowBatch(
        source=torch.cat((frames[:, 0], frames[:, 1])),
        target=torch.cat((frames[:, 1], frames[:, 0])),
        guess=ways[0],
        gap=round_trip(*ways),
        truth=torch.cat((truth[:, 0], truth[:, 1])),
        visible=torch.cat((visible[:, 0], visible[:, 1])),
    )


def augmented(batch: FlowBatch, crop: int, generator: np.random.Generator) -> FlowBatch:
    """A random part of every pair, mirrored, transposed, its colours swapped, lighter or darker."""
    parts: dict[str, list[Tensor]] = {name: [] for name in vars(batch)}
    height, width = batch.source.shape[-2:]
    for index in range(len(batch.source)):
        y, x = int(generator.integers(height - crop + 1)), int(generator.integers(width - crop + 1))
        mirror_x, mirror_y, transpose = generator.random(3) < 0.5
        channels = torch.from_numpy(generator.permutation(3)) if generator.random() < 0.5 else torch.arange(3)
        power, gain = float(generator.uniform(0.8, 1.25)), float(generator.uniform(0.7, 1.1))
        for name, tensor in vars(batch).items():
            part = tensor[index, :, y : y + crop, x : x + crop]
            if name in ("source", "target"):
                part = (gain * part[channels] ** power).clamp(0, 1)
            flow = name in ("guess", "truth")
            if mirror_x:
                part = part.flip(-1) * (part.new_tensor((-1, 1)).view(2, 1, 1) if flow else 1)
            if mirror_y:
                part = part.flip(-2) * (part.new_tensor((1, -1)).view(2, 1, 1) if flow else 1)
            if transpose:
                part = part.transpose(-1, -2)
                part = part.flip(0) if flow else part
            parts[name].append(part)
    return FlowBatch(**{name: torch.stack(each) for name, each in parts.items()})


def training_batch(pool: PairPool, step: int, count: int, crop: int) -> FlowBatch:
    """What a step learns from, by its number: ``count`` pairs of two clips, on the CPU."""
    generator = np.random.default_rng((pool.seed, 4, step))
    halves = [count - count // 2, count // 2]
    batches = []
    for some in halves:
        if some:
            pairs = pool.of(int(generator.integers(pool.clips)))
            batches.append(batch_of(pairs, [int(k) for k in generator.integers(len(pairs), size=some)]))
    whole = FlowBatch(**{name: torch.cat([vars(batch)[name] for batch in batches]) for name in vars(batches[0])})
    return augmented(whole, crop, generator)
