"""What one network learns from when there are many videos: working sets, one after the other, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from selfhvd_tta.errors import UsageError
from selfhvd_tta.lab.evaluation.scanned import Scanned, merge
from selfhvd_tta.method.working_set import WorkingSet, restrict
from selfhvd_tta.run.equipment import Equipment
from selfhvd_tta.run.memory import bank_store, working_set_limit
from selfhvd_tta.settings import Settings

# Steps on one working set: making its labels has to be worth it.
LEAST_STEPS = 10
Segment = tuple[int, range]  # number of the video, its frames
Chunk = tuple[Segment, ...]


class Course:
    """All segments of all videos, in working sets that each fit into memory.

    Every pass shows every segment once, in another order. The frames of a working set have one size; videos of other
    sizes have working sets of their own. Each stage of the adaptation sees as many working sets as its steps allow.

    Args:
        videos: what to learn from.
        settings: all of them.
        gear: networks, and where they are.

    Attributes:
        steps: after which the next working set is taken; all steps where everything fits into one.

    Raises:
        UsageError: there is no video.
    """

    def __init__(self, videos: Sequence[Scanned], settings: Settings, gear: Equipment) -> None:
        if not videos:
            raise UsageError("no video was given to learn from", "Check the folder.")
        self.videos, self.settings, self.gear = videos, settings, gear
        self._passes: list[list[Chunk]] = [self._shuffled(0)]
        plan, sets = settings.adaptation, len(self._passes[0])
        # In both stages, where there are two.
        shortest = round(plan.iters * (min(plan.stage1, 1 - plan.stage1) or 1))
        self.steps = max(1, plan.iters) if sets == 1 else max(LEAST_STEPS, shortest // sets)
        self.sets = sets

    @property
    def seen(self) -> int:
        """Working sets of one pass that the steps reach."""
        return min(self.sets, -(-self.settings.adaptation.iters // self.steps))

    def working(self, turn: int) -> WorkingSet:
        """The working set number ``turn``, counted over all passes."""
        number = 0
        while turn >= len(self._passes[number]):
            turn -= len(self._passes[number])
            number += 1
            if number == len(self._passes):
                self._passes.append(self._shuffled(number))
        return self._load(self._passes[number][turn])

    def window(self, working: WorkingSet) -> int:
        """Frames of it that the network restores at once."""
        height, width = working.frames.shape[-2:]
        return self.gear.window(height, width, self.settings)

    def _shuffled(self, number: int) -> list[Chunk]:
        rng = np.random.default_rng([self.settings.runtime.seed, number])
        sizes: dict[tuple[int, int], list[int]] = {}
        for v, video in enumerate(self.videos):
            sizes.setdefault(video.frames.canvas, []).append(v)
        chunks: list[Chunk] = []
        for (height, width), members in sizes.items():
            limit = working_set_limit(height, width, self.settings.adaptation.working_set)
            found = [(v, part) for v in members for part in self._segments(v)]
            chosen: list[Segment] = []
            for place in rng.permutation(len(found)):
                if chosen and sum(len(part) for _, part in chosen) + len(found[place][1]) > limit:
                    chunks.append(_sorted(chosen))
                    chosen = []
                chosen.append(found[place])
            chunks.append(_sorted(chosen))
        return [chunks[place] for place in rng.permutation(len(chunks))]

    def _segments(self, number: int) -> list[range]:
        """Those with a blurry frame, as in the working set of one video; all of them if there is none."""
        clues, length = self.videos[number].clues, self.settings.clues.segment
        parts = [
            range(start, min(start + length, shot.stop))
            for shot in clues.shots
            for start in range(shot.start, shot.stop, length)
        ]
        return [part for part in parts if len(part) > 1 and any(clues.soft[i] for i in part)] or parts

    def _load(self, chunk: Chunk) -> WorkingSet:
        members = sorted({v for v, _ in chunk})
        numbers = [[i for owner, part in chunk if owner == v for i in part] for v in members]
        height, width = self.videos[members[0]].frames.canvas
        total = sum(map(len, numbers))
        stack = torch.empty((total, 3, height, width), dtype=torch.uint8)
        row = 0
        for v, wanted in zip(members, numbers, strict=True):
            for frame in self.videos[v].frames.on_canvas(wanted):
                stack[row] = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)
                row += 1
        clues, runs = merge([restrict(self.videos[v].clues, n) for v, n in zip(members, numbers, strict=True)])
        store = bank_store(height, width, total, self.gear.device)
        return WorkingSet(stack.to(store), tuple(n for part in numbers for n in part), clues, runs)


def _sorted(segments: list[Segment]) -> Chunk:
    return tuple(sorted(segments, key=lambda one: (one[0], one[1].start)))
