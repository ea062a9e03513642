"""Runs independent CPU work in parallel: NumPy, OpenCV and torch release the interpreter lock while they compute."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import TypeVar

import torch

# With a GPU: the memory of each thread there adds up, and their kernels queue behind each other anyway.
MOST_BESIDE_A_GPU = 4

Item = TypeVar("Item")
Result = TypeVar("Result")


def each(
    function: Callable[[Item], Result], items: Sequence[Item], device: torch.device, alone: bool = False
) -> list[Result]:
    """``[function(item) for item in items]``, on as many threads as torch may use.

    If ``device`` is a GPU, on a few: even then an alignment finds its homography on the CPU. One after the other if
    ``alone``. An error is raised when no other call is running any more.

    ``function`` must not record gradients: workers run with gradients switched off.
    """
    threads = torch.get_num_threads()
    if device.type == "cuda":
        threads = min(threads, MOST_BESIDE_A_GPU)
    if alone or device.type not in ("cpu", "cuda") or threads == 1 or len(items) == 1:
        return [function(item) for item in items]
    started = [_workers(threads).submit(function, item) for item in items]
    wait(started)
    return [one.result() for one in started]


@cache
def _workers(threads: int) -> ThreadPoolExecutor:
    """Workers that each compute on one thread: splitting many small operations further gains nothing."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="alignment")
    before = torch.get_num_threads()
    ready = threading.Barrier(threads)

    def prepare(_: int) -> None:
        torch.set_grad_enabled(False)  # per thread
        torch.set_num_threads(1)
        ready.wait()

    list(pool.map(prepare, range(threads)))
    torch.set_num_threads(before)  # the setting is also the default of future threads
    return pool
