"""Every cell of the table in docs/reference/media.md is what really happens."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfhvd_tta.video.reader import VideoReader
from tests import fidelity
from tests.media import decode_planes, make_clip
from tests.test_video_roundtrip import TICK, identity

PAGE = fidelity.DOCS.read_text()
ROWS = {line.split(" | ")[0].removeprefix("| "): line for line in PAGE.splitlines() if line.startswith("| ")}


@pytest.mark.parametrize("suffix", fidelity.OUTPUTS)
@pytest.mark.parametrize("name", fidelity.CHECKS)
def test_the_documented_cell_holds(name: str, suffix: str, tmp_path: Path) -> None:
    cells = [cell.strip() for cell in ROWS[name].strip("| ").split(" | ")][1:]
    fidelity.SAID.clear()
    assert fidelity.CHECKS[name](tmp_path, suffix) == cells[fidelity.OUTPUTS.index(suffix)]
    assert not [note for note in fidelity.SAID if note not in PAGE]


@pytest.mark.parametrize("suffix", fidelity.INPUTS)
def test_containers_that_can_be_read(suffix: str, tmp_path: Path) -> None:
    fidelity.reading(tmp_path, suffix)
    assert f"`{suffix}`" in PAGE


@settings(max_examples=10, deadline=None)
@given(
    steps=st.lists(st.integers(1, 40_000), min_size=0, max_size=25),
    start=st.integers(0, 100_000),
    b_frames=st.integers(0, 3),
    group=st.integers(1, 12),
    suffix=st.sampled_from([".mp4", ".mov"]),
)
def test_frames_in_are_frames_out_at_the_same_times(
    steps: list[int], start: int, b_frames: int, group: int, suffix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("property")
    pts = [start]
    for step in steps:
        pts.append(pts[-1] + step)
    options = {"crf": "20", "bf": str(b_frames), "g": str(group), "preset": "ultrafast"}
    source = make_clip(folder / "in.mp4", pts, TICK, options=options)
    assert [f.pts for f in VideoReader(source)] == pts
    assert identity(source, folder / f"out{suffix}", crf=30) == []
    assert [p for p, _ in decode_planes(folder / f"out{suffix}")] == pts
