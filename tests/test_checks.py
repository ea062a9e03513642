"""Wrong paths and names are refused before any work, and nothing of the user's is overwritten."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

import selfhvd_tta
from selfhvd_tta import backbones, flows, weights
from selfhvd_tta.errors import DeviceError, DiskError, SelfHVDError, UsageError, WeightsError
from selfhvd_tta.events import Progress
from selfhvd_tta.extras import Extras, deblur_with
from selfhvd_tta.plugins import declared_names
from selfhvd_tta.run.checks import NewFile, check_file, check_names, check_paths
from selfhvd_tta.run.networks import find_backbone
from selfhvd_tta.settings import AdaptationSettings, AlignmentSettings, OutputSettings, RuntimeSettings, Settings
from tests.media import shaky_file

ROOT = Path(__file__).parent.parent
QUICK = Settings(
    backbone="estrnn:lite",
    alignment=AlignmentSettings(flow="dis:ultrafast", teachers=1),
    adaptation=AdaptationSettings(iters=1, crop=32, clip_length=2),
    runtime=RuntimeSettings(device="cpu", offline=True),
)


def refused(kind: type[SelfHVDError], words: str, others: list[NewFile], **changes: object) -> None:
    settings = replace(QUICK, **changes)  # type: ignore[arg-type]
    with pytest.raises(kind, match=words):
        check_paths(Path("in.mp4"), Path("out.mp4"), settings, others)


def test_every_file_that_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in.mp4").write_text("the user's")
    Path("old.safetensors").write_text("the user's")
    os.link("in.mp4", "link.safetensors")
    over = OutputSettings(overwrite=True)
    page = NewFile("--report", Path("page.html"), (".html",))
    refused(UsageError, "same file as the input", [], save_adapted="in.mp4", output=over)
    refused(UsageError, "same file as the input", [], save_adapted="link.safetensors", output=over)
    refused(UsageError, "same file as --adapted", [], save_adapted="old.safetensors", adapted="./old.safetensors")
    refused(UsageError, "is the output", [NewFile("--report", Path("out.mp4"))])
    refused(UsageError, "--save-adapted old.safetensors: exists already", [], save_adapted="old.safetensors")
    refused(UsageError, "ends in|wrong type", [], save_adapted="weights.pt")
    refused(DiskError, "there is no folder", [], save_adapted="none/w.safetensors")
    refused(WeightsError, "--adapted: there is no weights file none", [], adapted="none.safetensors")
    refused(WeightsError, "--weights: there is no weights file none", [], weights="none.safetensors")
    refused(UsageError, "unknown device 'gpu'", [], runtime=RuntimeSettings(device="gpu"))
    refused(UsageError, "--compare writes the same file", [page, NewFile("--compare", Path("./page.html"))])
    for name, words in (("-", "a file, not a stream"), ("C:\\clips\\out.mp4", "path of Windows")):
        with pytest.raises(UsageError, match=words):
            check_paths(Path("in.mp4"), Path(name), QUICK)
    check_paths(Path("in.mp4"), Path("C:out.mp4"), QUICK)
    check_paths(Path("in.mp4"), Path("out.mp4"), replace(QUICK, save_adapted="new.safetensors"), [page])
    check_paths(Path("in.mp4"), Path("out.mp4"), replace(QUICK, save_adapted="old.safetensors", output=over), [page])
    with pytest.raises(UsageError, match="is the output or lies in it"):
        check_paths(Path("in.mp4"), Path("images"), QUICK, [NewFile("--report", Path("images/page.html"))])


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(DiskError, match="no permission"):
            check_file(NewFile("--plot", tmp_path / "a.png"), overwrite=False)
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"backbone": "estrn"}, UsageError, "unknown backbone"),
        ({"backbone": "estrnn:huge"}, UsageError, "no variant"),
        ({"backbone": "estrnn", "adapted": "none.safetensors"}, WeightsError, "none.safetensors"),
        ({"weights": "none.safetensors"}, WeightsError, "none.safetensors"),
        ({"backbone": "auto", "weights": "none.safetensors"}, WeightsError, "none.safetensors"),
        ({"backbone": "hf:nobody/nothing"}, WeightsError, "hf:nobody/nothing"),
        ({"backbone": "dstnetplus:base-gopro"}, WeightsError, "not on this machine"),
        ({"backbone": "rvrt"}, WeightsError, "forbids commercial use"),
        ({"alignment": AlignmentSettings(flow="opticalflow")}, UsageError, "unknown flow"),
        ({"alignment": AlignmentSettings(flow="dis:quick")}, UsageError, "no variant"),
        ({"alignment": AlignmentSettings(flow="sea-raft")}, WeightsError, "not on this machine"),
        ({"alignment": AlignmentSettings(merge_weights="none.safetensors")}, WeightsError, "none.safetensors"),
        ({"runtime": RuntimeSettings(device="gpu")}, UsageError, "unknown device"),
        ({"runtime": RuntimeSettings(device="cuda:77")}, DeviceError, "CUDA|there are only"),
        ({"adaptation": AdaptationSettings(vgg_layer="conv9_9")}, UsageError, "no layer"),
        ({"literal": True, "alignment": AlignmentSettings(flow="dis")}, WeightsError, "--literal needs VGG19"),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else "",
)
def test_names_are_checked_before_the_scan(
    change: dict[str, object],
    kind: type[SelfHVDError],
    words: str,
    clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SELFHVD_TTA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    phases: list[str] = []

    def listen(event: object) -> None:
        if isinstance(event, Progress):
            phases.append(event.phase)

    with pytest.raises(kind, match=words):
        selfhvd_tta.deblur(clip, tmp_path / "out.mp4", replace(QUICK, **change), listen)  # type: ignore[arg-type]
    assert phases == []
    assert not list(tmp_path.glob(".out*")), "no job was begun"


def test_weights_of_another_network_are_told_before_the_scan(tmp_path: Path) -> None:
    backbone, variant = find_backbone("ifirnn")
    file = tmp_path / "w.safetensors"
    weights.save(file, backbone.build(**variant.config).state_dict(), {"backbone": "ifirnn", "variant": variant.name})
    with pytest.raises(WeightsError, match=r"w\.safetensors"):
        check_names(replace(QUICK, weights=str(file)))
    with pytest.raises(UsageError, match="holds ifirnn"):
        check_names(replace(QUICK, adapted=str(file)))
    check_names(replace(QUICK, backbone="auto", adapted=str(file)))


def test_what_a_run_needs_for_nothing_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The defaults name nothing, and a network that can be downloaded is not downloaded for a check."""

    def load(*_: object, **__: object) -> None:
        raise AssertionError("weights were asked for")

    monkeypatch.setattr(weights, "load", load)
    check_names(Settings(runtime=RuntimeSettings(device="cpu", offline=True)))
    monkeypatch.setattr(weights, "find", lambda row, offline: weights.store.Availability("downloadable"))
    check_names(Settings(backbone="dstnetplus", runtime=RuntimeSettings(device="cpu")))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shaky_file(tmp_path_factory.mktemp("checks") / "in.mp4", 6, 0)


