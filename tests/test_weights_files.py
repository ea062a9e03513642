"""safetensors files, checkpoints of others, and state dicts that do not fit."""

from __future__ import annotations

import json
import pickle
import struct
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from selfhvd_tta.errors import UsageError, WeightsError
from selfhvd_tta.weights import check_state, convert_checkpoint, load, load_file, save
from selfhvd_tta.weights.cache import exclusive
from selfhvd_tta.weights.convert import read_checkpoint
from selfhvd_tta.weights.hub import cached_file
from selfhvd_tta.weights.rows import Hub

CONFIG = {"backbone": "estrnn", "variant": "lite", "config": {"n_features": 8}}


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 3))


def assert_one_line(error: pytest.ExceptionInfo[WeightsError]) -> None:
    assert "\n" not in error.value.message
    assert "\n" not in error.value.hint
    assert error.value.hint


def test_saved_weights_come_back_with_their_description(tmp_path: Path, network: nn.Module) -> None:
    path = tmp_path / "deeper" / "w.safetensors"
    save(path, network.state_dict(), CONFIG)
    weights = load_file(path)
    assert weights.config == CONFIG
    assert weights.tensors.keys() == network.state_dict().keys()
    assert all(torch.equal(weights.tensors[name], value) for name, value in network.state_dict().items())
    assert [entry.name for entry in path.parent.iterdir()] == ["w.safetensors"]


def test_saving_keeps_the_old_file_when_it_fails(tmp_path: Path, network: nn.Module) -> None:
    path = tmp_path / "w.safetensors"
    save(path, network.state_dict(), CONFIG)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        save(path, network.state_dict(), CONFIG | {"x": object()})
    with pytest.raises(ValueError, match="variant"):
        save(path, network.state_dict(), {"backbone": "estrnn"})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["w.safetensors"]


def test_saving_where_nothing_can_be_written(tmp_path: Path, network: nn.Module) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WeightsError, match="cannot be written") as error:
        save(tmp_path / "file" / "w.safetensors", network.state_dict(), CONFIG)
    assert_one_line(error)


def test_tensors_that_share_memory_are_stored_each(tmp_path: Path) -> None:
    tensor = torch.arange(6.0).reshape(2, 3)
    path = tmp_path / "w.safetensors"
    save(path, {"a": tensor, "b": tensor, "c": tensor.T, "d": tensor[:, 1]}, CONFIG)
    found = load_file(path).tensors
    assert torch.equal(found["c"], tensor.T)
    assert torch.equal(found["d"], torch.tensor([1.0, 4.0]))


@given(cut=st.floats(0, 0.999))
@settings(max_examples=25, deadline=None)
def test_a_file_cut_anywhere_is_said_so(tmp_path_factory: pytest.TempPathFactory, cut: float) -> None:
    path = tmp_path_factory.mktemp("cut") / "w.safetensors"
    save(path, {"weight": torch.ones(8, 8)}, CONFIG)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * cut)])
    with pytest.raises(WeightsError, match="cut short") as error:
        load_file(path)
    assert_one_line(error)


def _pickled(path: Path) -> None:
    torch.save({"weight": torch.ones(2)}, path)


def _old_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"weight": 1}))


def _page(path: Path) -> None:
    path.write_text("<!DOCTYPE html><html>virus scan warning</html>")


def _pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n")


def _empty(path: Path) -> None:
    save_file({}, path)


def _not_finite(path: Path) -> None:
    save_file({"weight": torch.tensor([1.0, float("nan")])}, path)


def _bad_description(path: Path) -> None:
    save_file({"weight": torch.ones(1)}, path, metadata={"selfhvd_tta": "{"})


def _huge_header(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 1 << 62) + b"{}")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_pickled, "pickle"),
        (_old_pickle, "pickle"),
        (_page, "web page"),
        (_pointer, "LFS pointer"),
        (_empty, "no tensors"),
        (_not_finite, "'weight' holds values that are not finite"),
        (_bad_description, "damaged JSON"),
        (_huge_header, "damaged"),
        (Path.mkdir, "folder"),
        (lambda path: None, "no weights file"),
    ],
)
def test_files_that_are_something_else(tmp_path: Path, make: Any, reason: str) -> None:
    path = tmp_path / "w.safetensors"
    make(path)
    with pytest.raises(WeightsError, match=reason) as error:
        load_file(path)
    assert_one_line(error)


