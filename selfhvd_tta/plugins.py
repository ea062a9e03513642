"""Discovery of plug-ins: every sibling module of a package contributes one named constant."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pkgutil
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib.metadata import entry_points
from pathlib import Path
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


def declared_names(package: str, constant: str, group: str) -> dict[str, tuple[str, ...]] | None:
    """Ids of the plug-ins and the names of their variants, read from the source without importing it.

    Importing a network takes seconds, and a mistyped name is answered sooner than that.

    Args:
        package, constant, group: as for :func:`discover_plugins`.

    Returns:
        Names of the variants by id, in alphabetical order of the id. None if the names are known only after an import:
        another distribution adds plug-ins, or a descriptor does not state them as literals.
    """
    if entry_points(group=group):
        return None
    spec = importlib.util.find_spec(package)
    found: dict[str, tuple[str, ...]] = {}
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        for file in [*Path(folder).glob("*.py"), *Path(folder).glob("*/__init__.py")]:
            source = file.read_text("utf-8")
            if file == Path(folder, "__init__.py") or not re.search(rf"\b{constant}\b", source):
                continue
            try:
                name, variants = _literals(source, constant)
            except (ValueError, SyntaxError):
                return None
            found[name] = variants
    return dict(sorted(found.items()))


def _literals(source: str, constant: str) -> tuple[str, tuple[str, ...]]:
    """Id and variants of ``BACKBONE = Backbone(id="...", variants=(Variant("..."), ...))``.

    Raises:
        ValueError: they are not literals.
        SyntaxError: the source is not Python.
    """
    descriptor = next(
        (
            node.value
            for node in ast.parse(source).body
            if isinstance(node, ast.Assign)
            and any(isinstance(target, ast.Name) and target.id == constant for target in node.targets)
        ),
        None,
    )
    if not isinstance(descriptor, ast.Call):
        raise ValueError(f"{constant} is not written out")
    stated = {keyword.arg: keyword.value for keyword in descriptor.keywords}
    variants = stated.get("variants")
    if "id" not in stated or not isinstance(variants, ast.Tuple):
        raise ValueError("id or variants are not written out")
    names: list[ast.expr] = [stated["id"]]
    for variant in variants.elts:
        if not isinstance(variant, ast.Call):
            raise ValueError("a variant is not written out")
        names += [*variant.args[:1]] or [keyword.value for keyword in variant.keywords if keyword.arg == "name"]
    texts = [node.value for node in names if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    if len(texts) != 1 + len(variants.elts):
        raise ValueError("a name is not written out")
    return texts[0], tuple(texts[1:])


def check_name(kind: str, name: str, known: Mapping[str, Sequence[str]]) -> None:
    """Refuse ``id`` or ``id:variant`` if there is no such plug-in or variant.

    Args:
        kind: what it is to be, for the message: ``backbone`` or ``flow``.
        name: what the user wrote.
        known: names of the variants by id.

    Raises:
        UsageError: there is none of that name.
    """
    plugin, _, variant = name.partition(":")
    if plugin not in known:
        hint = f"Known are: {', '.join(known)} (selfhvd-tta models)."
        raise UsageError(f"unknown {kind} '{plugin}'", _meant(plugin, known) + hint)
    if variant and variant not in known[plugin]:
        hint = f"It has: {', '.join(known[plugin])}."
        raise UsageError(f"{kind} '{plugin}' has no variant '{variant}'", _meant(variant, known[plugin]) + hint)


def _meant(name: str, known: Sequence[str] | Mapping[str, object]) -> str:
    near = get_close_matches(name, list(known), 1)
    return f"Did you mean {near[0]}? " if near else ""
