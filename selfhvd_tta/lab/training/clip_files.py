"""What networks learn from simulated clips, made once per clip and kept on disk."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO, Generic, NamedTuple, TypeVar

import numpy as np
import torch

from selfhvd_tta.lab.datasets.photos import read_photo
from selfhvd_tta.lab.simulation.simulate import SimulatedClip, simulate_clip
from selfhvd_tta.lab.training.config import SimulatedClipsConfig
from selfhvd_tta.lab.training.dataset import flow_settings
from selfhvd_tta.lab.training.store import ClipStore, make_in_worker, start_workers, workers_may_die

Lesson = TypeVar("Lesson")
Pool = TypeVar("Pool", bound="ClipFiles[Any]")
# Added to the seed of a run for its held-out clips.
HELD_OUT_SEED = 1000


class ClipSize(NamedTuple):
    """Width and height of a clip in pixels, and its number of frames."""

    width: int
    height: int
    frames: int


class ClipFiles(ClipStore, Generic[Lesson]):
    """One file per clip, of arrays. Can be sent to another process.

    Args:
        photos: photographs to shake a camera at.
        folder: where files are kept; created.
        clips: how many clips there are.
        size: of every clip.
        seed: of everything.
        device: where clips are simulated; what is made of them is made on the CPU.
    """

    # Files made with something else than the usual begin with its name.
    mark: str = ""

    def __init__(
        self,
        photos: list[Path],
        folder: Path,
        *,
        clips: int,
        size: ClipSize,
        seed: int,
        device: torch.device,
    ) -> None:
        super().__init__(folder)
        self.photos, self.clips, self.size = photos, clips, size
        self.seed, self.device = seed, device

    @abstractmethod
    def lesson(self, clip: SimulatedClip, generator: np.random.Generator) -> Lesson | None:
        """A dataclass of arrays; None where the clip teaches nothing."""

    @abstractmethod
    def read(self, arrays: dict[str, np.ndarray]) -> Lesson:
        """The same, from its arrays."""

    def path(self, number: int) -> Path:
        """Where what that clip teaches is kept."""
        width, height, frames = self.size
        return self.folder / f"{self.mark}{self.seed}-{width}x{height}x{frames}-{number:06d}.npz"

    def write(self, number: int, file: BinaryIO) -> None:
        """Make the clip of that number; one that teaches nothing gives way to another."""
        made: Lesson | None = None
        attempt = 0
        while made is None:
            generator = np.random.default_rng((self.seed, 3, number, attempt))
            photo = read_photo(self.photos[int(generator.integers(len(self.photos)))])
            settings = flow_settings(generator, *self.size)
            clip = simulate_clip(photo, settings, seed=int(generator.integers(2**31)), device=self.device)
            made = self.lesson(clip, generator)
            attempt += 1
        np.savez(file, **vars(made))

    def of(self, number: int) -> Lesson:
        """What the clip of that number teaches."""
        with np.load(self.make(number)) as arrays:
            return self.read(dict(arrays))


def make_all(files: ClipFiles[Lesson], workers: int, tell: Callable[[int, int], None] | None) -> None:
    """Make the files of all clips that are not there yet; it takes CPU cores, whatever the device of the training.

    Args:
        files: of the clips.
        workers: processes; 1: this one.
        tell: called with the clips done and their total.

    Raises:
        DeviceError: a worker was killed.
    """

    def follow(made: Iterable[object]) -> None:
        for done, _ in enumerate(made, 1):
            if tell is not None:
                tell(done, files.clips)

    if workers == 1:
        follow(map(files.make, range(files.clips)))
        return
    executor = start_workers(files, workers)
    try:
        with workers_may_die():
            follow(executor.map(make_in_worker, range(files.clips)))
    finally:
        executor.shutdown(cancel_futures=True)


def make_pools(
    config: SimulatedClipsConfig,
    photos: tuple[list[Path], list[Path]],
    training: Callable[..., Pool],
    validation: Callable[..., Pool],
    tell: Callable[[int, int], None] | None,
) -> tuple[Pool, Pool]:
    """The clips that a run learns from, and one clip per held-out photograph, all made.

    Args:
        config: configuration of the run.
        photos: for training, and held out.
        training, validation: build a pool from the arguments of :class:`ClipFiles`.
        tell: called with the training clips done and their total.

    Raises:
        DeviceError: a worker was killed.
    """
    trainable, held_out = photos
    size = ClipSize(config.width, config.height, config.frames)
    cpu = torch.device("cpu")
    seed = config.seed
    pool = training(trainable, config.output / "pool", clips=config.clips, size=size, seed=seed, device=cpu)
    seed += HELD_OUT_SEED
    held = validation(held_out, config.output / "held_out", clips=len(held_out), size=size, seed=seed, device=cpu)
    make_all(pool, config.workers, tell)
    make_all(held, config.workers, None)
    return pool, held