def test_no_run_overwrites_its_input_or_what_was_there(clip: Path, tmp_path: Path) -> None:
    before = clip.read_bytes()
    over = replace(QUICK, output=OutputSettings(overwrite=True))
    with pytest.raises(UsageError, match="same file as the input"):
        selfhvd_tta.deblur(clip, tmp_path / "out.mp4", replace(over, save_adapted=str(clip)))
    with pytest.raises(UsageError, match="--report"):
        deblur_with(clip, tmp_path / "out.mp4", over, Extras(report=tmp_path / "out.mp4"))
    assert clip.read_bytes() == before
    assert os.listdir(tmp_path) == []


def test_adapted_weights_are_written_like_any_file(clip: Path, tmp_path: Path) -> None:
    saved = tmp_path / "w.safetensors"
    plain = replace(QUICK, force=True, detail=False, save_adapted=str(saved))
    selfhvd_tta.deblur(clip, tmp_path / "out.mp4", plain)
    assert saved.stat().st_mode == (tmp_path / "out.mp4").stat().st_mode
    before = saved.read_bytes()
    with pytest.raises(UsageError, match="exists already"):
        selfhvd_tta.deblur(clip, tmp_path / "other.mp4", plain)
    assert saved.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["--help"], "Usage"),
        (["--version"], "selfhvd-tta"),
        (["deblur", "--help-all"], "--backbone"),
        (["deblur", "nothing.mp4"], "there is no such file"),
        (["deblur", "clip.mp4", "--backbone", "estrn"], "unknown backbone 'estrn'"),
        (["deblur", "clip.mp4", "--backbone", "dstnetplus:base-gopo"], "Did you mean base-gopro?"),
        (["deblur", "clip.mp4", "--flow", "shke"], "Did you mean shake?"),
        (["batch", "clip.mp4", "-o", "out", "--flow", "dis:fst"], "Did you mean fast?"),
    ],
)
def test_mistakes_and_help_do_not_wait_for_torch(arguments: list[str], answer: str, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"x")
    script = "import sys; sys.modules['torch'] = None; from selfhvd_tta.cli import main; main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert answer in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "ModuleNotFoundError" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("package", "constant", "discovered"),
    [("backbones", "BACKBONE", backbones.discover), ("flows", "FLOW", flows.discover)],
)
def test_names_read_from_the_source_are_those_of_the_descriptors(
    package: str, constant: str, discovered: Callable[[], Mapping[str, Any]]
) -> None:
    group = f"selfhvd_tta.{package}"
    names = declared_names(group, constant, group)
    if entry_points(group=group):
        assert names is None
    else:
        assert names == {each.id: tuple(v.name for v in each.variants) for each in discovered().values()}


@pytest.mark.parametrize(
    "source",
    [
        "BACKBONE = Backbone(id=NAME, variants=(Variant('a'),))",
        "BACKBONE = Backbone(id='new', variants=tuple(Variant(name) for name in SIZES))",
        "BACKBONE = Backbone(id='new', variants=(Variant(SIZE), Variant('b')))",
        "from elsewhere import BACKBONE",
        "BACKBONE = (",
    ],
)
def test_names_that_are_computed_wait_for_the_import(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "networks_of_mine").mkdir()
    (tmp_path / "networks_of_mine" / "__init__.py").write_text("")
    (tmp_path / "networks_of_mine" / "literal.py").write_text("BACKBONE = Backbone(id='old', variants=(Variant('a'),))")
    monkeypatch.syspath_prepend(tmp_path)
    assert declared_names("networks_of_mine", "BACKBONE", "none.of.these") == {"old": ("a",)}
    (tmp_path / "networks_of_mine" / "computed.py").write_text(source)
    assert declared_names("networks_of_mine", "BACKBONE", "none.of.these") is None
