"""The two-stage loop on a very small network: it learns, it is repeatable, it survives."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from selfhvd_tta.errors import UsageError
from selfhvd_tta.events import Event, Note, Progress, ignore
from selfhvd_tta.method import bank
from selfhvd_tta.method.adaptation import Adaptation, cosine_rate
from selfhvd_tta.method.bank import BankSupervision
from selfhvd_tta.method.live import LiveSupervision
from selfhvd_tta.method.objective import objective
from selfhvd_tta.method.record import Record
from selfhvd_tta.method.restoration import Compute, Restorer
from selfhvd_tta.method.scscm import HistoryCheck, check_history
from selfhvd_tta.method.supervision import Inputs
from selfhvd_tta.settings import AdaptationSettings, AlignmentSettings, Settings
from tests.tiny import Still, adaptation_of, blurry_clip, small_estrnn, working_set

CPU = Compute(torch.device("cpu"))


def adapt(listen=ignore, seed: int = 0, features: torch.nn.Module | None = None, **plan: object):
    from selfhvd_tta.settings import RuntimeSettings

    values = {"iters": 12, "crop": 32, "clip_length": 6, "learning_rate": 1e-3, "label_refresh": 4} | plan
    settings = Settings(
        adaptation=AdaptationSettings(**values), alignment=AlignmentSettings(), runtime=RuntimeSettings(seed=seed)
    )
    run = adaptation_of(blurry_clip(), settings, listen, features=features)
    return run.network, run.run(), run


def error(network, backbone) -> float:
    clip = torch.from_numpy(blurry_clip()).permute(0, 3, 1, 2).float() / 255
    out = torch.stack(list(Restorer(network, backbone, CPU, 8).restore(iter(clip))))
    blurry = [i for i in range(8) if i % 3 != 1]
    return float((out[blurry] - clip[1]).abs().mean())


def test_adaptation_brings_blurry_frames_closer_to_the_sharp_ones() -> None:
    before, backbone = small_estrnn()
    network, record, _ = adapt(iters=80, learning_rate=5e-3, label_refresh=40)
    assert error(network, backbone) < 0.95 * error(before, backbone)
    assert len(record.steps) == 80
    assert not network.training


def test_both_stages_and_their_terms() -> None:
    events: list[Event] = []
    _, record, run = adapt(events.append)
    assert [s["stage"] for s in record.steps] == [1.0] * 6 + [2.0] * 6
    assert {"rec", "loss"} <= set(record.steps[0])
    assert {"sevd", "scscm", "loss"} <= set(record.steps[-1])
    assert record.steps[-1]["scscm"] > 0, "the outputs have moved away from the historical ones"
    assert isinstance(run.supervision, BankSupervision)
    assert run.supervision.bank.historical is not None
    phases = [e.phase for e in events if isinstance(e, Progress)]
    assert phases.count("stage 1") == phases.count("stage 2") == 6


def test_same_seed_same_weights_other_seed_other_weights() -> None:
    first, second, other = adapt()[0], adapt()[0], adapt(seed=1)[0]
    a, b, c = (n.state_dict() for n in (first, second, other))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], c[k]) for k in a)


def test_the_live_model_supervises_both_stages() -> None:
    _, record, run = adapt(teacher="live", label_refresh=1, iters=12)
    assert len(record.steps) == 12
    assert isinstance(run.supervision, LiveSupervision)
    assert run.supervision.historical is not None
    assert not any(p.requires_grad for p in run.supervision.historical.parameters())


@pytest.mark.parametrize(
    "off", [{"rscr": False}, {"sis": False}, {"scscm": False}, {"stage1": 1.0}, {"stage1": 0.0}, {"batch": 2}]
)
def test_every_part_can_be_switched(off: dict[str, object]) -> None:
    _, record, _ = adapt(**off)
    assert len(record.steps) == 12
    if off == {"scscm": False}:
        assert all(s.get("scscm", 0) == 0 for s in record.steps)


def test_perceptual_features_take_part() -> None:
    features = torch.nn.Conv2d(3, 4, 3, stride=2).requires_grad_(False)
    _, record, _ = adapt(features=features)
    assert all(s["vgg"] > 0 for s in record.steps)
    assert all(p.grad is None for p in features.parameters())


def test_a_loss_that_is_not_finite_skips_the_step_and_three_in_a_row_restore_the_last_good_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events: list[Event] = []
    settings = Settings(
        adaptation=AdaptationSettings(iters=12, crop=32, clip_length=6, label_refresh=4), alignment=AlignmentSettings()
    )
    run = adaptation_of(blurry_clip(), settings, events.append)
    network = run.network
    good = {k: v.clone() for k, v in network.state_dict().items()}

    def poisoned(*args: object) -> dict[str, torch.Tensor]:
        terms = objective(*args)  # type: ignore[arg-type]
        return {k: v * float("nan") for k, v in terms.items()}

    monkeypatch.setattr(bank, "objective", poisoned)
    record = run.run()
    assert (record.skipped, record.stopped) == (3, 2)
    assert all(torch.equal(good[k], v) for k, v in network.state_dict().items())
    assert any(isinstance(e, Note) and e.level == "warning" and "finite" in e.text for e in events)


def test_history_is_renewed_only_when_aligned_and_sharper() -> None:
    assert HistoryCheck(0.3, 1.0, 20, 10).renew
    assert not HistoryCheck(0.6, 1.0, 20, 10).renew
    assert not HistoryCheck(0.3, 1.6, 20, 10).renew
    assert not HistoryCheck(0.3, 1.0, 10, 10).renew


def test_history_check_measures_sharpness_and_shift() -> None:
    clip = torch.from_numpy(blurry_clip()).permute(0, 3, 1, 2).float() / 255
    check = check_history([clip[1:2]], [clip[1:2]], [clip[:1]], Still())
    assert check.median_shift == check.tail_shift == 0
    assert check.sharpness > check.historical_sharpness


def test_history_updates_are_counted() -> None:
    def always(self: HistoryCheck) -> bool:
        return True

    original = HistoryCheck.renew
    HistoryCheck.renew = property(always)  # type: ignore[assignment,method-assign]
    try:
        _, record, _ = adapt(iters=40, label_refresh=4, history_updates=2)
    finally:
        HistoryCheck.renew = original  # type: ignore[method-assign]
    assert isinstance(record, Record)
    assert record.renewals == 2
    assert len(record.checks) == 2, "no further looks once the updates are used up"


@pytest.mark.parametrize(
    ("iters", "rate"), [(2000, 1e-4), (8000, 1e-4), (1000, 2e-4), (500, 4e-4), (400, 5e-4), (24, 5e-4), (1, 5e-4)]
)
def test_a_short_run_begins_with_a_higher_rate(iters: int, rate: float) -> None:
    assert AdaptationSettings(iters=iters).first_rate(5) == pytest.approx(rate)
    assert AdaptationSettings(iters=iters).first_rate(1) == pytest.approx(1e-4), "a network of which nothing is known"
    assert AdaptationSettings(iters=iters, learning_rate=3e-5).first_rate(5) == 3e-5
    with pytest.raises(UsageError, match="final_learning_rate"):
        AdaptationSettings(iters=iters, final_learning_rate=1.01e-4)


@pytest.mark.parametrize(("haste", "rate"), [(1.0, 1e-4), (5.0, 5e-4)])
def test_the_first_step_is_taken_at_the_chosen_rate(haste: float, rate: float) -> None:
    """Adam's first step has the size of the rate."""
    network, backbone = small_estrnn()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    settings = Settings(adaptation=AdaptationSettings(iters=1, crop=32, clip_length=6))
    working, few = working_set(blurry_clip()), replace(backbone, haste=haste)
    Adaptation(Inputs(network, few, working, Still(), None, CPU, 40), settings, ignore).run()
    moved = max(float((v - before[k]).abs().max()) for k, v in network.state_dict().items())
    assert moved == pytest.approx(rate, rel=0.02)


def test_learning_rate_is_a_cosine_between_its_ends() -> None:
    assert cosine_rate(0, 1e-4, 1e-7) == pytest.approx(1e-4)
    assert cosine_rate(0.5, 1e-4, 1e-7) == pytest.approx((1e-4 + 1e-7) / 2)
    assert cosine_rate(1, 1e-4, 1e-7) == pytest.approx(1e-7)
