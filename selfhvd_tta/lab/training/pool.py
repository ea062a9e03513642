"""Training clips by number: each is decided by (seed, number), made once, and kept on disk while it is in use.

Making a clip costs about as much as a training step, so a pool of clips is used many times over under random crops,
flips and rotations, and renewed slowly. Which clips are in the pool follows from the step alone, so a resumed run
sees the data that the uninterrupted one would have seen, and several processes share out the clips of a step between
them. With workers the clips of the next steps are made by other processes, and the training never waits for a
simulation or a codec once it is under way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from selfhvd_tta.lab.training.sources import ClipSource
from selfhvd_tta.lab.training.store import ClipStore, make_in_worker, start_workers, workers_may_die

VERSION = 2  # of what a number and a seed mean; to be raised when that changes
AHEAD = 64  # steps that workers are ahead of the training
KEPT_BEHIND = 2  # clips that left the pool and are kept a little: another process may be a step behind


class Maker(ClipStore):
    """Makes clips by number and keeps them in a folder. Can be sent to another process.

    Args:
        source: of the clips.
        folder: where they are kept; created.
        seed: of everything.
        device: where they are simulated.
        pace: factor on the speed of the shake by number of the clip.
    """

    def __init__(
        self, source: ClipSource, folder: Path, seed: int, device: torch.device, pace: Callable[[int], float]
    ) -> None:
        super().__init__(folder)
        self.source, self.seed, self.device, self.pace = source, seed, device, pace
        # Clips of other data or of another size are other clips, whatever their number.
        self.mark = hashlib.sha256(f"{VERSION} {source.identity}".encode()).hexdigest()[:8]

    def path(self, number: int) -> Path:
        """Where the clip of that number is kept."""
        return self.folder / f"{self.mark}-{self.seed}-{round(1000 * self.pace(number)):04d}-{number:06d}.npy"

    def write(self, number: int, file: BinaryIO) -> None:
        """Make the clip of that number: (2, T, H, W, 3) uint8, blurry and sharp."""
        np.save(file, self.source.make(np.random.default_rng((self.seed, 0, number)), self.pace(number), self.device))


class ClipPool:
    """The clips that a training run draws from. A context manager, since it may own processes.

    Args:
        maker: of the clips.
        capacity: clips in use at a time.
        renewal: steps after which the oldest clip gives way to a new one; 0: never.
        keep_on: device to hold the clips in use on; None: they are read from disk each time.
        workers: processes that make clips ahead.
        share: (which, of how many) training processes; each gets its part of every step's clips.
    """

    def __init__(
        self,
        maker: Maker,
        *,
        capacity: int,
        renewal: int,
        keep_on: torch.device | None = None,
        workers: int = 0,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.maker, self.capacity, self.renewal = maker, capacity, renewal
        self.keep_on, self.share = keep_on, share
        self.kept: dict[int, Tensor] = {}
        self.pending: dict[int, Future[None]] = {}
        self.looked_ahead = 0
        self.executor: ProcessPoolExecutor | None = None
        if workers:
            self.executor = start_workers(maker, workers)

    def __enter__(self) -> ClipPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.executor is not None:
            self.executor.shutdown(cancel_futures=True)

    def numbers(self, step: int, count: int) -> list[int]:
        """Which clips this process gets at a step, ``count`` of them."""
        which, of = self.share
        drawn = np.random.default_rng((self.maker.seed, 1, step)).integers(self.capacity, size=count * of)
        return [self._oldest(step) + int(n) for n in drawn[which * count : (which + 1) * count]]

    def batch(self, step: int, count: int, crop: int, length: int) -> tuple[Tensor, Tensor]:
        """Blurry and sharp clips (count, length, 3, crop, crop) in [0, 1] for one step.

        Raises:
            DeviceError: a worker was killed.
        """
        with workers_may_die():
            return self._batch(step, count, crop, length)

    def _batch(self, step: int, count: int, crop: int, length: int) -> tuple[Tensor, Tensor]:
        self._look_ahead(step, count)
        self._forget(self._oldest(step) - 1 - KEPT_BEHIND)
        first = self.share[0] * count
        pairs = []
        for place, number in enumerate(self.numbers(step, count), first):
            generator = np.random.default_rng((self.maker.seed, 3, step, place))
            pairs.append(augment(self.clip(number), crop, length, generator))
        stacked = torch.stack(pairs).permute(1, 0, 2, 5, 3, 4).float() / 255
        return stacked[0], stacked[1]

    def clip(self, number: int) -> Tensor:
        """Clip of that number, (2, T, H, W, 3) uint8, made if it is not stored yet."""
        if number in self.kept:
            return self.kept[number]
        future = self.pending.pop(number, None)
        if future is not None:
            future.result()
        while True:
            self.maker.make(number)
            with suppress(FileNotFoundError):  # another process may have removed it in between
                pair = torch.from_numpy(np.load(self.maker.path(number), mmap_mode="c"))
                break
        if self.keep_on is not None:
            pair = self.kept[number] = pair.to(self.keep_on, copy=True)
        return pair

    def _oldest(self, step: int) -> int:
        return step // self.renewal if self.renewal else 0

    def _look_ahead(self, step: int, count: int) -> None:
        if self.executor is None:
            return
        for later in range(max(step, self.looked_ahead), step + AHEAD):
            for number in self.numbers(later, count):
                if number not in self.pending and number not in self.kept and not self.maker.path(number).exists():
                    self.pending[number] = self.executor.submit(make_in_worker, number)
        self.looked_ahead = step + AHEAD

    def _forget(self, number: int) -> None:
        if number < 0:
            return
        self.kept.pop(number, None)
        self.pending.pop(number, None)
        if self.share[0] == 0:
            self.maker.path(number).unlink(missing_ok=True)


def augment(pair: Tensor, crop: int, length: int, generator: np.random.Generator) -> Tensor:
    """A random part of a clip, (2, length, crop, crop, 3), mirrored, turned, reversed or with its colours swapped."""
    _, frames, height, width, _ = pair.shape
    t = int(generator.integers(frames - length + 1))
    y, x = int(generator.integers(height - crop + 1)), int(generator.integers(width - crop + 1))
    part = pair[:, t : t + length, y : y + crop, x : x + crop]
    flips: Iterable[tuple[float, int]] = zip(generator.random(2), (1, 3), strict=True)
    part = part.flip([axis for draw, axis in flips if draw < 0.5])
    part = part.rot90(int(generator.integers(4)), (2, 3))
    if generator.random() < 0.3:
        part = part[..., generator.permutation(3).tolist()]
    return part.contiguous()
