"""A training run's state, its checkpoint, and the weights to publish."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from torch import nn

from selfhvd_tta import weights
from selfhvd_tta.errors import UsageError
from selfhvd_tta.files import sha256_of, write_atomically
from selfhvd_tta.lab.training.config import RunConfig
from selfhvd_tta.lab.training.distributed import Ranks
from selfhvd_tta.lab.training.optimisers import Optimisers
from selfhvd_tta.weights.tensors import check_state, save

CHECKPOINT = "checkpoint.pt"
BUNDLED = "bundled"


@dataclass
class Run:
    """A run's state in one process: the network, its moving average, the optimisers, and how far it is.

    Attributes:
        network: that is trained.
        average: its moving average, whose weights are the result.
        optimisers: of the network. The learning rate of a parameter group is the run's, times the group's ``share``.
        ranks: which process this is.
        about: kept in the checkpoint; a checkpoint that says something else is of another network.
        step: steps done.
        seconds: of training, so far.
    """

    network: nn.Module
    average: nn.Module
    optimisers: Optimisers
    ranks: Ranks = field(default_factory=Ranks)
    about: Mapping[str, str] = field(default_factory=dict)
    step: int = 0
    seconds: float = 0.0

    @classmethod
    def fresh(cls, network: nn.Module, optimisers: Optimisers, ranks: Ranks | None = None, **about: str) -> Run:
        """At its beginning."""
        average = copy.deepcopy(network).eval().requires_grad_(False)
        return cls(network, average, optimisers, ranks or Ranks(), about)

    def save(self, folder: Path) -> None:
        """Write the checkpoint, so that the file is always complete."""
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "step": self.step,
            "seconds": self.seconds,
            **self.about,
        }
        with write_atomically(folder / CHECKPOINT) as part:
            torch.save(state, part)

    def restore(self, config: RunConfig, what: str, bundled: str | None = None, prefix: str = "") -> None:
        """Load the run's checkpoint, or else the weights to start from, if there are any.

        Args:
            config: configuration of the run.
            what: name of the network, for messages.
            bundled: row of the weights that ``bundled`` stands for.
            prefix: put before the names in a ``.safetensors`` file.

        Raises:
            UsageError: they belong to another network, or there are none.
            WeightsError: a weights file cannot be read or does not fit.
        """
        path = config.output / CHECKPOINT
        if path.exists():
            state = self._read(path, what)
            for optimiser, kept in zip(self.optimisers, state["optimisers"], strict=True):
                optimiser.load_state_dict(kept)
            self.step, self.seconds = int(state["step"]), float(state["seconds"])
        elif config.initial is not None and config.initial.suffix in (".pt", ".pth"):
            self._read(config.initial, what)
        elif config.initial is not None:
            found = _initial_weights(config.initial, what, bundled)
            self._check(found.config, config.initial, what)
            tensors = {prefix + name: tensor.float() for name, tensor in found.tensors.items()}
            check_state(self.network.state_dict(), tensors, str(config.initial))
            for module in (self.network, self.average):
                module.load_state_dict(tensors)

    def _read(self, path: Path, what: str) -> dict[str, Any]:
        """Load network and moving average from a checkpoint, and return the rest."""
        if path.exists() and not is_zipfile(path):  # nor is a file that was cut short
            raise UsageError(f"{path} is not a checkpoint, or is damaged", "Give checkpoint.pt of an earlier run.")
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            self._check(state, path, what)
            self.network.load_state_dict(state["network"])
            self.average.load_state_dict(state["average"])
        except FileNotFoundError as error:
            raise UsageError(f"there is no checkpoint {path}", "Check the path.") from error
        except (RuntimeError, KeyError) as error:
            raise _other_network(path, what) from error
        return state

    def _check(self, facts: Mapping[str, Any], path: Path, what: str) -> None:
        if any(facts.get(name) != value for name, value in self.about.items()):
            raise _other_network(path, what)


def _other_network(path: Path, what: str) -> UsageError:
    return UsageError(f"{path} is a checkpoint of another network than {what}", "Choose another output folder.")


def _initial_weights(path: Path, what: str, bundled: str | None) -> weights.Weights:
    if str(path) != BUNDLED or path.exists():
        return weights.load_file(path)
    if bundled is None:
        raise UsageError(f"no weights of {what} come with this program", "Give a .safetensors file, or start over.")
    return weights.load(bundled, offline=True)


def export_average(folder: Path, target: Path, about: Mapping[str, str], prefix: str = "") -> str:
    """Write the moving average of a run as half-precision safetensors.

    Args:
        folder: output folder of the run.
        target: the file.
        about: kept in the file; ``backbone`` and ``variant`` have to be there.
        prefix: taken off the names.

    Returns:
        The file's SHA-256.
    """
    state: dict[str, Any] = torch.load(folder / CHECKPOINT, map_location="cpu", weights_only=True)
    tensors = {
        name.removeprefix(prefix): tensor.half().contiguous() if tensor.is_floating_point() else tensor
        for name, tensor in state["average"].items()
    }
    save(target, tensors, {**about, "step": state["step"]})
    return sha256_of(target)
