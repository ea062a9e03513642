"""The table of models, and what is bundled."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from selfhvd_tta import config
from selfhvd_tta.errors import ExitCode, WeightsError
from selfhvd_tta.files import sha256_of
from selfhvd_tta.weights import bundled_folder, find, load, table
from selfhvd_tta.weights.rows import Bundled, Download, Hub, Manual, parse_source, read_table

ROOT = Path(__file__).parent.parent


def test_every_row_says_what_a_user_has_to_know() -> None:
    for name, row in table().items():
        assert row.name == name
        assert row.licence, name
        assert row.trained_on, name
        assert row.model, name
        assert isinstance(row.source, Bundled) or row.source, name


def test_every_file_on_the_hub_that_is_not_pinned_can_be_pinned_at_first_use() -> None:
    unpinned = {name for name, row in table().items() if isinstance(row.source, Hub) and not row.sha256}
    assert unpinned == {"sea-raft-s", "vgg19"}, "pin every file whose digest is known"


def test_non_commercial_rows_are_flagged() -> None:
    for name, row in table().items():
        assert row.non_commercial == ("-NC" in row.licence), name


@pytest.mark.parametrize("name", [name for name, row in table().items() if isinstance(row.source, Bundled)])
def test_bundled_files_are_what_the_table_says(name: str) -> None:
    row = table()[name]
    assert isinstance(row.source, Bundled)
    path = bundled_folder() / row.source.file
    if not path.is_file():
        assert find(name, offline=True).state == "missing"
        with pytest.raises(WeightsError, match="not part of this installation"):
            load(name, offline=True)
        pytest.skip(f"{row.source.file} is not there yet")
    assert row.sha256 == sha256_of(path), f'put `sha256 = "{sha256_of(path)}"` into the row'
    weights = load(name, offline=True)
    assert weights.sha256 == row.sha256
    assert weights.config["backbone"] == row.model
    assert weights.config["variant"] == row.variant


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("bundled:a-b.safetensors", Bundled("a-b.safetensors")),
        ("hf:owner/na.me/x.pth", Hub("owner/na.me", "x.pth")),
        ("hf:owner/name/folder/x.pth@v1.0", Hub("owner/name", "folder/x.pth", "v1.0")),
        ("https://host/a/x.pth", Download(("https://host/a/x.pth",))),
    ],
)
def test_sources_are_read_and_written_alike(text: str, source: object) -> None:
    assert parse_source(text) == source
    assert str(source) == text


def test_manual_sources_name_page_and_file() -> None:
    assert parse_source("manual:https://page", "x.tar") == Manual("https://page", "x.tar")


@pytest.mark.parametrize("text", ["", "x.pth", "hf:owner", "hf:owner/name", "bundled:../x", "ftp://x", "manual:page"])
def test_other_sources_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no known form"):
        parse_source(text)


@pytest.mark.parametrize(
    "line",
    ['kind = "backbone"', 'kind = "other"', 'sha256 = "12"', 'colour = "rgb"', 'channel_order = "gbr"', "kind ="],
)
def test_a_damaged_table_is_said_so(tmp_path: Path, line: str) -> None:
    good = 'kind = "flow"\nmodel = "m"\nvariant = "v"\nsource = "bundled:x"\n'
    path = tmp_path / "models.toml"
    path.write_text(f"[row-one]\n{good}")
    assert read_table(path)["row-one"].model == "m"
    path.write_text(
        f"[row-one]\n{good}{line}\n".replace('kind = "flow"\n', "") if "kind" in line else f"[row-one]\n{good}{line}\n"
    )
    if line == 'kind = "backbone"':
        assert read_table(path)["row-one"].kind == "backbone"
        return
    with pytest.raises(WeightsError, match=r"models\.toml") as error:
        read_table(path)
    assert "\n" not in error.value.message


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(WeightsError, match="'none'") as error:
        find("none", offline=True)
    assert "raft-small" in error.value.hint
    assert error.value.exit_code is ExitCode.WEIGHTS


def test_looking_at_all_rows_takes_milliseconds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SELFHVD_TTA_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        states = {name: find(name, offline=False) for name in table()}
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.1
    assert states["raft-small"].state == "downloadable"
    assert states["raft-small"].bytes == 3_984_814
    assert states["estrnn-bsd-3ms24ms"].state == "manual"
    assert "drive.google.com" in states["estrnn-bsd-3ms24ms"].reason
    assert find("raft-small", offline=True).state == "missing"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert find("raft-small", offline=False).state == "missing"


def test_the_table_needs_neither_torch_nor_the_client() -> None:
    code = (
        "import sys; from selfhvd_tta import weights\n"
        "[weights.find(n, offline=False) for n in weights.table()]\n"
        "sys.exit(bool({'torch', 'huggingface_hub', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_an_installed_package_finds_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["selfhvd_tta.weights.rows"]
    package = tmp_path / "site-packages" / "selfhvd_tta"
    (package / "weights").mkdir(parents=True)
    monkeypatch.setattr(module, "__file__", str(package / "weights" / "rows.py"))
    assert bundled_folder() == tmp_path / "site-packages" / "weights"
    (package / "bundled_weights").mkdir()
    assert bundled_folder() == package / "bundled_weights"


def test_what_the_wheel_leaves_out_is_copied_from_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = config.tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    held = {Path(path).name for path in wheel["force-include"]}
    rows = [row for row in table().values() if isinstance(row.source, Bundled)]
    left_out = {row.name for row in rows if str(row.source).removeprefix("bundled:") not in held}
    assert left_out == {"nafnet-lite", "estrnn-c80b15"}, "networks that nothing chooses by itself"
    assert "models.toml" in held

    whole = bundled_folder()
    monkeypatch.setattr(sys.modules["selfhvd_tta.weights.store"], "bundled_folder", lambda: tmp_path / "wheel")
    monkeypatch.setenv("SELFHVD_TTA_CACHE", str(tmp_path / "cache"))
    with pytest.raises(WeightsError, match="'nafnet-lite' are not part of this installation") as missing:
        load("nafnet-lite", offline=True)
    copy = tmp_path / "cache" / "manual" / "nafnet-lite.safetensors"
    assert missing.value.hint == f"Copy weights/nafnet-lite.safetensors of the repository to {copy}."
    assert "copy weights/" in find("nafnet-lite", offline=True).reason
    copy.parent.mkdir(parents=True)
    shutil.copyfile(whole / copy.name, copy)
    assert find("nafnet-lite", offline=True).state == "here"
    assert load("nafnet-lite", offline=True).path == copy


def test_plug_ins_and_table_agree() -> None:
    from selfhvd_tta import backbones, flows
    from selfhvd_tta.run.networks import MERGER

    named = set()
    for plug_in in (*backbones.discover().values(), *flows.discover().values()):
        for variant in plug_in.variants:
            named |= set(variant.weights)
            for name in set(variant.weights) & set(table()):
                row = table()[name]
                assert (row.model, row.variant) == (plug_in.id, variant.name), name
                assert row.channel_order == getattr(variant, "channel_order", "rgb"), name
    assert named - set(table()) <= {"estrnn"}, "weights that no row describes (the full ESTRNN is yet to be trained)"
    known = {"selfhvd-basicvsrpp", "basicvsrpp-gopro", "basicvsrpp-dvd", "rvrt-gopro", "rvrt-dvd", "vgg19", MERGER}
    assert set(table()) - named <= known, "rows that no plug-in uses"
