"""Rules that settings are checked by when they are built."""

from __future__ import annotations

from selfhvd_tta.errors import UsageError


def check(condition: bool, name: str, rule: str, value: object) -> None:
    """Raise a :class:`UsageError` that names the setting, its value and the rule unless ``condition`` holds."""
    if not condition:
        raise UsageError(f"{name} is {value!r}, but it must be {rule}")
