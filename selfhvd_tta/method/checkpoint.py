"""Stores an adaptation's state as tensors and plain values, and resumes from it with the same result.

What the network's weights determine is not stored but computed again: the label bank is that of the weights at the last
refresh, the historical outputs are those of the weights at the last renewal. So a checkpoint is about six times as
large as the network, whatever the video's size, and resuming from it costs one refresh of the labels.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from selfhvd_tta.method.adaptation import Adaptation
from selfhvd_tta.method.record import Record
from selfhvd_tta.method.scscm import HistoryCheck


@dataclass(frozen=True)
class Checkpoint:
    """State of an adaptation between two steps, or at its end.

    Attributes:
        tensors: by name, on the CPU.
        facts: everything else, as JSON can hold it.
    """

    tensors: dict[str, Tensor]
    facts: dict[str, Any]

    @property
    def step(self) -> int:
        """Steps done."""
        return int(self.facts["step"])

    @property
    def finished(self) -> bool:
        """Whether the network is adapted, so that only the restoration is left to do."""
        return bool(self.facts["finished"])

    def record(self) -> Record:
        """What the adaptation has done so far."""
        stored = copy.deepcopy(self.facts["record"])
        stored["checks"] = [(step, HistoryCheck(**check)) for step, check in stored["checks"]]
        return Record(**stored)

    def weights(self, part: str = "network") -> dict[str, Tensor]:
        """State dict of the network (``network``), or another part: ``good``, ``history``, ``best``, ``optimiser``."""
        start = part + "."
        return {name.removeprefix(start): t for name, t in self.tensors.items() if name.startswith(start)}


def capture(adaptation: Adaptation, finished: bool = False) -> Checkpoint:
    """Copy the current state; call it between two steps, or from a listener.

    Args:
        adaptation: running, or done.
        finished: it is done; then only the network and the record are of interest.
    """
    adaptation.read(tell=False)
    device = adaptation.inputs.compute.device
    tensors = _named("network", adaptation.network.state_dict())
    facts = adaptation.state.facts() | {"finished": finished}
    if not finished:
        for part, weights in adaptation.state.weights().items():
            tensors |= _named(part, weights)
        for number, values in adaptation.optimiser.state.items():
            tensors |= _named(f"optimiser.{number}", values)
        tensors["random"] = torch.get_rng_state()
        if device.type == "cuda":
            tensors["random_cuda"] = torch.cuda.get_rng_state(device)
        facts["elapsed"] = adaptation.pace.clock() - adaptation.pace.begun
    # Copies: the network keeps learning, and files cannot hold views of one memory.
    tensors = {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
    return Checkpoint(tensors, json.loads(json.dumps(facts)))


def resume(adaptation: Adaptation, checkpoint: Checkpoint) -> None:
    """Bring a new adaptation, with the same video and settings, to the state of another one.

    Args:
        adaptation: as it was built, its network with its initial weights.
        checkpoint: of the other one, not finished.
    """
    adaptation.state.restore(checkpoint.facts, checkpoint.record(), checkpoint.weights)
    adaptation.supervision.rebuild()
    adaptation.pace.resume(float(checkpoint.facts["elapsed"]))
    adaptation.network.load_state_dict(checkpoint.weights())
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in checkpoint.weights("optimiser").items():
        number, what = name.split(".", 1)
        state.setdefault(int(number), {})[what] = tensor
    adaptation.optimiser.load(state)
    torch.set_rng_state(checkpoint.tensors["random"])
    device = adaptation.inputs.compute.device
    if "random_cuda" in checkpoint.tensors and device.type == "cuda":
        torch.cuda.set_rng_state(checkpoint.tensors["random_cuda"], device)


def _named(part: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{part}.{name}": tensor for name, tensor in state.items()}
