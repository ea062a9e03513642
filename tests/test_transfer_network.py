"""Transfer merges into what a network makes of the video, or into the frames as recorded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import selfhvd_tta
from selfhvd_tta.errors import UsageError
from selfhvd_tta.events import Event, Plan, ignore
from selfhvd_tta.run import networks as models
from selfhvd_tta.run.device import choose_device
from selfhvd_tta.settings import AlignmentSettings, RuntimeSettings, Settings
from tests.fidelity import decode_planes
from tests.media import shaky_file

TRANSFER = Settings(
    method="transfer",
    alignment=AlignmentSettings(flow="dis:ultrafast", teachers=1),
    runtime=RuntimeSettings(device="cpu", offline=True),
)


def test_it_merges_into_the_output_of_the_network_that_was_asked_for(tmp_path: Path) -> None:
    source = shaky_file(tmp_path / "in.mp4", 8, 0)
    outputs, said = {}, {}
    for name in ("auto", "estrnn:lite", "none"):
        events: list[Event] = []
        out = tmp_path / f"{name.partition(':')[0]}.mp4"
        result = selfhvd_tta.deblur(source, out, replace(TRANSFER, backbone=name), events.append)
        assert (result.action, result.frames, result.record) == ("transferred", 8, None)
        outputs[name] = b"".join(plane.tobytes() for _, planes in decode_planes(out) for plane in planes)
        (plan,) = (event for event in events if isinstance(event, Plan))
        said[name] = dict(plan.rows)
    assert len(set(outputs.values())) == 3
    assert said["auto"]["backbone"].startswith(":".join(models.OFFLINE_BACKBONE))
    assert said["estrnn:lite"]["backbone"].startswith("estrnn:lite")
    assert "backbone" not in said["none"]
    assert "as recorded" in said["none"]["method"]
    assert "backbone's output" in said["auto"]["method"]


def test_it_does_not_ask_the_hub_for_a_stronger_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """It shall be quick; the strongest network is slow where there is no GPU."""

    def fetch(row: str, *_: object) -> object:
        raise AssertionError(f"{row} was fetched")

    online = replace(TRANSFER, runtime=replace(TRANSFER.runtime, offline=False))
    loaded = models.load_backbone(online, choose_device("cpu", ignore), ignore)
    assert loaded.name == ":".join(models.OFFLINE_BACKBONE)
    monkeypatch.setattr(models, "_fetch", fetch)
    with pytest.raises(AssertionError, match="dstnetplus"):
        models.load_backbone(replace(online, method="adapt"), choose_device("cpu", ignore), ignore)


@pytest.mark.parametrize("method", ["adapt", "refit"])
def test_only_transfer_does_without_a_network(method: str) -> None:
    with pytest.raises(UsageError, match="--backbone"):
        Settings(method=method, backbone="none")  # type: ignore[arg-type]