def test_a_pickle_is_never_opened_at_run_time(tmp_path: Path) -> None:
    class Opened:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    for name in ("w.pth", "w.safetensors"):
        (tmp_path / name).write_bytes(pickle.dumps(Opened(), protocol=2))
        with pytest.raises(WeightsError, match="pickle") as error:
            load_file(tmp_path / name)
        assert "weights convert" in error.value.hint
    with pytest.raises(WeightsError, match=r"without running code from it: it asks for|not a PyTorch checkpoint"):
        read_checkpoint(tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_with_objects_names_what_it_asks_for(tmp_path: Path) -> None:
    torch.save({"state_dict": {"weight": torch.ones(1)}, "args": Path("x")}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"it asks for pathlib") as error:
        read_checkpoint(tmp_path / "w.pth")
    assert_one_line(error)


def test_state_dicts_are_compared_by_name_and_shape(network: nn.Module) -> None:
    state = network.state_dict()
    check_state(state, state)
    with pytest.raises(WeightsError, match=r"1 of 9 missing: '2.bias'") as error:
        check_state(state, {name: value for name, value in state.items() if name != "2.bias"})
    assert_one_line(error)
    with pytest.raises(WeightsError, match=r"1 unexpected: '3.bias'"):
        check_state(state, state | {"3.bias": torch.ones(1)})
    with pytest.raises(WeightsError, match=r"w.safetensors.*1 of another shape: '2.weight' is 3x4x1x1, not 3x4x3x3"):
        check_state(state, state | {"2.weight": torch.ones(3, 4, 1, 1)}, "w.safetensors")
    with pytest.raises(
        WeightsError, match=r"9 of 9 missing: '0.weight', '0.bias', '1.weight' and 6 more; 9 unexpected"
    ):
        check_state(state, {f"module.{name}": value for name, value in state.items()})


def _ddp(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"module.{name}": value for name, value in state.items()}


def _mmediting(state: dict[str, Tensor]) -> dict[str, Any]:
    inner = {f"generator.{name}": value for name, value in state.items()}
    scores = {"best": np.float64(31.2), "last": np.float32(30.0)}
    return {"meta": {"iter": 5, "hook_msgs": scores}, "state_dict": inner | {"step_counter": torch.zeros(1)}}


LAYOUTS: dict[str, Any] = {
    "plain": (lambda state: state, ""),
    "raft": (_ddp, "module."),
    "basicsr": (lambda state: {"params": state}, "params"),
    "basicsr-ema": (
        lambda state: {"params": {name: value * 0 for name, value in state.items()}, "params_ema": state},
        "params_ema",
    ),
    "estrnn": (
        lambda state: {
            "epoch": 500,
            "model": "ESTRNN",
            "state_dict": OrderedDict(_ddp(state)),
            "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1e-4}]},
            "scheduler": {"milestones": Counter([200, 400])},
        },
        "state_dict, module.",
    ),
    "mmediting": (_mmediting, "state_dict, generator."),
    "nested": (lambda state: {"model": {"model_state_dict": state}}, "model, model_state_dict"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_checkpoints_of_all_frameworks_are_converted(tmp_path: Path, network: nn.Module, layout: str) -> None:
    wrap, steps = LAYOUTS[layout]
    state = dict(network.state_dict())
    torch.save(wrap(state), tmp_path / "author.pth")
    expected = {name: tuple(value.shape) for name, value in state.items()}
    done = convert_checkpoint(tmp_path / "author.pth", tmp_path / "out.safetensors", expected, CONFIG)
    assert done.layout == steps
    assert done.tensors == len(state)
    assert str(done.path) in str(done)
    assert ("step_counter" in done.dropped) == (layout == "mmediting")
    weights = load_file(done.path)
    assert weights.config == CONFIG
    assert all(torch.equal(weights.tensors[name], value) for name, value in state.items())
    check_state(state, weights.tensors)


def test_scalars_named_as_by_an_older_numpy_are_read(tmp_path: Path, network: nn.Module) -> None:
    import zipfile

    torch.save(_mmediting(dict(network.state_dict())), tmp_path / "new.pth")
    with zipfile.ZipFile(tmp_path / "new.pth") as new, zipfile.ZipFile(tmp_path / "old.pth", "w") as old:
        for name in new.namelist():
            old.writestr(name, new.read(name).replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert (tmp_path / "old.pth").read_bytes() != (tmp_path / "new.pth").read_bytes()
    assert read_checkpoint(tmp_path / "old.pth").tensors.keys() == network.state_dict().keys()


def test_a_checkpoint_of_another_network_is_not_converted(tmp_path: Path, network: nn.Module) -> None:
    torch.save(network.state_dict(), tmp_path / "author.pth")
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()} | {"3.bias": (7,)}
    with pytest.raises(WeightsError, match=r"author.pth does not fit this network: 1 of 10 missing: '3.bias'") as error:
        convert_checkpoint(tmp_path / "author.pth", tmp_path / "out.safetensors", expected)
    assert_one_line(error)
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("content", [b"", b"hello" * 20, b"\x80\x02}q\x00.", b"PK\x03\x04 cut short"])
def test_checkpoints_that_are_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=r"x\.pth (is not a PyTorch|holds no network)") as error:
        read_checkpoint(tmp_path / "x.pth")
    assert_one_line(error)


def test_a_checkpoint_cut_short(tmp_path: Path, network: nn.Module) -> None:
    torch.save(network.state_dict(), tmp_path / "x.pth")
    content = (tmp_path / "x.pth").read_bytes()
    (tmp_path / "x.pth").write_bytes(content[:-200])
    with pytest.raises(WeightsError, match="damaged"):
        read_checkpoint(tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="no checkpoint"):
        read_checkpoint(tmp_path / "y.pth")


def test_our_files_are_read_by_others(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save(path, {"weight": torch.ones(2, 2)}, CONFIG)
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
    assert header["__metadata__"]["format"] == "pt"
    assert json.loads(header["__metadata__"]["selfhvd_tta"]) == CONFIG


def test_a_checkpoint_is_not_replaced_by_itself(tmp_path: Path) -> None:
    checkpoint = tmp_path / "author.pth"
    checkpoint.write_bytes(b"years of work")
    (tmp_path / "link.safetensors").symlink_to(checkpoint)
    for out in (checkpoint, tmp_path / "link.safetensors", tmp_path / "." / "author.pth"):
        with pytest.raises(UsageError, match="is the checkpoint itself"):
            convert_checkpoint(checkpoint, out, None)
    assert checkpoint.read_bytes() == b"years of work"


def test_a_user_without_a_home_needs_a_cache_for_downloads_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_: int) -> Any:
        raise KeyError("uid not found")

    for name in ("HOME", "XDG_CACHE_HOME", "SELFHVD_TTA_CACHE", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    assert load("merge-shake", offline=True).tensors
    assert cached_file(Hub("owner/name", "a.safetensors", "main")) is None

    def take() -> None:
        with exclusive("x"):
            raise AssertionError("there is no place for it")

    with pytest.raises(WeightsError, match="cannot be written") as error:
        take()
    assert "SELFHVD_TTA_CACHE" in error.value.hint
