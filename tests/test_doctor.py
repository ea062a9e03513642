"""The doctor: a healthy machine, and every illness that can be simulated."""

from __future__ import annotations

import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from selfhvd_tta.cli import doctor
from selfhvd_tta.cli.doctor import Check, examine, exit_code
from selfhvd_tta.run.device import why_not
from selfhvd_tta.run.networks import HUB_BACKBONE, find_backbone
from selfhvd_tta.weights import find_row
from selfhvd_tta.weights.rows import Hub
from tests.hub_server import HubServer, hub  # noqa: F401 (a fixture)

ROOT = Path(__file__).parent.parent


def test_this_machine_can_do_the_work(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    checks = list(examine(tmp_path))
    assert [c for c in checks if c.state == "fail" and c.name != "memory"] == []
    names = [c.name for c in checks]
    assert len(set(names)) == len(names)
    for name in (
        "PyTorch",
        "GPU",
        "PyAV",
        "encoder libx264",
        "encoder libx265",
        "encoder libsvtav1",
        "memory",
        "cache",
    ):
        assert name in names
    assert "Hub" not in names
    assert all(c.advice for c in checks if c.state != "ok")
    assert not any("\n" in c.found + c.advice for c in checks)
    out, err = capfd.readouterr()
    assert out + err == "", "codecs print nothing"
    assert list(tmp_path.iterdir()) == []


def test_a_missing_library_is_a_row_and_no_crash() -> None:
    code = (
        "import sys\nsys.modules['torch'] = None\nsys.modules['av'] = None\n"
        "from selfhvd_tta.cli.doctor import examine, exit_code\nchecks = list(examine(ask_hub=False))\n"
        "print([c.name for c in checks if c.state == 'fail' and 'imported' in c.found], exit_code(checks))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['PyTorch', 'PyAV'] 1"


def test_exit_code() -> None:
    good, odd, bad = Check("a", "ok", ""), Check("b", "warn", "", "x"), Check("c", "fail", "", "y")
    assert [exit_code(c) for c in ([], [good, odd], [good, bad])] == [0, 0, 1]


def test_an_encoder_that_is_not_there() -> None:
    check = doctor.encoder("libnothing", "Nothing", "warn", "Do without.")
    assert (check.state, check.advice) == ("warn", "Do without.")
    assert "does not work" in check.found


def test_an_encoder_that_refuses() -> None:
    assert doctor.encoder("png", "no YUV", "fail", "x").state == "fail"


@pytest.mark.parametrize(
    ("built", "available", "driver", "words"),
    [
        (None, False, "", "built for the CPU only"),
        (None, False, "550.1", "NVIDIA driver 550.1, but PyTorch is built for the CPU only"),
        ("12.4", False, "", "no NVIDIA driver"),
        ("12.4", False, "550.1", "finds no device"),
    ],
)
def test_reasons_for_no_gpu(
    built: str | None, available: bool, driver: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(doctor, "nvidia_driver", lambda: driver)
    monkeypatch.setattr(doctor, "amd_driver", lambda: False)
    check = doctor.gpu()
    assert check.state == "warn"
    assert words in check.found
    assert check.advice


def test_a_gpu_that_does_not_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no kernel image is available\nmore")

    monkeypatch.setattr(torch.version, "cuda", "12.4")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Old GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (3, 5))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_80"])
    monkeypatch.setattr(torch, "ones", broken)
    check = doctor.gpu()
    why_not.cache_clear()
    assert check.state == "fail"
    assert check.found == "cuda:0 Old GPU: this PyTorch has no kernels for Old GPU"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_that_does() -> None:
    check = doctor.gpu()
    assert check.state == "ok"
    assert torch.cuda.get_device_name(0) in check.found
    assert "GiB free" in check.found


def test_a_container_with_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.container_left(tmp_path) is None
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert doctor.container_left(tmp_path) is None
    (tmp_path / "memory.max").write_text("5000\n")
    assert doctor.container_left(tmp_path) == 4000
    for left, state in ((doctor.GIB, "fail"), (doctor.LITTLE_MEMORY - 1, "warn")):
        monkeypatch.setattr(doctor, "container_left", lambda left=left: left)
        check = doctor.memory()
        if check.found.startswith(f"{left / doctor.GIB:.1f} GiB left of what this container may use"):
            assert check.state == state
        else:
            assert float(check.found.split()[0]) * doctor.GIB <= left, "the machine itself has less"


def test_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.disk(tmp_path / "no").state == "fail"
    usage = namedtuple("usage", "free")
    for free, state in ((doctor.TOO_LITTLE_DISK - 1, "fail"), (doctor.LITTLE_DISK - 1, "warn"), (1 << 50, "ok")):
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _, free=free: usage(free))
        assert doctor.disk(tmp_path).state == state


def test_a_folder_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    check = doctor.disk(tmp_path)
    assert (check.state, check.found) == ("fail", "cannot be written to: Permission denied")


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SELFHVD_TTA_CACHE", str(tmp_path / "file" / "cache"))
    assert doctor.cache().state == "warn"
    monkeypatch.setenv("SELFHVD_TTA_CACHE", str(tmp_path / "new" / "cache"))
    assert doctor.cache().state == "ok"
    assert not (tmp_path / "new").exists()


def test_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFHVD_TTA_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    rows = {c.name: c for c in doctor.weights_here()}
    for part in ("network", "flow", "merging network"):
        assert rows[f"bundled {part}"].state == "ok"
    assert (rows["backbone weights"].state, rows["flow weights"].state) == ("warn", "warn")
    assert "15.7 MB" in rows["backbone weights"].advice


def test_the_hub(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    source = find_row(find_backbone(":".join(HUB_BACKBONE))[1].weights[0]).source
    assert isinstance(source, Hub)
    check = doctor.hub()
    assert check.state == "warn"
    assert "no repository" in check.found
    hub.add(source.repo, {source.file: b"weights"})
    check = doctor.hub()
    assert check.state == "ok", check
    assert not hub.asked("GET", source.file)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE" in doctor.hub().found
