"""Everything that decides a result, as text: an interrupted run is resumed only if all of it is the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import torch
from torch import nn

import selfhvd_tta
from selfhvd_tta.config import INDIFFERENT, to_table
from selfhvd_tta.files import identity
from selfhvd_tta.run.equipment import Equipment
from selfhvd_tta.settings import Settings


def fingerprint(source: Path, settings: Settings, gear: Equipment) -> dict[str, str]:
    """Names and values of it; the names are the user's.

    Args:
        source: input file or folder of images.
        settings: all of them.
        gear: device and networks; of these their weights count.
    """
    facts = {"the input file": identity(source), "the device": gear.device.type}
    for name, value in _flat(to_table(settings)):
        if name not in INDIFFERENT:
            facts["--" + name.rpartition(".")[2].replace("_", "-")] = str(value)
    facts["the optical flow"] = gear.flow.name
    modules: dict[str, nn.Module | None] = {"weights of the flow": gear.flow, "the merging network": gear.merger}
    if gear.network is not None:
        facts["the backbone"] = gear.network.name
        modules |= {"its weights": gear.network, "the perceptual loss": gear.features}
    for name, module in modules.items():
        facts[name] = "none" if module is None else digest(module)
    libraries = " ".join(f"{k} {v}" for k, v in sorted(av.library_versions.items()))
    facts["the version of the program"] = f"{selfhvd_tta.__version__}, torch {torch.__version__}, {libraries}"
    return facts


def digest(network: nn.Module) -> str:
    """Hash of a network's weights."""
    hasher = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        hasher.update(name.encode())
        hasher.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return hasher.hexdigest()


def _flat(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
