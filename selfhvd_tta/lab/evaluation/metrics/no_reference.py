"""Measures of single frames without ground truth, by the optional package pyiqa.

pyiqa and many of the weights that it downloads may not be used commercially: only the extra ``metrics`` installs it.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from selfhvd_tta.errors import UsageError, WeightsError
from selfhvd_tta.lab.evaluation.scoring import NoReference

LICENCE = "pyiqa and weights that it downloads are for non-commercial use only"


def load_measures(names: Sequence[str], device: torch.device) -> dict[str, NoReference]:
    """Measures by name.

    Args:
        names: as pyiqa knows them, for example ``musiq`` or ``maniqa``; none is fine and needs no pyiqa.
        device: where they are computed.

    Raises:
        UsageError: pyiqa is not installed, or one of the measures compares with a ground truth.
        WeightsError: pyiqa could not get a measure ready.
    """
    if not names:
        return {}
    if importlib.util.find_spec("pyiqa") is None:
        raise UsageError(
            f"--metric {names[0]} needs pyiqa, which is not installed", f"pip install '.[metrics]' ({LICENCE})"
        )
    pyiqa = importlib.import_module("pyiqa")
    found: dict[str, NoReference] = {}
    for name in names:
        try:
            metric = pyiqa.create_metric(name, device=device)
        except (KeyError, ValueError, RuntimeError, OSError, AssertionError) as error:
            raise WeightsError(f"pyiqa cannot provide '{name}': {error}", "Check its name, and the network.") from error
        if metric.metric_mode != "NR":
            raise UsageError(f"--metric {name} compares with a ground truth", "Choose one without reference.")

        def measure(frame: NDArray[np.uint8], metric: torch.nn.Module = metric) -> float:
            picture = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1).to(device).float()[None] / 255
            with torch.no_grad():
                return float(metric(picture))

        found[name] = measure
    return found
