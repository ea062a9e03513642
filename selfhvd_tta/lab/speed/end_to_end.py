"""Where the time of one whole job goes, measured by its events."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from selfhvd_tta.events import Event, Finished, Note, Plan, Progress
from selfhvd_tta.lab.evaluation.memory import PeakMemory
from selfhvd_tta.lab.speed.timing import synchronise
from selfhvd_tta.pipeline import deblur
from selfhvd_tta.settings import Settings


@dataclass(frozen=True)
class Breakdown:
    """Seconds of one ``deblur``.

    Attributes:
        backbone: of the job.
        steps: of its adaptation.
        seconds: altogether.
        cpu: CPU time of all threads.
        host: peak of resident memory, bytes; None if unknown.
        device: peak of the tensors on the GPU, bytes; None on a CPU.
        phases: name and seconds, in the order in which they first occurred; they add up to ``seconds``.
    """

    backbone: str
    steps: int
    seconds: float
    cpu: float
    host: int | None
    device: int | None
    phases: tuple[tuple[str, float], ...]


def break_down(video: Path, output: Path, settings: Settings, device: torch.device) -> Breakdown:
    """Run one job and attribute the time up to each event to what the event is about."""
    phases: dict[str, float] = {}
    last = [time.perf_counter()]

    def listen(event: Event) -> None:
        synchronise(device)
        now = time.perf_counter()
        name = {
            Note: "load models",
            Plan: "time this machine for the plan",
            Finished: "finish and verify the file",
        }.get(type(event), "")
        if isinstance(event, Progress):
            name = event.phase
        phases[name] = phases.get(name, 0.0) + now - last[0]
        last[0] = now

    host, tensors = PeakMemory(torch.device("cpu")), PeakMemory(device)
    begun, cpu = last[0], time.process_time()
    deblur(video, output, settings, listen)
    return Breakdown(
        settings.backbone,
        settings.adaptation.iters,
        last[0] - begun,
        time.process_time() - cpu,
        host.read().size,
        tensors.read().size if device.type == "cuda" else None,
        tuple(phases.items()),
    )
