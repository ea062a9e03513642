"""Both stages of adaptation run with every backbone, in a small configuration of its real structure."""

from __future__ import annotations

import math

import pytest
import torch

from selfhvd_tta.backbones import Backbone
from selfhvd_tta.backbones.wrapper import Network
from selfhvd_tta.events import ignore
from selfhvd_tta.method.adaptation import SLOW_SHARE, Adaptation
from selfhvd_tta.method.record import Record
from selfhvd_tta.method.restoration import Compute
from selfhvd_tta.method.supervision import Inputs
from selfhvd_tta.settings import AdaptationSettings, AlignmentSettings, Settings
from tests.test_backbones import BACKBONES, REGISTRY, make
from tests.tiny import Still, blurry_clip, working_set


def adapt(network: Network, backbone: Backbone, iters: int) -> Record:
    settings = Settings(
        adaptation=AdaptationSettings(iters=iters, crop=32, clip_length=4), alignment=AlignmentSettings(teachers=1)
    )
    working = working_set(blurry_clip(5, 32, 36))
    inputs = Inputs(network, backbone, working, Still(), None, Compute(torch.device("cpu")), 5)
    return Adaptation(inputs, settings, ignore).run()


@BACKBONES
def test_both_stages_run(backbone: Backbone) -> None:
    network = make(backbone)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    record = adapt(network, backbone, 2)
    assert [s["stage"] for s in record.steps] == [1, 2]
    assert all(math.isfinite(s["loss"]) for s in record.steps)
    moved = [name for name, p in network.named_parameters() if p.requires_grad and not torch.equal(p, before[name])]
    assert len(moved) > 0.9 * sum(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("name", [b.id for b in REGISTRY.values() if b.slow])
def test_the_flow_network_inside_learns_at_a_quarter_of_the_rate(name: str) -> None:
    backbone = REGISTRY[name]
    network = make(backbone)
    before = {key: p.detach().clone() for key, p in network.raw.named_parameters()}
    adapt(network, backbone, 1)

    def largest(slow: bool) -> float:
        return max(
            float((p.detach() - before[key]).abs().max())
            for key, p in network.raw.named_parameters()
            if key.startswith(backbone.slow) == slow
        )

    # Adam's first step has the size of the rate.
    rate = AdaptationSettings(iters=1).first_rate(backbone.haste)
    assert largest(False) == pytest.approx(rate, rel=0.05)
    assert largest(True) == pytest.approx(SLOW_SHARE * rate, rel=0.05)
