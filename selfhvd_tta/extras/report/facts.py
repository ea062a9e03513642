"""What a run was made with: weights with their hashes, versions, settings."""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import dataclass
from pathlib import Path

import selfhvd_tta
from selfhvd_tta import flows, weights
from selfhvd_tta.config import to_table
from selfhvd_tta.extras.report.log import RunLog
from selfhvd_tta.files import sha256_of
from selfhvd_tta.run.networks import find_backbone
from selfhvd_tta.settings import Settings

PACKAGES = ("torch", "torchvision", "av", "numpy", "opencv-python-headless", "safetensors", "matplotlib", "jinja2")


@dataclass(frozen=True)
class WeightFile:
    """A file that took part.

    Attributes:
        role: ``backbone``, ``flow`` or ``perceptual loss``.
        name: of the row in the table, or the path.
        file: its name on this machine.
        sha256: of its content, now.
        licence: of the weights, empty if not known.
    """

    role: str
    name: str
    file: str
    sha256: str
    licence: str = ""


def weight_files(log: RunLog, settings: Settings, adapted: bool) -> list[WeightFile]:
    """Files of weights that a run used, found by what its plan said."""
    rows: list[tuple[str, str]] = []
    found: list[WeightFile] = []
    if "backbone" in log.plan:
        own = settings.weights or settings.adapted
        name = log.plan["backbone"].split(",")[0]
        if own is not None:
            found += _file("backbone", own, Path(own), "")
        elif not settings.backbone.startswith("hf:"):
            rows += [("backbone", row) for row in find_backbone(name)[1].weights[:1]]
    if "flow" in log.plan:
        flow_id, _, variant = log.plan["flow"].rpartition(" ")[2].partition(":")
        known = flows.discover()
        if flow_id in known:
            rows += [("flow", row) for row in known[flow_id].variant(variant or None).weights[:1]]
    off = any(text.startswith("perceptual loss: off") for text, _ in log.notes)
    if adapted and settings.adaptation.perceptual_weight and not off:
        rows.append(("perceptual loss", "vgg19"))
    for role, name in rows:
        here = weights.find(name, offline=True)
        if here.path is not None:
            found += _file(role, name, here.path, weights.find_row(name).licence)
    return found


def _file(role: str, name: str, path: Path, licence: str) -> list[WeightFile]:
    return [WeightFile(role, name, path.name, sha256_of(path), licence)] if path.is_file() else []


def versions() -> list[tuple[str, str]]:
    """Of this program, Python and the packages that the result depends on."""
    rows = [
        ("selfhvd-tta", selfhvd_tta.__version__),
        ("Python", platform.python_version()),
        ("system", f"{platform.system()} {platform.machine()}"),
    ]
    for name in PACKAGES:
        try:
            rows.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            rows.append((name, "not installed as a package"))
    return rows


def changed_settings(settings: Settings) -> list[tuple[str, str]]:
    """Settings that differ from the defaults, by their dotted name."""
    mine, default = _flat(to_table(settings)), _flat(to_table(Settings()))
    return [(name, str(value)) for name, value in mine.items() if default.get(name) != value]


def _flat(table: dict[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in table.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
