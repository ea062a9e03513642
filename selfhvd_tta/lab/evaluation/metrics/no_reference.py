"""Measures of single frames without ground truth, by the optional package pyiqa.

pyiqa and many of the weights that it downloads may not be used commercially: it is neither required nor installed by
this package.
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


def load_measures(names: Sequence[str]) -> dict[str, NoReference]:
    """Measures by name, computed on the CPU.

    Args:
        names: as pyiqa knows them, for example ``musiq`` or ``maniqa``; none is fine and needs no pyiqa.

    Raises:
        UsageError: pyiqa is not installed, or one of the measures compares with a ground truth.
        WeightsError: pyiqa could not get a measure ready.
    """
    if not names:
        return {}
    if importlib.util.find_spec("pyiqa") is None:
        raise UsageError(f"--metric {names[0]} needs pyiqa, which is not installed", "pip install pyiqa")
    pyiqa = importlib.import_module("pyiqa")
    found: dict[str, NoReference] = {}
    for name in names:
        try:
            metric = pyiqa.create_metric(name, device=torch.device("cpu"))
        except (KeyError, ValueError, RuntimeError, OSError, AssertionError) as error:
            raise WeightsError(f"pyiqa cannot provide '{name}': {error}", "Check its name, and the network.") from error
        if metric.metric_mode != "NR":
            raise UsageError(f"--metric {name} compares with a ground truth", "Choose one without reference.")

        def measure(frame: NDArray[np.uint8], metric: torch.nn.Module = metric) -> float:
            picture = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1).float()[None] / 255
            with torch.no_grad():
                return float(metric(picture))

        found[name] = measure
    return found
