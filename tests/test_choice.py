"""``--method auto``: what it means on which machine, and that the user is told."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from selfhvd_tta.config import override
from selfhvd_tta.events import Event, Note
from selfhvd_tta.run.choice import choose_method
from selfhvd_tta.settings import Settings


@pytest.mark.parametrize(
    ("device", "given", "method"),
    [
        ("cpu", {}, "transfer"),
        ("cpu", {"backbone": "relay:lite"}, "transfer"),
        ("cpu", {"backbone": "none"}, "transfer"),
        ("cpu", {"backbone": "dstnetplus"}, "adapt"),
        ("cpu", {"backbone": "hf:owner/name"}, "adapt"),
        ("cpu", {"iters": 50}, "adapt"),
        ("cpu", {"iters": 2000}, "adapt"),
        ("cpu", {"save_adapted": "mine.safetensors"}, "adapt"),
        ("cpu", {"method": "refit"}, "refit"),
        ("cuda", {}, "adapt"),
        ("cuda", {"method": "transfer"}, "transfer"),
    ],
)
def test_what_auto_means(device: str, given: dict[str, Any], method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfhvd_tta.run.choice.choose_device", lambda name, listen: torch.device(device))
    told: list[Event] = []
    chosen = choose_method(override(Settings(), given), told.append)
    assert chosen.method == method
    left_out = device == "cpu" and method == "transfer" and given.get("backbone") != "none"
    assert [isinstance(event, Note) and "--method adapt" in event.text for event in told] == [True] * left_out
