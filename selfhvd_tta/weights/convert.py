"""Authors' checkpoints (pickles) into safetensors, once, without running code from them."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfhvd_tta.errors import UsageError, WeightsError
from selfhvd_tta.files import same_file, sha256_of
from selfhvd_tta.weights.tensors import differences, independent, read_safetensors, write_safetensors

if TYPE_CHECKING:
    from torch import Tensor

# Where training frameworks keep the state dict, the averaged one first: it is the one that authors evaluate.
_CONTAINERS = ("params_ema", "params", "state_dict", "model_state_dict", "model_state", "model")


@dataclass(frozen=True)
class ForeignCheckpoint:
    """The network's tensors from a training framework's file.

    Attributes:
        tensors: state dict with the network's own key names, on the CPU.
        layout: how they were found, for the user, for example ``state_dict, generator., module.``.
        dropped: names of the tensors outside the network, which were left out.
    """

    tensors: dict[str, Tensor]
    layout: str
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Conversion:
    """What :func:`convert_checkpoint` did.

    Attributes:
        path: the safetensors file.
        sha256: digest of the checkpoint that was read.
        tensors: how many were kept.
        parameters: how many numbers they hold.
        layout: how they were found in the checkpoint.
        dropped: names of tensors that do not belong to the network.
    """

    path: Path
    sha256: str
    tensors: int
    parameters: int
    layout: str
    dropped: tuple[str, ...]

    def __str__(self) -> str:
        left_out = f", {len(self.dropped)} tensors outside the network left out" if self.dropped else ""
        layout = f" (from {self.layout})" if self.layout else ""
        return f"{self.path}: {self.tensors} tensors, {self.parameters:,} numbers{layout}{left_out}"


def _scalar_of(module: str) -> Callable[..., Any]:
    import numpy as np

    reconstruct: Any = np.float64(0).__reduce__()[0]

    def scalar(*arguments: Any) -> Any:
        return reconstruct(*arguments)

    # A checkpoint names the function by its place in the numpy of its time.
    scalar.__module__, scalar.__name__, scalar.__qualname__ = f"{module}.multiarray", "scalar", "scalar"
    return scalar


def _numpy_scalars() -> list[Any]:
    """Harmless names that checkpoints of old frameworks use for a loss or a learning rate."""
    import numpy as np

    dtypes = {type(np.dtype(kind)) for kind in (np.float16, np.float32, np.float64, np.int32, np.int64, np.bool_)}
    return [_scalar_of("numpy.core"), _scalar_of("numpy._core"), np.dtype, *dtypes]


def _unpickle(path: Path) -> object:
    import torch

    try:
        with torch.serialization.safe_globals(_numpy_scalars()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(f"There is no checkpoint {path}", "Check the path.") from None
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused:
            message = f"{path} cannot be read without running code from it: it asks for {refused[1]}"
            raise WeightsError(message, "Re-save only its state dict where you trust the file.") from error
        raise WeightsError(
            f"{path} is not a PyTorch checkpoint, or it is damaged", "Delete it, then download it again."
        ) from error
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise WeightsError(
            f"{path} is not a PyTorch checkpoint, or it is damaged", "Delete it, then download it again."
        ) from error


def _is_state(value: object) -> bool:
    import torch

    return isinstance(value, Mapping) and any(isinstance(item, torch.Tensor) for item in value.values())


def read_checkpoint(path: Path) -> ForeignCheckpoint:
    """Read an authors' checkpoint (``.pth``, ``.pth.tar``, ``.pt``) or a safetensors file.

    Knows the layouts of plain PyTorch, BasicSR (``params``), MMEditing (``state_dict``, ``generator.``) and
    ``DataParallel`` (``module.``).

    Raises:
        WeightsError: missing, damaged, no network in it, or it cannot be read without running code from it.
    """
    import torch

    if path.suffix == ".safetensors":
        return ForeignCheckpoint(read_safetensors(path)[0], "")
    content = _unpickle(path)
    steps: list[str] = []
    while isinstance(content, Mapping) and not _is_state(content):
        inner = next((key for key in _CONTAINERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        steps.append(inner)
        content = content[inner]
    if not isinstance(content, Mapping) or not _is_state(content):
        raise WeightsError(f"{path} holds no network's tensors", "Is it the checkpoint of the deblurring network?")
    state = {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}
    dropped: list[str] = []
    for prefix in ("module.", "generator.", "module."):
        inside = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        # "generator." stands next to losses and counters outside the network; "module." wraps all or none.
        if inside and (prefix == "generator." or len(inside) == len(state)):
            dropped += [name for name in state if not name.startswith(prefix)]
            state = inside
            steps.append(prefix)
    return ForeignCheckpoint(independent(state), ", ".join(steps), tuple(dropped))


def convert_checkpoint(
    path: Path,
    out: Path,
    expected: Mapping[str, tuple[int, ...]] | None,
    config: Mapping[str, Any] | None = None,
) -> Conversion:
    """Turn an authors' checkpoint into a safetensors file of ours.

    Args:
        path: the checkpoint.
        out: the safetensors file; replaced if it exists.
        expected: names and shapes of the network's state dict; None takes the checkpoint as it is.
        config: description stored in the file, see :func:`selfhvd_tta.weights.save`.

    Raises:
        UsageError: ``out`` is the checkpoint.
        WeightsError: the checkpoint cannot be read, differs from ``expected``, or ``out`` cannot be written.
    """
    if same_file(path, out):
        raise UsageError(f"{out}: is the checkpoint itself", "Choose another name for the converted file.")
    checkpoint = read_checkpoint(path)
    if expected is not None:
        found = {name: tuple(tensor.shape) for name, tensor in checkpoint.tensors.items()}
        if wrong := differences(expected, found):
            message = f"{path} does not fit this network: {wrong}"
            raise WeightsError(message, "Choose the backbone and variant it was trained for.")
    write_safetensors(out, checkpoint.tensors, config or {})
    return Conversion(
        path=out,
        sha256=sha256_of(path),
        tensors=len(checkpoint.tensors),
        parameters=sum(tensor.numel() for tensor in checkpoint.tensors.values()),
        layout=checkpoint.layout,
        dropped=checkpoint.dropped,
    )
