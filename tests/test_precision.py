"""In which precision networks run: decided by the device, the network, and what was asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from selfhvd_tta import backbones
from selfhvd_tta.errors import UsageError
from selfhvd_tta.run import device as models
from selfhvd_tta.settings import Precision, RuntimeSettings, Settings

CPU = torch.device("cpu")
VERIFIED = backbones.discover()["estrnn"]
UNVERIFIED = replace(VERIFIED, autocast=frozenset())


def settings(precision: Precision) -> Settings:
    return Settings(runtime=RuntimeSettings(precision=precision))


@pytest.mark.parametrize("native", [True, False])
def test_what_is_chosen(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_has_bf16", lambda device: native)
    chosen = {
        (precision, backbone.autocast == VERIFIED.autocast): models.choose_compute(
            settings(precision), CPU, backbone
        ).autocast
        for precision, backbone in (
            ("auto", VERIFIED),
            ("auto", UNVERIFIED),
            ("bf16", VERIFIED),
            ("fp32", VERIFIED),
            ("fp32", UNVERIFIED),
        )
    }
    assert chosen == {
        ("auto", True): torch.bfloat16 if native else None,
        ("auto", False): None,
        ("bf16", True): torch.bfloat16,
        ("fp32", True): None,
        ("fp32", False): None,
    }


def test_bf16_is_refused_where_it_was_not_verified() -> None:
    with pytest.raises(UsageError, match="not verified in bfloat16"):
        models.choose_compute(settings("bf16"), CPU, UNVERIFIED)
    assert models.choose_compute(settings("bf16"), CPU, None).autocast is None, "transfer has no network"


@pytest.mark.parametrize(("avx", "amx"), [(True, False), (False, True), (False, False)])
def test_a_cpu_is_good_at_bf16_if_it_has_instructions_for_it(
    avx: bool, amx: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without them oneDNN converts to float32 and back, which is slower than float32."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    automatic = models.choose_compute(settings("auto"), CPU, VERIFIED).autocast
    assert automatic == (torch.bfloat16 if avx or amx else None)


def test_other_devices_stay_with_float32() -> None:
    assert models.choose_compute(settings("auto"), torch.device("mps"), VERIFIED).autocast is None
