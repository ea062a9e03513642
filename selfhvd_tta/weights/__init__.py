"""Weights of networks: where they come from, whether they are here, and how to read, convert and publish them.

The table is ``weights/models.toml``. Whatever is not bundled is fetched once, verified against the table's SHA-256
(or the one that the Hub states), converted to safetensors and remembered; pickles are never opened after that.
Looking at the table and at what is here imports neither torch nor the Hub's client.
"""

from selfhvd_tta.weights.cache import OnProgress, cache_dir, manual_dir
from selfhvd_tta.weights.convert import Conversion, convert_checkpoint
from selfhvd_tta.weights.overview import ModelRow, models_overview
from selfhvd_tta.weights.publish import Published, publish
from selfhvd_tta.weights.rows import Row, bundled_folder, find_row, table
from selfhvd_tta.weights.store import (
    Availability,
    Weights,
    adopt,
    find,
    load,
    load_file,
    load_hub,
    load_part,
    recognise,
)
from selfhvd_tta.weights.tensors import check_state, save

__all__ = [
    "Availability",
    "Conversion",
    "ModelRow",
    "OnProgress",
    "Published",
    "Row",
    "Weights",
    "adopt",
    "bundled_folder",
    "cache_dir",
    "check_state",
    "convert_checkpoint",
    "find",
    "find_row",
    "load",
    "load_file",
    "load_hub",
    "load_part",
    "manual_dir",
    "models_overview",
    "publish",
    "recognise",
    "save",
    "table",
]
