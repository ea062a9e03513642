"""Adam: torch's own, bit for bit, and resumable."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from selfhvd_tta.method.optimiser import Adam, Group
from tests.conftest import ROOT


def network(memory_format: torch.memory_format) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Conv2d(4, 3, 3)).to(memory_format=memory_format)


def descend(model: nn.Module, seed: int) -> None:
    clip = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(seed))
    model(clip).square().mean().backward()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_same_bits_as_torchs(memory_format: torch.memory_format) -> None:
    mine, other = network(memory_format), network(memory_format)
    ours = Adam([Group([*mine[0].parameters()]), Group([*mine[2].parameters()], 0.25)])  # type: ignore[index]
    groups = [{"params": [*part.parameters()]} for part in (other[0], other[2])]  # type: ignore[index]
    theirs = torch.optim.Adam(groups, betas=(0.9, 0.999), fused=True)
    for step in range(5):
        for group, theirs_group in zip(ours.groups, theirs.param_groups, strict=True):
            group.rate = theirs_group["lr"] = 1e-3 * group.share / (1 + step)
        for model in (mine, other):
            descend(model, step)
        bad = torch.tensor(float(step == 2))
        theirs.found_inf = bad  # type: ignore[attr-defined]
        ours.step(bad)
        theirs.step()
        ours.clear()
        theirs.zero_grad()
        assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), other.parameters(), strict=True)), step
        if step == 3:
            stored = {
                n: {k: t.clone(memory_format=torch.contiguous_format) for k, t in s.items()}
                for n, s in ours.state.items()
            }
            ours = Adam(ours.groups)
            ours.load(stored)


def test_a_parameter_without_gradient_stays() -> None:
    model = network(torch.contiguous_format)
    before = [p.detach().clone() for p in model.parameters()]
    optimiser = Adam([Group([*model.parameters()], rate=1e-2)])
    model[2].bias.sum().backward()  # type: ignore[index,union-attr,operator]
    optimiser.step(torch.tensor(0.0))
    moved = [not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
    assert moved == [False, False, False, True]
    assert list(optimiser.state) == [3]


def test_a_step_does_not_import_the_compiler() -> None:
    """It would cost more than a second of every run."""
    code = (
        "import sys\nfrom selfhvd_tta.events import ignore\nfrom tests.test_adaptation import adapt\nadapt(iters=2)\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
