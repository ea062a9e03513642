"""``--literal`` against a second implementation of the paper's losses, written from its equations alone."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfhvd_tta.backbones import Backbone, Variant
from selfhvd_tta.backbones.wrapper import Network
from selfhvd_tta.errors import UsageError, WeightsError
from selfhvd_tta.events import Event, Note, ignore
from selfhvd_tta.flows import FlowEstimator, FlowField
from selfhvd_tta.method.adaptation import Adaptation
from selfhvd_tta.method.literal import LiteralSupervision
from selfhvd_tta.method.restoration import Compute
from selfhvd_tta.method.sampling import Draw, draw_clips
from selfhvd_tta.method.supervision import Inputs
from selfhvd_tta.run.networks import load_features
from selfhvd_tta.settings import AdaptationSettings, AlignmentSettings, RuntimeSettings, Settings
from tests.tiny import blurry_clip, working_set

CPU = torch.device("cpu")
SIDE, LENGTH, DRAWS = 32, 6, 10
SETTINGS = Settings(
    literal=True,
    alignment=AlignmentSettings(flow="dis"),
    adaptation=AdaptationSettings(iters=100, crop=SIDE, clip_length=LENGTH),
)


class Moving(FlowEstimator):
    """A made-up flow, different at every pixel and for every picture, and a made-up certainty."""

    def forward(self, source: Tensor, target: Tensor) -> FlowField:
        y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in source.shape[-2:]), indexing="ij")
        level = 3 * (source - target).mean(dim=(1, 2, 3)).view(-1, 1, 1)
        sign = torch.where(level > 0, 1.0, -1.0)
        flow = torch.stack((sign * (1 + 0.4 * torch.sin(x / 5) + level), sign * 0.5 * torch.cos(y / 4) + level), dim=1)
        return FlowField(flow, torch.sigmoid(flow.sum(1, keepdim=True) + 1))


class Layers(nn.Module):
    """Two convolutions over space and time, far from the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv3d(3, 8, 3, padding=1), nn.Conv3d(8, 3, 3, padding=1)

    def forward(self, frames: Tensor) -> Tensor:
        clip = frames.transpose(1, 2)
        return (clip + 0.3 * self.second(torch.tanh(self.first(clip)))).transpose(1, 2)


def literal() -> Adaptation:
    torch.manual_seed(1)
    variant = Variant("only")
    backbone = Backbone("layers", "", "", "", Layers, (variant,), temporal="bidirectional", reach=2, slow=("first",))
    features = nn.Sequential(nn.Conv2d(3, 8, 5, stride=4, padding=2), nn.ReLU()).requires_grad_(False)
    network = Network(Layers(), backbone, variant)
    working = working_set(blurry_clip(12, 40, 44))
    inputs = Inputs(network, backbone, working, Moving(), features, Compute(CPU), 12)
    return Adaptation(inputs, SETTINGS, ignore)


# The paper, equation by equation, for one clip at a time.


def warped(image: Tensor, flow: Tensor) -> Tensor:
    """Eq. 3, written out: bilinear, nothing outside the frame."""
    height, width = flow.shape[-2:]
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in (height, width)), indexing="ij")
    x, y = x + flow[0], y + flow[1]
    result = torch.zeros(image.shape[0], height, width)
    for right in (0, 1):
        for below in (0, 1):
            column, row = x.floor().long() + right, y.floor().long() + below
            weight = (1 - (x - column).abs()) * (1 - (y - row).abs())
            weight = weight * ((column >= 0) & (column < width) & (row >= 0) & (row < height))
            result += weight * image[:, row.clamp(0, height - 1), column.clamp(0, width - 1)]
    return result


