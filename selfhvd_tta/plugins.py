"""Discovery of plug-ins: every sibling module of a package contributes one named constant."""

from __future__ import annotations

import importlib
import pkgutil
from importlib.metadata import entry_points
from typing import Protocol, TypeVar

from selfhvd_tta.errors import UsageError


class HasId(Protocol):
    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=HasId)


def discover_plugins(package: str, constant: str, kind: type[T], group: str) -> dict[str, T]:
    """Collect ``constant`` from every module of ``package`` that has one, and from an entry-point group.

    Args:
        package: dotted name of the package whose direct modules are imported.
        constant: module attribute that holds the descriptor (``BACKBONE``, ``FLOW``, ``PROTOCOL``).
        kind: class of the descriptor.
        group: entry-point group through which other distributions add theirs.

    Returns:
        Descriptors by id, in alphabetical order of the id.

    Raises:
        UsageError: two plug-ins share an id, or an entry point is not a descriptor of that kind.
    """
    found: dict[str, T] = {}
    origin: dict[str, str] = {}

    def add(descriptor: object, where: str) -> None:
        if not isinstance(descriptor, kind):
            raise UsageError(f"{where} is not a {kind.__name__}", "Uninstall or repair that plug-in.")
        if descriptor.id in found:
            raise UsageError(
                f"{kind.__name__} id '{descriptor.id}' is defined twice: {origin[descriptor.id]} and {where}",
                "Uninstall or rename one of them.",
            )
        found[descriptor.id] = descriptor
        origin[descriptor.id] = where

    root = importlib.import_module(package)
    for module_info in pkgutil.iter_modules(root.__path__):
        module = importlib.import_module(f"{package}.{module_info.name}")
        if hasattr(module, constant):
            add(getattr(module, constant), module.__name__)
    for entry in entry_points(group=group):
        add(entry.load(), f"entry point {entry.value}")
    return dict(sorted(found.items()))
