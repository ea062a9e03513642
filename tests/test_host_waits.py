"""What a GPU would be waited for, counted on fake CUDA tensors; no GPU is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils.weak import WeakIdKeyDictionary

from selfhvd_tta import backbones, imaging
from selfhvd_tta.backbones import Backbone, Variant
from selfhvd_tta.backbones.dstnetplus import DSTNetPlus
from selfhvd_tta.backbones.wrapper import Network
from selfhvd_tta.events import ignore
from selfhvd_tta.flows.sea_raft import SEARAFT
from selfhvd_tta.method import alignment
from selfhvd_tta.method.adaptation import Adaptation
from selfhvd_tta.method.bank import BankSupervision
from selfhvd_tta.method.clues import select_clues
from selfhvd_tta.method.restoration import Compute
from selfhvd_tta.method.sharpness import sharpness
from selfhvd_tta.method.supervision import Inputs
from selfhvd_tta.method.working_set import WorkingSet
from selfhvd_tta.run.perceptual import PerceptualFeatures
from selfhvd_tta.settings import AdaptationSettings, AlignmentSettings, ClueSettings, Settings
from tests.counting import Counting
from tests.tiny import Still

CUDA = torch.device("cuda", 0)
Module = TypeVar("Module", bound=torch.nn.Module)
ESTRNN = ("estrnn", {"n_features": 2, "n_blocks": 1, "global_residual": True}, (-0.5, 0.5))
DSTNET = ("dstnetplus", {"channels": 4, "kernel_blocks": 1, "blocks": 1}, (0.0, 1.0))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tensors without content on a GPU that is not there; memory is pinned in name only."""
    pinned = WeakIdKeyDictionary()

    def pin(self: torch.Tensor) -> torch.Tensor:
        copied = self.clone()
        pinned[copied] = True
        return copied

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda self: self in pinned)
    imaging.luma_weights.cache_clear()
    # cuDNN's sampler has no fake counterpart, PyTorch's own has.
    with torch.backends.cudnn.flags(enabled=False), FakeTensorMode(allow_non_fake_inputs=True):
        yield
    imaging.luma_weights.cache_clear()


def network(of: tuple[str, dict[str, Any], tuple[float, float]]) -> tuple[Network, Backbone]:
    name, config, value_range = of
    backbone = backbones.discover()[name]
    variant = Variant("tiny", config, value_range=value_range)
    return there(lambda: Network(backbone.build(**config), backbone, variant)), backbone


def there(build: Callable[[], Module]) -> Module:
    """A module on the GPU that is not there. Modules cannot move fake parameters themselves."""
    with unset_fake_temporarily():
        module = build()
    for part in module.modules():
        for name, value in part._parameters.items():
            if value is not None:
                part._parameters[name] = torch.nn.Parameter(torch.empty_like(value, device=CUDA), value.requires_grad)
        for name, value in part._buffers.items():
            if value is not None:
                part._buffers[name] = torch.empty_like(value, device=CUDA)
    return module


def adaptation(of: tuple[str, dict[str, Any], tuple[float, float]], store: torch.device) -> Adaptation:
    built, backbone = network(of)
    frames = torch.zeros(8, 3, 48, 48, dtype=torch.uint8, device=store)
    values = np.full(8, 10.0)
    values[::4] = 100
    working = WorkingSet(
        frames,
        tuple(range(8)),
        select_clues(values, [range(8)], ClueSettings(normalise=False)),
        (range(8),),
    )
    features = there(lambda: PerceptualFeatures("conv1_2"))
    inputs = Inputs(built, backbone, working, Still(), features, Compute(CUDA), 8)
    plan = AdaptationSettings(iters=40, crop=32, clip_length=4)
    return Adaptation(inputs, Settings(adaptation=plan), ignore)


@pytest.mark.parametrize(("of", "store", "stage2"), [(ESTRNN, "cpu", True), (DSTNET, "cuda:0", False)])
@pytest.mark.usefixtures("fake")
def test_a_step_waits_for_nothing(of: Any, store: str, stage2: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    job = adaptation(of, torch.device(store))

    def backward(loss: torch.Tensor) -> None:
        # Autograd's engine wants a GPU that is there. Its kernels are PyTorch's own, which ask the host for nothing.
        assert loss.requires_grad
        for parameter in job.trainable:
            parameter.grad = torch.zeros_like(parameter)

    monkeypatch.setattr(torch.Tensor, "backward", backward)
    assert isinstance(job.supervision, BankSupervision)
    bank = job.supervision.bank
    bank.has_outputs, bank.made, bank.judged = True, [True] * 8, [True] * 8
    bank.historical = bank.teacher.clone()
    counted = Counting()
    with counted:
        job.step(stage2)
    assert dict(counted.waits) == {}
    assert counted.operations.total() > 100


@pytest.mark.usefixtures("fake")
def test_alignment_by_a_network_waits_for_nothing() -> None:
    flow = there(SEARAFT).eval()
    frame = torch.zeros(1, 3, 256, 256, device=CUDA)
    counted = Counting()
    with counted:
        found = alignment.align(frame, frame, flow, AlignmentSettings())
        sharpness(found.image, found.mask)
    assert set(counted.waits) <= {"_to_copy"}
    assert counted.waits.total() <= 1, "the luma weights, once per process"


@pytest.mark.usefixtures("fake")
def test_waits_are_counted() -> None:
    far, here = torch.zeros(3, device=CUDA), torch.zeros(3)
    for work in (
        lambda: far.cpu(),
        lambda: here.to(CUDA),
        lambda: far.copy_(here),
        lambda: far.nonzero(),
        lambda: torch.equal(far, far),
        lambda: torch.tensor([1, 2], device=CUDA),
    ):
        counted = Counting()
        with counted:
            try:
                work()
            except Exception:  # noqa: BLE001  a fake tensor has no values to give
                assert counted.waits
        assert counted.waits.total() == 1, dict(counted.operations)
    counted = Counting()
    with counted:
        here.pin_memory().to(CUDA, non_blocking=True)
        far * 2
    assert dict(counted.waits) == {}


def test_long_windows_of_dstnet_keep_the_low_band_only() -> None:
    """A view of all bands for every frame would take four times as much: 15 GiB at 1080p."""
    built = DSTNetPlus(16, 1, 1).eval()
    peaks = []
    for count in (4, 8):
        frames, counted = torch.rand(1, count, 3, 32, 32), Counting()
        with torch.no_grad(), counted:
            built(frames)
        peaks.append(counted.peak / (4 * 32 * 32))
    # Values per pixel and frame: a quarter of the channels, or the output and its place in the stack.
    assert (peaks[1] - peaks[0]) / 4 < 16 / 4 + 3


def test_the_peak_is_what_is_held_at_the_same_time() -> None:
    counted = Counting()
    with counted:
        first = torch.zeros(1000)
        second = first * 2
        del first
        third = second * 2
        del second
        third.view(10, 100)
    assert counted.peak == 8000
    assert counted.live == 4000
