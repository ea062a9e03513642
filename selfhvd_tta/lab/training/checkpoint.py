"""What a pretraining run leaves behind: checkpoint, log, weights to publish."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from torch import nn

from selfhvd_tta import weights
from selfhvd_tta.backbones.wrapper import Network
from selfhvd_tta.errors import UsageError
from selfhvd_tta.files import sha256_of, write_atomically
from selfhvd_tta.lab.training.network import Optimisers, build_network
from selfhvd_tta.lab.training.recipe import PretrainConfig
from selfhvd_tta.weights.tensors import check_state, save

CHECKPOINT, LOG, RUN = "checkpoint.pt", "log.jsonl", "run.json"
BUNDLED = "bundled"


def save_checkpoint(
    folder: Path,
    network: nn.Module,
    average: nn.Module,
    optimisers: Optimisers,
    step: int,
    seconds: float,
    **about: str,
) -> None:
    """Write the state of a run, and what else is to be known of it, so that the file is always whole."""
    path = folder / CHECKPOINT
    state = {
        "network": network.state_dict(),
        "average": average.state_dict(),
        "optimisers": [optimiser.state_dict() for optimiser in optimisers],
        "step": step,
        "seconds": seconds,
        **about,
    }
    with write_atomically(path) as part:
        torch.save(state, part)


def restore(config: PretrainConfig, network: Network, average: Network, optimisers: Optimisers) -> tuple[int, float]:
    """Load the run's checkpoint, or else the weights to start from.

    Returns:
        Steps and seconds done so far.

    Raises:
        UsageError: they belong to another network, or there are none.
        WeightsError: a weights file cannot be read or does not fit.
    """
    path = config.output / CHECKPOINT
    if path.exists():
        state = read_checkpoint(path, config.backbone, network, average)
        for optimiser, kept in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        return int(state["step"]), float(state["seconds"])
    if config.initial is None:
        return 0, 0.0
    if config.initial.suffix in (".pt", ".pth"):
        read_checkpoint(config.initial, config.backbone, network, average)
        return 0, 0.0
    tensors = _initial_weights(config.initial, network).tensors
    check_state(network.state_dict(), tensors, str(config.initial))
    for module in (network, average):
        module.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return 0, 0.0


def _initial_weights(path: Path, network: Network) -> weights.Weights:
    if str(path) != BUNDLED or path.exists():
        return weights.load_file(path)
    if not network.variant.weights:
        name = f"{network.backbone.id}:{network.variant.name}"
        raise UsageError(f"no weights of {name} come with this program", "Give a .safetensors file, or start anew.")
    return weights.load(network.variant.weights[0], offline=True)


def read_checkpoint(path: Path, what: str, network: nn.Module, average: nn.Module) -> dict[str, Any]:
    """Load a network and its moving average, and hand on the rest.

    Args:
        path: ``checkpoint.pt`` of a run.
        what: the network, for the message.
        network: to load into.
        average: likewise.

    Raises:
        UsageError: there is no such file, it is damaged, or it is of another network.
    """
    if path.exists() and not is_zipfile(path):  # a file that was cut short is none either
        raise UsageError(f"{path} is no checkpoint, or damaged", "Give checkpoint.pt of an earlier run.")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
    except FileNotFoundError as error:
        raise UsageError(f"there is no checkpoint {path}", "Check the path.") from error
    except (RuntimeError, KeyError) as error:
        raise UsageError(
            f"{path} is a checkpoint of another network than {what}", "Choose another output folder."
        ) from error
    return state


def trim_log(folder: Path, step: int) -> None:
    """Take back what was logged after the checkpoint that a run continues from."""
    path = folder / LOG
    if not path.exists():
        return
    lines = path.read_text().splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    if len(kept) < len(lines):
        with write_atomically(path) as part:
            part.write_text("".join(kept))


def write_run(config: PretrainConfig, processes: int, training_clips: str, held_out: str) -> None:
    """State in ``run.json`` what the run is, for the card of its weights."""
    device = torch.device(config.device)
    facts = {
        "config": {name: _plain(value) for name, value in asdict(config).items()},
        "processes": processes,
        "trained_on": training_clips,
        "validated_on": held_out,
        "hardware": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor(),
        "torch": torch.__version__,
    }
    (config.output / RUN).write_text(json.dumps(facts, indent=1) + "\n")


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def export_weights(config: PretrainConfig, target: Path, description: Mapping[str, str]) -> str:
    """Write the moving average of a run as half-precision safetensors that name their backbone and variant.

    Args:
        config: of the run.
        target: the file.
        description: kept in the file beside the names: ``licence``, ``trained_on``...

    Returns:
        The file's SHA-256.
    """
    variant = build_network(config.backbone, config.variant).variant.name
    return export_average(config.output, target, {**description, "backbone": config.backbone, "variant": variant})


def export_average(folder: Path, target: Path, about: Mapping[str, str], prefix: str = "") -> str:
    """Write the moving average of a run as half-precision safetensors.

    Args:
        folder: of the run.
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
