"""The label bank, and its agreement with labels by the live model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from selfhvd_tta.flows import FlowEstimator, FlowField
from selfhvd_tta.method.adaptation import Adaptation
from selfhvd_tta.method.bank import BankSupervision
from selfhvd_tta.method.clues import select_clues
from selfhvd_tta.method.composite import apply
from selfhvd_tta.method.labels import LabelBank
from selfhvd_tta.method.live import LiveSupervision
from selfhvd_tta.method.sampling import Draw, draw_clips
from selfhvd_tta.method.teachers import Teachers, choose_teachers
from selfhvd_tta.method.transfer import compose, local_sharpness, similarity
from selfhvd_tta.method.working_set import WorkingSet
from selfhvd_tta.settings import AdaptationSettings, AlignmentSettings, ClueSettings, Settings
from tests.tiny import Still, adaptation_of, blurry_clip, working_set

CPU = torch.device("cpu")
EVERY = range(8)
PAPER = AlignmentSettings(teachers=1, photometric=False)


def adaptation(
    plan: AdaptationSettings, alignment: AlignmentSettings = PAPER, flow: FlowEstimator | None = None
) -> tuple[Adaptation, BankSupervision]:
    run = adaptation_of(blurry_clip(), Settings(adaptation=plan, alignment=alignment), flow=flow)
    assert isinstance(run.supervision, BankSupervision)
    return run, run.supervision


def bank_of(working: WorkingSet, flow: FlowEstimator) -> LabelBank:
    return LabelBank(working, CPU, flow, PAPER, 0.5)


def test_labels_are_the_aligned_sharp_frames() -> None:
    working = working_set(blurry_clip())
    bank = bank_of(working, Still())
    done: list[int] = []
    bank.renew((row, bank.observed(row)[0]) for row in EVERY)
    bank.complete(EVERY, done.append)
    assert done == list(range(1, 9))
    for row in range(len(working)):
        assert torch.equal(bank.label[row], working.frames[working.clues.nearest[row]])
    assert bank.mask.min() == 255
    # SIS: a label is chosen where it is visible and sharper than the model's output; sharp frames label themselves.
    assert bank.choice.all()


def test_sis_prefers_the_teacher_where_it_is_sharper() -> None:
    working = working_set(blurry_clip())
    bank = bank_of(working, Still())
    sharper = (working.frames[1].float() / 255 * 2 - 0.5).clamp(0, 1)
    bank.renew((row, sharper) for row in EVERY)
    bank.complete(EVERY)
    assert bank.choice.tolist() == working.clues.sharp.tolist()


class Explaining(Still):
    """Counts how often it is asked, and for what."""

    explains_blur = True

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[torch.Tensor] = []

    def both(self, source: torch.Tensor, target: torch.Tensor) -> tuple[FlowField, FlowField]:
        self.sources.append(source)
        return super().both(source, target)


def test_labels_of_a_flow_that_explains_blur_come_from_the_recorded_frames_and_last() -> None:
    working = working_set(blurry_clip())
    flow = Explaining()
    bank = bank_of(working, flow)
    black = torch.zeros_like(working.frames[0]).float()
    bank.renew((row, black) for row in EVERY)
    bank.complete(EVERY)
    blurry = [row for row in range(8) if not working.clues.sharp[row]]
    assert len(flow.sources) == len(blurry)
    assert all(torch.equal(s, bank.observed(row)) for s, row in zip(flow.sources, blurry, strict=True))
    assert bank.choice.all(), "anything is sharper than a black frame"
    labels, asked = bank.label.clone(), len(flow.sources)
    sharper = (working.frames[1].float() / 255 * 2 - 0.5).clamp(0, 1)
    bank.renew((row, sharper) for row in EVERY)
    bank.complete(EVERY)
    assert len(flow.sources) == asked
    assert torch.equal(bank.label, labels)
    assert torch.equal(bank.current(2)[0], sharper.half().float())
    assert bank.choice.tolist() == working.clues.sharp.tolist(), "what labels are compared with is new"


@pytest.mark.parametrize("flow", [Still, Explaining])
def test_labels_are_made_when_they_are_needed_and_are_then_what_they_would_have_been(flow: type[Still]) -> None:
    clip = torch.from_numpy(blurry_clip()).permute(0, 3, 1, 2).float() / 255

    def outputs(shift: int) -> Iterator[tuple[int, torch.Tensor]]:
        return ((row, clip[row].roll(shift, 2) * 0.9) for row in EVERY)

    lazy, eager = (bank_of(working_set(blurry_clip()), flow()) for _ in range(2))
    lazy.renew(outputs(0))
    assert not any(lazy.made)
    lazy.complete([2, 2, 3])
    assert [row for row in EVERY if lazy.made[row]] == [2, 3]
    before = lazy.label[2].clone()
    lazy.renew(outputs(1))
    assert lazy.made[2] == flow.explains_blur, "what depends on the outputs is made again"
    lazy.complete([2])
    lazy.complete([5, 6])
    eager.renew(outputs(1))
    eager.complete(EVERY)
    for row in (2, 5, 6):
        mine, other = (bank.rows([row], (0, 0, 48, 56)) for bank in (lazy, eager))
        for name in ("label", "mask", "teacher", "choice", "visible"):
            assert torch.equal(getattr(mine, name), getattr(other, name)), (row, name)
    assert torch.equal(before, lazy.label[2]), "nothing moves in this clip"


def test_a_flow_that_explains_blur_needs_no_outputs_before_stage_2() -> None:
    plan = AdaptationSettings(iters=10, crop=32, clip_length=4)
    for flow, stage2, outputs in ((Explaining(), False, False), (Explaining(), True, True), (Still(), False, True)):
        run, supervision = adaptation(plan, flow=flow)
        supervision.refresh(stage2)
        assert supervision.bank.has_outputs == outputs
        assert not any(supervision.bank.made), "before the first clip is drawn"
        run.step(stage2)
        assert 0 < sum(supervision.bank.made) < len(supervision.bank.made)


@pytest.mark.parametrize("flow", [Still, Explaining])
def test_labels_of_few_teachers_are_made_anew_when_they_are_needed_again(flow: type[Still]) -> None:
    clip = torch.from_numpy(blurry_clip()).permute(0, 3, 1, 2).float() / 255
    noise = np.random.default_rng(0).integers(-6, 7, blurry_clip().shape)
    noisy = (blurry_clip() + noise).clip(0, 255).astype(np.uint8)
    few, all_of_them = (
        LabelBank(working_set(noisy), CPU, flow(), AlignmentSettings(photometric=False), 0.5) for _ in range(2)
    )
    for bank in (few, all_of_them):
        bank.renew((row, clip[row] * 0.9) for row in EVERY)
    few.complete([1, 2], teachers=1)
    assert not any(few.made)
    all_of_them.complete([1, 2])
    assert not torch.equal(few.label[1:3], all_of_them.label[1:3])
    few.complete([1, 2])
    assert few.made == all_of_them.made
    mine, other = (bank.rows([1, 2], (0, 0, 48, 56)) for bank in (few, all_of_them))
    for name in ("label", "mask", "teacher", "choice", "visible"):
        assert torch.equal(getattr(mine, name), getattr(other, name)), name


@pytest.mark.parametrize(("iters", "first"), [(49, True), (50, False)])
def test_the_first_of_many_steps_waits_for_few_alignments(iters: int, first: bool) -> None:
    plan = AdaptationSettings(iters=iters, crop=32, clip_length=4)
    run, supervision = adaptation(plan, AlignmentSettings(photometric=False))
    supervision.refresh(False)
    run.step(False)
    assert any(supervision.bank.made) == first
    assert bool(run.state.used) == first
    run.state.step = 1
    run.step(False)
    assert any(supervision.bank.made)


def test_rows_and_frames_are_cropped_alike() -> None:
    working = working_set(blurry_clip())
    bank = bank_of(working, Still())
    bank.renew((r, bank.observed(r)[0]) for r in EVERY)
    bank.complete(EVERY)
    box = (5, 9, 16, 20)
    rows = bank.rows([2, 2, 4], box)
    assert rows.label.shape == (3, 3, 16, 20)
    assert torch.equal(bank.shown([4], box)[0], bank.observed(4)[0, :, 5:21, 9:29])
    torch.testing.assert_close(rows.teacher[2], bank.observed(4)[0, :, 5:21, 9:29], atol=1e-3, rtol=0)


@pytest.mark.parametrize("stage2", [False, True])
def test_bank_and_live_model_agree_when_nothing_has_changed(stage2: bool) -> None:
    _, supervision = adaptation(AdaptationSettings(iters=10))
    supervision.refresh(stage2)
    live = adaptation_of(
        blurry_clip(), Settings(adaptation=AdaptationSettings(teacher="live", label_refresh=1), alignment=PAPER)
    ).supervision
    assert isinstance(live, LiveSupervision)
    if stage2:
        live.take_history()
    rows = tuple(range(8))
    draw = Draw(rows, (0, 0, 2, 3, 3, 5, 6, 6), (0, 0, 48, 56), 0, False)
    mine = live.rows(draw, stage2)
    supervision.bank.complete(draw.shown)
    bank = supervision.bank.rows(draw.shown, draw.box)
    torch.testing.assert_close(bank.label, mine.label, atol=0.5 / 255 + 1e-6, rtol=0)
    torch.testing.assert_close(bank.mask, mine.mask, atol=0.5 / 255 + 1e-6, rtol=0)
    torch.testing.assert_close(bank.teacher, mine.teacher, atol=1e-3, rtol=0)
    assert bank.choice.tolist() == mine.choice.tolist()
    if stage2:
        torch.testing.assert_close(bank.historical, mine.historical, atol=1e-3, rtol=0)
        assert torch.equal(bank.historical, bank.teacher)


def test_teachers_alternate_between_the_sides_and_respect_the_reach() -> None:
    working = working_set(blurry_clip(20))
    assert choose_teachers(5, working.clues, AlignmentSettings(teachers=3)).others == (4, 7, 1)
    assert choose_teachers(5, working.clues, AlignmentSettings(teachers=1)).others == (4,)
    assert choose_teachers(5, working.clues, AlignmentSettings(teachers=5, teacher_reach=2)).others == (4, 7)
    assert choose_teachers(4, working.clues, AlignmentSettings(teachers=1)) == Teachers(4, own=1.0, equal=True)


def test_teachers_count_by_their_sharpness_and_a_sharp_frame_is_one_of_its_own() -> None:
    values = np.array([10.0, 100.0, 12.0, 45.0, 11.0, 90.0, 10.0])
    clues = select_clues(values, [range(7)], ClueSettings())
    clues.sharp[3] = True
    mediocre = choose_teachers(3, clues, AlignmentSettings())
    assert mediocre.others == (1, 5)
    assert mediocre.weights == pytest.approx((1.0, 0.81))
    assert mediocre.own == pytest.approx(8 * 0.45**2)
    assert not mediocre.equal
    blurry = choose_teachers(2, clues, AlignmentSettings())
    assert set(blurry.others) == {1, 3, 5}
    assert blurry.own == 0
    sharp = choose_teachers(1, clues, AlignmentSettings(teachers=3))
    assert sharp.equal
    assert sharp.own == pytest.approx(8.0)
    assert len(sharp.others) == 2, "half of them are enough to average noise"
    paper = choose_teachers(3, clues, AlignmentSettings(teachers=1))
    assert paper.others == ()
    assert paper.equal


def test_sharp_frames_lose_noise_and_nothing_else() -> None:
    generator = torch.Generator().manual_seed(2)
    clip = torch.from_numpy(blurry_clip()).permute(0, 3, 1, 2).float() / 255
    scene = clip[1:2]
    frames = [(scene + 0.02 * torch.randn(scene.shape, generator=generator)).clamp(0, 1) for _ in range(5)]
    odd = frames[1].clone()
    odd[..., :20, :20] = (odd[..., :20, :20] + 0.3).clamp(0, 1)  # something else is there
    teachers = Teachers(0, (1, 2, 3, 4), (1.0, 1.0, 1.0, 1.0), own=4.0, equal=True)
    made = compose(frames[0], frames[0], [odd, *frames[2:]], teachers, Still(), AlignmentSettings(photometric=False))
    assert (made.image - scene).square().mean() < 0.45 * (frames[0] - scene).square().mean()
    corner = (..., slice(2, 17), slice(2, 17))
    assert (made.image - scene)[corner].abs().mean() < (frames[0] - scene)[corner].abs().mean()
    alike = similarity(torch.cat((odd, frames[2])), frames[0])
    assert alike[0, 0, 4:16, 4:16].max() < 0.01
    assert alike[1].median() > 0.9


def test_where_teachers_differ_in_detail_the_detailed_one_counts() -> None:
    clip = torch.from_numpy(blurry_clip()).permute(0, 3, 1, 2).float() / 255
    blurry, sharp = clip[:1], clip[1:2]
    energy = local_sharpness(torch.cat((blurry, sharp)), 4.0)
    assert (energy[1] > energy[0]).float().mean() > 0.95
    equal = Teachers(0, (1, 2), (1.0, 1.0))
    for power, least, most in ((0.0, 0.45, 0.55), (2.0, 0.0, 0.2)):
        settings = AlignmentSettings(photometric=False, local_power=power)
        made = compose(blurry, blurry, [sharp, blurry], equal, Still(), settings)
        share = (made.image - sharp).abs().mean() / (blurry - sharp).abs().mean()
        assert least <= share <= most


def test_composite_mends_a_blurry_frame_and_leaves_what_disagrees() -> None:
    clip = torch.from_numpy(blurry_clip()).permute(0, 3, 1, 2).float() / 255
    blurry, sharp = clip[:1], clip[1:2]
    odd = sharp.clone()
    odd[..., :24, :28] = 1 - odd[..., :24, :28]  # a quarter shows something else
    made = compose(blurry, blurry, [odd], Teachers(0, (1,), (1.0,)), Still(), AlignmentSettings())
    result = apply(made, blurry)
    inside = (..., slice(34, None), slice(38, None))
    assert (result - sharp)[inside].abs().mean() < 0.35 * (blurry - sharp)[inside].abs().mean()
    assert (result - blurry)[..., :16, :20].abs().mean() < 0.25 * (odd - blurry)[..., :16, :20].abs().mean()


def test_draws_are_reproducible_and_stay_inside() -> None:
    working = working_set(blurry_clip())
    plan = AdaptationSettings(crop=32, clip_length=5, batch=3)
    first = draw_clips(working, plan, np.random.default_rng(3), True)
    assert first == draw_clips(working, plan, np.random.default_rng(3), True)
    for draw in first:
        top, left, height, width = draw.box
        assert (height, width) == (32, 32)
        assert 0 <= top <= 48 - 32
        assert 0 <= left <= 56 - 32
        assert len(draw.rows) == len(draw.shown) == 5
    undegraded = draw_clips(working, plan, np.random.default_rng(3), False)
    assert all(d.rows == d.shown for d in undegraded)
