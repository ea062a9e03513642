"""What ``selfhvd-tta models`` shows of the table."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfhvd_tta.weights import models_overview, table


def test_every_row_is_shown_with_what_there_is_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFHVD_TTA_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    rows = {row.name: row for row in models_overview()}
    assert list(rows) == list(table())
    assert rows["dstnetplus-base-gopro"].model == "dstnetplus:base-gopro"
    assert rows["dstnetplus-base-gopro"].state == "downloadable"
    assert rows["dstnetplus-base-gopro"].size == "15.7 MB"
    assert "GoPro" in rows["dstnetplus-base-gopro"].note
    assert "drive.google.com" in rows["estrnn-bsd-1ms8ms"].note
    assert "ESTRNN_C80B15_BSD_1ms8ms.tar" in rows["estrnn-bsd-1ms8ms"].note
    assert "not for commercial use" in rows["rvrt-gopro"].note
    assert "9 MB of 575 MB" in rows["vgg19"].note
    assert all("\n" not in row.note for row in rows.values())
    offline = {row.name: row for row in models_overview(offline=True)}
    assert offline["dstnetplus-base-gopro"].state == "missing"
    assert "downloading is off" in offline["dstnetplus-base-gopro"].note
