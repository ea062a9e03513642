"""Which device is taken, and the one line that says why: every machine that can be simulated without its GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from selfhvd_tta import backbones
from selfhvd_tta.batch.process import gpus_to_share
from selfhvd_tta.cli import doctor
from selfhvd_tta.errors import DeviceError
from selfhvd_tta.events import Note
from selfhvd_tta.run import device as devices
from selfhvd_tta.run.driver import amd_driver, nvidia_driver

CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def forget() -> Any:
    """A device is probed once per process."""
    devices.why_not.cache_clear()
    yield
    devices.why_not.cache_clear()


def machine(monkeypatch: pytest.MonkeyPatch, **facts: Any) -> None:
    """A machine as PyTorch would describe it; what is not said is as on one with a CPU only."""
    monkeypatch.setattr(torch.version, "cuda", facts.get("cuda"))
    monkeypatch.setattr(torch.version, "hip", facts.get("hip"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: facts.get("available", False))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: facts.get("mps", False))
    monkeypatch.setattr(devices, "nvidia_driver", lambda: facts.get("driver", ""))
    monkeypatch.setattr(devices, "amd_driver", lambda: facts.get("amd", False))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: facts.get("count", 1))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Some GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: facts.get("capability", (8, 0)))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: facts.get("built", ["sm_80", "sm_90"]))


def ones(result: Callable[[], Any]) -> Callable[..., Any]:
    """In place of ``torch.ones``: the probe computes on the CPU, or what ``result`` raises."""
    real = torch.ones

    def make(*sides: int, device: object = None) -> torch.Tensor:
        result()
        return real(*sides)

    return make


def fails(text: str) -> Callable[[], Any]:
    def result() -> None:
        raise RuntimeError(text)

    return result


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({}, "no GPU found"),
        ({"driver": "550.1"}, "NVIDIA driver 550.1, but PyTorch is built for the CPU only"),
        ({"driver": "450.1", "cuda": "12.4"}, "NVIDIA driver 450.1 is too old for CUDA 12.4, or the GPU is hidden"),
        ({"amd": True}, "an AMD GPU, but PyTorch is not built for ROCm"),
        ({"mps": True}, "an Apple GPU is used only with --device mps"),
    ],
)
def test_auto_says_why_it_takes_the_cpu(facts: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, **facts)
    said: list[Any] = []
    assert devices.choose_device("auto", said.append).type == "cpu"
    assert said == [Note(f"{reason}: computing on the CPU")]
    with pytest.raises(DeviceError, match="no CUDA device is usable") as caught:
        devices.choose_device("cuda", said.append)
    assert reason in caught.value.message


@pytest.mark.parametrize(
    ("facts", "text", "reason"),
    [
        ({"capability": (3, 5)}, "no kernel image is available", "this PyTorch has no kernels for Some GPU"),
        ({}, "CUDA out of memory", "the memory of cuda is full"),
        ({}, "CUDA error: unspecified launch failure\nmore", "cuda does not compute (CUDA error: unspecified launch"),
    ],
)
def test_a_gpu_that_does_not_compute_is_not_taken(
    facts: dict[str, Any], text: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, available=True, cuda="12.4", driver="550.1", **facts)
    monkeypatch.setattr(torch, "ones", ones(fails(text)))
    said: list[Any] = []
    assert devices.choose_device("auto", said.append).type == "cpu"
    assert said[0].text.startswith(reason)
    assert "\n" not in said[0].text
    with pytest.raises(DeviceError, match="was asked for, but"):
        devices.choose_device("cuda", said.append)


def test_a_gpu_that_computes_is_taken_and_probed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, available=True, cuda="12.4", mps=True)
    calls: list[int] = []
    monkeypatch.setattr(torch, "ones", ones(lambda: calls.append(1)))
    said: list[Any] = []
    assert [devices.choose_device("auto", said.append).type for _ in range(3)] == ["cuda"] * 3
    assert said == []
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("capability", "built", "expected"),
    [
        ((8, 6), ["sm_80", "sm_90"], True),
        ((7, 5), ["sm_80", "sm_90"], False),
        ((12, 0), ["sm_80", "sm_90", "compute_90"], True),
        ((12, 0), ["sm_80", "sm_90"], False),
    ],
)
def test_kernels_for_an_architecture(
    capability: tuple[int, int], built: list[str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, capability=capability, built=built)
    assert devices.has_kernels(CUDA) is expected


def test_mps_only_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, mps=True)
    assert devices.choose_device("mps", lambda event: None).type == "mps"
    machine(monkeypatch)
    with pytest.raises(DeviceError, match="no Apple GPU"):
        devices.choose_device("mps", lambda event: None)


def test_bf16_is_asked_of_the_right_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    current: list[str] = []

    class Entered:
        def __init__(self, device: torch.device) -> None:
            self.device = device

        def __enter__(self) -> None:
            current.append(str(self.device))

        def __exit__(self, *_: object) -> None:
            current.append("left")

    monkeypatch.setattr(torch.cuda, "device", Entered)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: current == ["cuda:1"])
    assert devices._has_bf16(torch.device("cuda:1"))


def test_same_bits_are_preferred_and_what_cannot_promise_them_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    said: list[Any] = []
    known = backbones.discover()
    devices.prefer_same_bits(torch.device("cpu"), known["relay"], said.append)
    assert (said, torch.backends.cudnn.deterministic) == ([], False)
    devices.prefer_same_bits(CUDA, known["estrnn"], said.append)
    assert (said, torch.backends.cudnn.deterministic) == ([], True)
    devices.prefer_same_bits(CUDA, known["relay"], said.append)
    assert "differ in the last bits" in said[0].text


def test_drivers_are_found_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert (nvidia_driver(tmp_path), amd_driver(tmp_path)) == ("", False)
    (tmp_path / "nvidia").mkdir()
    (tmp_path / "nvidia" / "version").write_text("560.35\n")
    (tmp_path / "amdgpu").mkdir()
    assert (nvidia_driver(tmp_path), amd_driver(tmp_path)) == ("560.35", True)


@pytest.mark.parametrize(("available", "state", "words"), [(True, "ok", "not tested"), (False, "warn", "none")])
def test_doctor_knows_rocm(available: bool, state: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, hip="6.2", available=available)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (6 << 30, 8 << 30))
    monkeypatch.setattr(torch, "ones", ones(lambda: None))
    check = doctor.gpu()
    assert check.state == state
    assert "ROCm 6.2" in check.found
    assert words in check.found


def test_doctor_sends_amd_owners_to_rocm(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch)
    monkeypatch.setattr(doctor, "nvidia_driver", lambda: "")
    monkeypatch.setattr(doctor, "amd_driver", lambda: True)
    check = doctor.gpu()
    assert (check.state, check.found) == ("warn", "AMD GPU, but PyTorch is built for the CPU only")
    assert "ROCm" in check.advice


@pytest.mark.parametrize(
    ("jobs", "device", "listed", "count", "expected"),
    [
        (1, "auto", None, 4, ()),
        (4, "auto", None, 2, ("0", "1")),
        (4, "cuda", "3,5", 2, ("3", "5")),
        (4, "cuda:1", None, 2, ()),
        (4, "cpu", None, 2, ()),
        (4, "auto", None, 1, ()),
        (4, "auto", "", 0, ()),
    ],
)
def test_which_gpus_a_batch_shares(
    jobs: int, device: str, listed: str | None, count: int, expected: tuple[str, ...]
) -> None:
    assert gpus_to_share(jobs, device, listed, lambda: count) == expected


def test_processes_are_spread_evenly() -> None:
    import sys
    from concurrent.futures import ThreadPoolExecutor

    from selfhvd_tta.batch.process import Processes

    code = (
        "import os, sys, time; sys.stdin.readline(); print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True);"
        "sys.stdin.read()"
    )
    crew = Processes((sys.executable, "-c", code), {}, ("0", "1"))
    seen: list[Any] = []

    def tell(event: Any) -> None:
        seen.append(event.text)
        if len(seen) == 4:
            crew.stop()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: crew.work(str(n), {"video": "a", "output": "b"}, tell), range(4)))
    assert sorted(seen) == ["0", "0", "1", "1"]
    assert set(crew.gpus.values()) == {0}
