"""Memory that runs out in every phase of a run: it goes on with less, says so, and ends in an error that helps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import selfhvd_tta
from selfhvd_tta.errors import DeviceError, InputError, is_out_of_memory
from selfhvd_tta.events import Event, Note
from selfhvd_tta.flows import FlowField
from selfhvd_tta.method import adaptation as loop
from selfhvd_tta.method import alignment, transfer
from selfhvd_tta.method.exposure import Exposure
from selfhvd_tta.method.labels import LabelBank
from selfhvd_tta.run import forecast, frames
from selfhvd_tta.run.memory import within_memory
from selfhvd_tta.settings import AdaptationSettings, AlignmentSettings, RuntimeSettings, Settings
from selfhvd_tta.video.reader import Frame
from tests.tiny import Still, adaptation_of, blurry_clip, working_set

CPU = torch.device("cpu")
FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.parametrize(
    "error",
    [
        FULL,
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("cusolver error: CUSOLVER_STATUS_INTERNAL_ERROR, when calling `cusolverDnCreate(handle)`"),
        RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
        RuntimeError("HIP out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        cv2.error("OpenCV(4.10.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 99 bytes"),
    ],
    ids=lambda e: str(e)[:40],
)
def test_what_says_that_memory_ran_out(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        InputError("holiday out of memory.mp4: cannot be read"),
        OSError(12, "Cannot allocate memory: out of memory.mp4"),
        ValueError("shape"),
    ],
    ids=str,
)
def test_what_does_not(error: Exception) -> None:
    assert not is_out_of_memory(error)


def failing(real: Callable[..., Any], times: int, when: Callable[..., bool] = lambda *a, **k: True) -> Any:
    """``real``, but its first calls run out of memory."""
    left = [times]

    def call(*args: Any, **kwargs: Any) -> Any:
        if left[0] and when(*args, **kwargs):
            left[0] -= 1
            raise FULL
        return real(*args, **kwargs)

    return call


STEPS = ["one pair of frames at a time", "flow at half the size", "alignment on the CPU"]


def test_labels_come_down_step_by_step_and_stay_there(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    flow = Still()
    flow.economy.warn = said.append
    bank = LabelBank(working_set(blurry_clip(9)), CPU, flow, AlignmentSettings(), 0.5)
    whole = LabelBank(working_set(blurry_clip(9)), CPU, Still(), AlignmentSettings(), 0.5)
    # Not the first two calls: pairs that are aligned at the same time fail together, and are one step down.
    too_much = failing(transfer.align, 99, lambda *a, **k: not flow.economy.half_size)
    with monkeypatch.context() as little:
        little.setattr(transfer, "align", too_much)
        bank.complete(range(9))
    assert ["while making labels" in line for line in said] == [True, True]
    assert [step in line for line, step in zip(said, STEPS, strict=False)] == [True, True]
    assert flow.economy.one_by_one
    assert flow.economy.half_size
    whole.complete(range(9))
    assert all(bank.made)
    assert torch.equal(bank.label, whole.label), "nothing moves, so half the size finds the same"


def test_the_least_that_labels_need_is_an_error_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    bank = LabelBank(working_set(blurry_clip(9)), CPU, Still(), AlignmentSettings(), 0.5)
    monkeypatch.setattr(transfer, "align", failing(transfer.align, 99))
    with pytest.raises(DeviceError, match="while making labels") as caught:
        bank.complete(range(9))
    assert "--teachers" in caught.value.hint


def test_a_gpu_hands_alignment_to_the_cpu_at_last() -> None:
    flow, said = Still(), []
    flow.economy.warn = said.append
    result = flow.economy.run(failing(lambda: "done", 3), "blending", torch.device("cuda"))
    assert result == "done"
    assert [step in line for line, step in zip(said, STEPS, strict=True)] == [True] * 3
    assert flow.economy.module(flow) is not flow
    assert flow.economy.module(flow) is flow.economy.module(flow), "copied once"
    assert flow.economy.placed(torch.zeros(1)).device == CPU


class Slide(Still):
    """Everything moves by three pixels to the right and two down, whatever the size of the frame."""

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> FlowField:
        field = super().forward(source, target)
        share = torch.tensor([3 / 56, 2 / 48]).view(1, 2, 1, 1)
        extent = torch.tensor([source.shape[-1], source.shape[-2]]).view(1, 2, 1, 1)
        return FlowField(field.flow + share * extent, field.certainty)


def test_flow_at_half_the_size_is_flow_in_pixels_of_the_frame() -> None:
    flow, picture = Slide(), torch.rand(2, 3, 48, 56)
    whole = alignment.flows_between(picture, picture, flow)
    flow.economy.half_size = True
    half = alignment.flows_between(picture, picture, flow)
    for one, other in zip(whole, half, strict=True):
        torch.testing.assert_close(one.flow, other.flow)
        torch.testing.assert_close(one.certainty, other.certainty)


def test_the_error_of_one_thread_waits_for_the_others() -> None:
    from selfhvd_tta.method.parallel import each

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    done: list[int] = []

    def work(item: int) -> int:
        if item == 0:
            raise FULL
        done.append(item)
        return item

    try:
        with pytest.raises(torch.OutOfMemoryError):
            each(work, [0, 1, 2, 3], CPU)
    finally:
        torch.set_num_threads(before)
    assert sorted(done) == [1, 2, 3]
    assert each(work, [1, 2], CPU, alone=True) == [1, 2]


SMALL = Settings(adaptation=AdaptationSettings(iters=4, crop=160, clip_length=6, batch=2, label_refresh=2))


def test_a_training_step_shrinks_until_it_fits() -> None:
    events: list[Event] = []
    job = adaptation_of(blurry_clip(9, 160, 168), SMALL, events.append)
    network = job.network
    most = 4 * 100 * 100

    def too_large(clip: torch.Tensor) -> bool:
        return network.training and clip[:, :, 0].numel() > most

    network.forward = failing(network.forward, 99, too_large)  # type: ignore[method-assign]
    record = job.run()
    assert len(record.steps) == 4
    said = [e.text for e in events if isinstance(e, Note) and "memory ran out in a training step" in e.text]
    assert len(said) == 4
    assert "1 clip of 4 frames and crops of 96 pixels" in said[-1]
    assert job.supervision.settings is job.settings


def test_a_step_that_ran_out_of_memory_is_repeated_with_the_same_draws() -> None:
    plain = adaptation_of(blurry_clip(9, 160, 168), replace(SMALL, adaptation=replace(SMALL.adaptation, batch=1)))
    plain.run()
    other = adaptation_of(blurry_clip(9, 160, 168), SMALL)
    other.network.forward = failing(other.network.forward, 1, lambda clip: len(clip) == 2)  # type: ignore[method-assign]
    other.run()
    for one, two in zip(plain.network.parameters(), other.network.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_step_that_never_fits_is_an_error_with_a_way_out() -> None:
    job = adaptation_of(blurry_clip(9, 64, 64), SMALL)
    network = job.network
    network.forward = failing(network.forward, 99, lambda clip: network.training)  # type: ignore[method-assign]
    with pytest.raises(DeviceError, match="not enough memory on cpu for one training step") as caught:
        job.run()
    assert "--method transfer" in caught.value.hint


def test_labels_on_a_gpu_go_to_host_memory_first(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Event] = []
    job = adaptation_of(blurry_clip(9, 64, 64), SMALL, events.append)
    moves = [True]
    monkeypatch.setattr(type(job.supervision), "to_host", lambda self: bool(moves and moves.pop()))
    job.step = failing(job.step, 1)  # type: ignore[method-assign]
    assert len(job.run().steps) == 4
    assert "the labels in host memory" in next(e.text for e in events if isinstance(e, Note))
    assert job.settings.adaptation.batch == 2, "nothing else changes"


def test_on_a_cpu_there_is_nothing_to_move() -> None:
    job = adaptation_of(blurry_clip(9, 64, 64), SMALL)
    assert not job.supervision.to_host()
    assert job.inputs.in_host_memory() is None


def explaining(recorded: list[np.ndarray], said: list[str], times: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A blender of local blur whose explanations run out of memory some times."""
    real = frames.Explainer.explain
    monkeypatch.setattr(frames.Explainer, "explain", failing(real, times))
    details = frames.LocalDetails(Exposure(share=1.0, length=1e3, known=1.0), False, said.append)
    clues = working_set(np.stack(recorded)).clues
    return details.begin(lambda first: (Frame(i, i, recorded[i]) for i in range(first, len(recorded))), clues, CPU, 0)


