"""What a run was made with: versions and settings."""

from __future__ import annotations

import importlib.metadata
import platform

import selfhvd_tta
from selfhvd_tta.config import to_table
from selfhvd_tta.settings import Settings

PACKAGES = ("torch", "torchvision", "av", "numpy", "opencv-python-headless", "safetensors", "matplotlib", "jinja2")


def versions() -> list[tuple[str, str]]:
    """Versions of this program, Python and the packages that the result depends on."""
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