def masks(there: FlowField, back: FlowField) -> tuple[Tensor, Tensor]:
    """M = M_uncer * M_occ (Eq. 4 and 5, 1 = trusted and visible), and M_occ."""
    forward = there.flow[0]
    height, width = forward.shape[-2:]
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in (height, width)), indexing="ij")
    x, y = x + forward[0], y + forward[1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    distance = (forward + warped(back.flow[0], forward)).square().sum(0).sqrt()
    occlusion = (1 - (0.5 * distance).clamp(max=1)) * inside
    return (there.certainty[0] * warped(back.certainty[0], forward) * occlusion)[0], occlusion


def v_l(picture: Tensor) -> float:
    """Eq. 1: variance of the Laplacian of the luma."""
    luma = 255 * (0.299 * picture[0] + 0.587 * picture[1] + 0.114 * picture[2])
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    response = F.conv2d(F.pad(luma[None, None], (1, 1, 1, 1), mode="reflect"), kernel)
    return float(response.double().var(unbiased=False))


def reference(run: Adaptation, history: nn.Module | None, draw: Draw) -> dict[str, Tensor]:
    """Eq. 6 and 11 in stage 1, Eq. 7, 8, 10 and 12 with a historical model; means over the clip's positions."""
    network, features, working = run.network, run.inputs.features, run.inputs.working
    assert features is not None
    top, left, height, width = draw.box

    def frame(row: int) -> Tensor:
        part = working.frames[row, :, top : top + height, left : left + width].float() / 255
        part = part.flip(-1) if draw.flip else part
        return torch.rot90(part, draw.turn, (-2, -1))

    output = network(torch.stack([frame(row) for row in draw.shown])[None])[0]
    with torch.no_grad():
        complete = torch.stack([frame(row) for row in draw.rows])[None]
        own = network(complete)[0].clamp(0, 1)
        old = history(complete)[0].clamp(0, 1) if history is not None else None
    sums: dict[str, list[Tensor]] = {"rec": [], "vgg": [], "scscm": []}
    for position, (row, shown) in enumerate(zip(draw.rows, draw.shown, strict=True)):
        result = output[position]
        sharp = frame(int(working.clues.nearest[row]))
        seen = result.detach().clamp(0, 1)
        there, back = run.inputs.estimator.both(seen[None], sharp[None])
        target = warped(sharp, there.flow[0])
        mask, occlusion = masks(there, back)
        k = draw.rows.index(shown)
        if old is not None:
            sums["scscm"].append((result - old[k]).abs().mean())
            if not (float(occlusion.mean()) > 0.5 and v_l(target) > v_l(own[k])):
                target, mask = own[k], torch.ones_like(mask)
        sums["rec"].append((mask * (result - target).abs()).mean())
        grid = F.avg_pool2d(mask[None, None], 4)
        sums["vgg"].append((grid * (features(result[None]) - features(target[None])).abs()).mean())
    return {name: torch.stack(values).mean() for name, values in sums.items() if values}


@pytest.mark.parametrize("stage2", [False, True])
def test_losses_and_gradients_are_those_of_the_paper(stage2: bool) -> None:
    run = literal()
    supervision = run.supervision
    assert isinstance(supervision, LiteralSupervision)
    assert [group.share for group in run.optimiser.groups] == [1.0], "every layer learns at the same rate"
    if stage2:
        supervision.take_history()
        with torch.no_grad():
            for parameter in run.network.parameters():
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    replaced = turned = 0
    for _ in range(DRAWS):
        same = copy.deepcopy(run.state.rng)
        draws = draw_clips(run.inputs.working, run.settings.adaptation, same, degrade=stage2)
        replaced += sum(d.rows != d.shown for d in draws)
        turned += sum(d.turn % 2 for d in draws)
        run.network.zero_grad()
        lesson = supervision.lesson(stage2)
        terms = lesson.terms(run.network(lesson.clip).float())
        terms["loss"].backward()
        found = [p.grad.clone() for p in run.network.parameters() if p.grad is not None]
        run.network.zero_grad()
        history = supervision.historical if stage2 else None
        clips = [reference(run, history, draw) for draw in draws]
        expected = {name: torch.stack([clip[name] for clip in clips]).mean() for name in clips[0]}
        torch.stack(list(expected.values())).sum().backward()
        assert len(found) == len(list(run.network.parameters()))
        for gradient, parameter in zip(found, run.network.parameters(), strict=True):
            torch.testing.assert_close(gradient, parameter.grad, atol=1e-6, rtol=1e-5)
        names = {"rec": "sevd" if stage2 else "rec", "vgg": "vgg", "scscm": "scscm"}
        for name, value in expected.items():
            assert float(terms[names[name]].detach()) == pytest.approx(float(value.detach()), abs=1e-6), name
    assert turned
    assert bool(replaced) == stage2


def test_a_run_takes_both_stages_without_clipping() -> None:
    run = literal()
    run.settings = replace(run.settings, adaptation=replace(run.settings.adaptation, iters=4))
    run.pace.steps, run.pace.stage1_steps = 4, 2
    assert [step["stage"] for step in run.run().steps] == [1, 1, 2, 2]
    assert run.settings.adaptation.gradient_clip == 0


def test_every_setting_of_ours_has_the_papers_value() -> None:
    settings = Settings(literal=True)
    assert settings.alignment.flow == "sea-raft"
    assert (settings.alignment.teachers, settings.alignment.photometric, settings.clues.normalise) == (1, False, False)
    plan = settings.adaptation.on("cpu")
    assert (plan.side, plan.length, plan.first_rate(5.0)) == (256, 10, 1e-4)
    assert (plan.teacher, plan.label_refresh, plan.sharp_weight) == ("live", 1, 1.0)
    assert not settings.blends
    assert replace(settings, strict=True).alignment == settings.alignment


@pytest.mark.parametrize(
    ("name", "contradicting"),
    [
        ("--method", {"method": "transfer"}),
        ("--detail", {"detail": True}),
        ("--budget", {"runtime": RuntimeSettings(budget=60)}),
        ("--early-stop", {"adaptation": AdaptationSettings(early_stop=True)}),
        ("teachers is 3, but it must be 1 with --literal", {"alignment": AlignmentSettings(teachers=3)}),
        ("sharp_weight is 0.5", {"adaptation": AdaptationSettings(sharp_weight=0.5)}),
        ("label_refresh is 50", {"adaptation": AdaptationSettings(label_refresh=50)}),
    ],
)
def test_what_contradicts_the_paper_is_refused(name: str, contradicting: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=name):
        Settings(literal=True, **contradicting)  # type: ignore[arg-type]


def test_another_flow_is_said() -> None:
    told: list[Event] = []
    run = literal()
    for flow, said in (("dis", True), ("sea-raft:m", False)):
        told.clear()
        settings = replace(SETTINGS, alignment=AlignmentSettings(flow=flow))
        LiteralSupervision(run.inputs, settings, run.state, run.pace, told.append)
        assert any(isinstance(event, Note) and "the paper aligns by sea-raft" in event.text for event in told) == said


def test_without_vgg_it_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("SELFHVD_TTA_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    offline = replace(SETTINGS, runtime=RuntimeSettings(offline=True))
    with pytest.raises(WeightsError, match="--literal needs VGG19"):
        load_features(offline, CPU, ignore)
