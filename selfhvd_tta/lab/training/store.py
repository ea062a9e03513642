"""Files of clips by number: each is decided by (seed, number) alone, made once and kept on disk.

So a resumed run sees the data that the uninterrupted one would have seen, and any process may make any of them.
"""

from __future__ import annotations

import signal
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import BinaryIO

import torch

from selfhvd_tta.errors import DeviceError
from selfhvd_tta.files import write_atomically


class ClipStore(ABC):
    """A folder of such files. Can be sent to another process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @abstractmethod
    def path(self, number: int) -> Path:
        """Where the clip of that number is kept."""

    @abstractmethod
    def write(self, number: int, file: BinaryIO) -> None:
        """Make the clip of that number."""

    def make(self, number: int) -> Path:
        """File of that clip, made unless it is there."""
        path = self.path(number)
        if not path.exists():
            with write_atomically(path) as part, part.open("wb") as file:
                self.write(number, file)
        return path


def start_workers(store: ClipStore, count: int) -> ProcessPoolExecutor:
    """Processes that run :func:`make_in_worker`."""
    # Forked children would inherit the threads of torch, which do not survive it.
    return ProcessPoolExecutor(count, get_context("spawn"), _start_worker, (store,))


@contextmanager
def workers_may_die() -> Iterator[None]:
    """Say what happened when a worker was killed.

    Raises:
        DeviceError: it was.
    """
    try:
        yield
    except BrokenProcessPool as error:
        raise DeviceError(
            "a process that makes training clips was ended from outside",
            "Most likely memory ran out: ask for fewer --workers; the run continues where it was.",
        ) from error


_STORE: list[ClipStore] = []  # of a worker process


def make_in_worker(number: int) -> None:
    """Make a clip of the store that this worker was started with."""
    _STORE[0].make(number)


def _start_worker(store: ClipStore) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the training ends its workers
    torch.set_num_threads(1)
    _STORE.append(store)