def test_local_blur_is_explained_at_half_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded, said = list(blurry_clip(9, 96, 128)), []
    blender = explaining(recorded, said, 1, monkeypatch)
    whole = explaining(recorded, [], 0, pytest.MonkeyPatch())
    for index in range(3):
        frame = Frame(index, index, recorded[index])
        current = torch.from_numpy(recorded[index]).permute(2, 0, 1) / 255
        small, full = blender.blend(frame, current), whole.blend(frame, current)
        assert small.shape == full.shape == (3, 96, 128)
        assert (small - full).abs().mean() < 0.03
    assert said == ["memory ran out while explaining blur: continuing at half the size"]
    blender.close()
    whole.close()


def test_local_blur_that_does_not_fit_at_half_the_size_either(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = list(blurry_clip(9, 96, 128))
    blender = explaining(recorded, [], 9, monkeypatch)
    with pytest.raises(DeviceError, match="restoring"), within_memory("restoring the video"):
        blender.blend(Frame(0, 0, recorded[0]), torch.zeros(3, 96, 128))
    blender.close()


JOB = Settings(
    backbone="estrnn:lite",
    force=True,
    alignment=AlignmentSettings(flow="dis", blur="global", teachers=2),
    adaptation=AdaptationSettings(iters=2, crop=32, clip_length=4),
    runtime=RuntimeSettings(offline=True),
)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    from selfhvd_tta.lab.speed.sample import write_video

    write_video(tmp_path / "in.mp4", blurry_clip(6, 64, 64))
    return tmp_path / "in.mp4"


def test_the_plan_and_the_blending_go_on_with_less(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "align", failing(transfer.align, 2))
    result = selfhvd_tta.deblur(video, video.with_name("out.mp4"), JOB)
    assert result.frames == 6
    assert [n for n in result.notes if "memory ran out while blending" in n]


@pytest.mark.parametrize(
    ("where", "name", "said"),
    [
        (frames.Details, "blend", "timing this machine"),
        (forecast, "_step", "timing this machine"),
        (loop.Adaptation, "run", "the adaptation"),
    ],
)
def test_no_phase_ends_in_an_unexpected_failure(
    video: Path, monkeypatch: pytest.MonkeyPatch, where: Any, name: str, said: str
) -> None:
    monkeypatch.setattr(where, name, failing(getattr(where, name), 999))
    with pytest.raises(DeviceError, match=said) as caught:
        selfhvd_tta.deblur(video, video.with_name("out.mp4"), JOB)
    assert caught.value.hint
    assert not video.with_name("out.mp4").exists()


def test_blending_that_never_fits_says_so_and_leaves_nothing(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = forecast.measure_speeds

    def measured(*args: Any) -> Any:
        speeds = real(*args)
        monkeypatch.setattr(transfer, "align", failing(transfer.align, 999))
        return speeds

    monkeypatch.setattr(forecast, "measure_speeds", measured)
    with pytest.raises(DeviceError, match="while blending sharp details in"):
        selfhvd_tta.deblur(video, video.with_name("out.mp4"), replace(JOB, method="transfer"))
    assert not video.with_name("out.mp4").exists()
