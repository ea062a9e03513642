"""Timing that can be trusted: warm-up, interleaved repeats, medians, the device waited for."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Timing:
    """Seconds of one call.

    Attributes:
        median: by the wall clock.
        best: by the wall clock; far below the median means that the machine was busy.
        cpu: median of the CPU time of all threads of this process.
        repeats: how often it was timed.
    """

    median: float
    best: float
    cpu: float
    repeats: int


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def measure(
    cases: Mapping[str, Callable[[], object]],
    device: torch.device,
    repeats: int,
    warm_up: int = 1,
    tick: Callable[[str], None] = lambda name: None,
) -> dict[str, Timing]:
    """Time several pieces of work against each other.

    Every round runs each case once, so that a machine that gets slower or faster treats all alike.

    Args:
        cases: name and work.
        device: waited for before and after each call.
        repeats: timed rounds.
        warm_up: rounds before them, not counted.
        tick: called with the name of the next case.
    """
    walls: dict[str, list[float]] = {name: [] for name in cases}
    cpus: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(warm_up + repeats):
        for name, work in cases.items():
            tick(name)
            synchronise(device)
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            synchronise(device)
            if turn >= warm_up:
                walls[name].append(time.perf_counter() - wall)
                cpus[name].append(time.process_time() - cpu)
    return {
        name: Timing(statistics.median(walls[name]), min(walls[name]), statistics.median(cpus[name]), repeats)
        for name in cases
    }
