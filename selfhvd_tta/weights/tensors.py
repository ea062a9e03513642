"""Reading and writing safetensors, and comparing a state dict with what a network expects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfhvd_tta.errors import WeightsError
from selfhvd_tta.files import write_atomically
from selfhvd_tta.weights.cache import writing

if TYPE_CHECKING:
    from torch import Tensor

# torch and safetensors are imported where they are used: reading the table must not take seconds.

METADATA_KEY = "selfhvd_tta"
"""Key of the safetensors metadata under which a file of ours describes itself (JSON)."""

CONVERT_HINT = "Convert the authors' checkpoint first: selfhvd-tta weights convert CHECKPOINT -o OUT.safetensors"


def _what_it_is(path: Path) -> tuple[str, str]:
    """What a file that is not safetensors seems to be, by its first bytes, and what to do about it."""
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(b"PK\x03\x04") or head[:1] == b"\x80":
        return "it is a PyTorch checkpoint (a pickle), which is never opened at run time", CONVERT_HINT
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the file itself", "Fetch it with: git lfs pull"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "it is a web page", "Download the file itself, not the page about it."
    return "it is damaged or cut short", "Delete it, then download it again."


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors of a file (on the CPU), and what it says of itself (empty for files of others).

    Raises:
        WeightsError: missing, not safetensors, cut short, or holds values that are not finite.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except FileNotFoundError:
        raise WeightsError(f"There is no weights file {path}", "Check the path.") from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}", "Check the path.") from error
    except SafetensorError as error:
        reason, hint = _what_it_is(path)
        raise WeightsError(f"{path} is not a safetensors file: {reason}", hint) from error
    if not tensors:
        raise WeightsError(f"{path} holds no tensors", "Delete it, then download it again.")
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.element_size() == 1:
            message = f"{path}: '{name}' holds numbers of 8 bits or fewer ({tensor.dtype}), which no network here uses"
            raise WeightsError(message, "Save the weights as float16, bfloat16 or float32.")
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise WeightsError(
                f"{path} is damaged: '{name}' holds values that are not finite", "Delete it, then download it again."
            )
    try:
        config = json.loads(metadata.get(METADATA_KEY, "{}"))
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} describes itself in damaged JSON", "Save or convert it again.") from error
    if not isinstance(config, dict):
        raise WeightsError(f"{path} describes itself by something other than a table", "Save or convert it again.")
    return tensors, config


def save(path: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Write a state dict as one safetensors file that describes itself; complete or not at all.

    Args:
        path: the file; replaced if it exists.
        tensors: state dict, on any device; tensors that share memory are stored twice.
        config: JSON-able description. ``backbone`` and ``variant`` name the plug-in that the tensors fit; anything
            else (``config``, ``trained_on``, ``licence``...) is kept as it is.

    Raises:
        WeightsError: the file cannot be written.
        ValueError: ``config`` lacks ``backbone`` or ``variant``, or is not JSON-able.
    """
    for key in ("backbone", "variant"):
        if not isinstance(config.get(key), str):
            raise ValueError(f"config has no {key}")
    write_safetensors(path, tensors, config)


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """As :func:`save`, for tensors that need not be a backbone's."""
    from safetensors.torch import save_file

    try:
        description = json.dumps(dict(config), sort_keys=True)
    except TypeError as error:
        raise ValueError(f"config is not JSON-able: {error}") from error
    metadata = {"format": "pt"} | ({METADATA_KEY: description} if config else {})
    with writing(str(path)), write_atomically(Path(path)) as temporary:
        save_file(independent(tensors), str(temporary), metadata=metadata)


def independent(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU, contiguous, no two sharing memory (safetensors stores no aliases)."""
    import torch

    return {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format).contiguous()
        for name, tensor in tensors.items()
    }


def _first(names: list[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def differences(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> str:
    """How two state dicts differ in names and shapes, in one line; empty if they do not."""
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    wrong = [name for name in expected if name in found and tuple(expected[name]) != tuple(found[name])]
    parts = []
    if missing:
        parts.append(f"{len(missing)} of {len(expected)} missing: {_first(missing)}")
    if unexpected:
        parts.append(f"{len(unexpected)} unexpected: {_first(unexpected)}")
    if wrong:
        name = wrong[0]
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        shapes = f"is {'x'.join(map(str, found[name]))}, not {'x'.join(map(str, expected[name]))}"
        parts.append(f"{len(wrong)} of another shape: '{name}' {shapes}{more}")
    return "; ".join(parts)


def check_state(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor], what: str = "The weights") -> None:
    """Make sure that a state dict fits a network, before anything is loaded into it.

    Args:
        expected: ``network.state_dict()``.
        tensors: the state dict to be loaded.
        what: subject of the message, for example the file.

    Raises:
        WeightsError: names what is missing, unexpected or of another shape.
    """
    wrong = differences(
        {name: tuple(tensor.shape) for name, tensor in expected.items()},
        {name: tuple(tensor.shape) for name, tensor in tensors.items()},
    )
    if wrong:
        raise WeightsError(f"{what} do not fit this network: {wrong}", "Choose the backbone and variant they are for.")
