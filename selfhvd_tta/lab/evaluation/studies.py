"""What each part of the method is worth: the paper's ablations and ours, as variations of the settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from selfhvd_tta.errors import UsageError
from selfhvd_tta.settings import Settings

NEITHER = "neither"
PAPER = "paper"  # Tables 3 to 5 together
Variants = Callable[[Settings], Iterable[tuple[str, Settings]]]


@dataclass(frozen=True)
class Study:
    """One question.

    Attributes:
        id: what ``--study`` takes.
        title: what is compared.
        source: table or section of the paper, or ``ours``.
        variants: labels and settings, made from the settings that everything else is left at.
        published: the paper's PSNR in dB by label (BasicVSR++ on GoProShake), where it has one.
        remark: what to know when comparing with it.
    """

    id: str
    title: str
    source: str
    variants: Variants
    published: Mapping[str, float] = field(default_factory=dict)
    remark: str = ""


def _plan(base: Settings, **changes: object) -> Settings:
    return replace(base, adaptation=replace(base.adaptation, **changes))  # type: ignore[arg-type]  # checked by Settings


def _align(base: Settings, **changes: object) -> Settings:
    return replace(base, alignment=replace(base.alignment, **changes))  # type: ignore[arg-type]


def _modules(base: Settings) -> Iterable[tuple[str, Settings]]:
    for sevd, scscm in ((False, False), (True, False), (False, True), (True, True)):
        label = " + ".join(n for n, on in (("SEVD", sevd), ("SCSCM", scscm)) if on) or NEITHER
        yield label, _plan(base, rscr=sevd, sis=sevd, scscm=scscm)


def _sevd(base: Settings) -> Iterable[tuple[str, Settings]]:
    yield NEITHER, _plan(base, rscr=False, sis=False)
    yield "SIS", _plan(base, rscr=False, sis=True)
    yield "random removal", _plan(base, sis=False, random_removal=True)
    yield "random removal + SIS", _plan(base, random_removal=True)
    yield "RSCR", _plan(base, sis=False)
    yield "RSCR + SIS", base


def _updates(base: Settings) -> Iterable[tuple[str, Settings]]:
    for count in range(4):
        yield str(count), _plan(base, history_updates=count)


def _masks(base: Settings) -> Iterable[tuple[str, Settings]]:
    for uncertainty, occlusion in ((False, False), (True, False), (False, True), (True, True)):
        label = " + ".join(n for n, on in (("Eq. 4", uncertainty), ("Eq. 5", occlusion)) if on) or "neither"
        yield label, _align(base, uncertainty=uncertainty, occlusion=occlusion)


def _refresh(base: Settings) -> Iterable[tuple[str, Settings]]:
    steps = max(1, base.adaptation.iters)
    yield "labels made once per stage", _plan(base, label_refresh=steps)
    yield "default", _plan(base, label_refresh=None)
    yield "every 25 steps", _plan(base, label_refresh=25)
    yield "live: in every step", _plan(base, label_refresh=1, teacher="live")


def _flow(base: Settings) -> Iterable[tuple[str, Settings]]:
    from selfhvd_tta.flows import discover  # imports torch, which --help does not need

    for flow in discover():
        yield flow, _align(base, flow=flow)


def _segment(base: Settings) -> Iterable[tuple[str, Settings]]:
    for value in (10, 20, 40):
        yield f"{value} frames", replace(base, clues=replace(base.clues, segment=value))


STUDIES = {
    study.id: study
    for study in (
        Study(
            "modules",
            "SEVD and SCSCM",
            "Table 3",
            _modules,
            {NEITHER: 35.61, "SCSCM": 37.09, "SEVD": 36.67, "SEVD + SCSCM": 37.44},
        ),
        Study(
            "sevd",
            "parts of SEVD",
            "Table 4",
            _sevd,
            {NEITHER: 35.04, "SIS": 35.11, "RSCR": 36.27, "RSCR + SIS": 37.44},
            "Here neither keeps SCSCM, as in Table 3's row SCSCM. The paper's figure for it is lower than Table 3's "
            "for neither, so its rows without RSCR may well remove frames at random; those variants are listed, too.",
        ),
        Study(
            "updates",
            "#update, renewals of the historical model",
            "Table 5",
            _updates,
            {"1": 36.00, "2": 37.44, "3": 37.57},
            "Taking the first copy is not counted here. If the paper counts it, its figure for n belongs to n - 1.",
        ),
        Study("masks", "masks of the labels", "Sec. 3.1", _masks),
        Study("flow", "flow that aligns the labels", "Sec. 3.1", _flow),
        Study("segment", "segment length of the clue selection", "Sec. 3.1", _segment),
        Study(
            "stages",
            "share of the steps spent in stage 1",
            "Sec. 3.4",
            lambda base: ((f"{share:.2f}", _plan(base, stage1=share)) for share in (0.0, 0.25, 0.5, 0.75, 1.0)),
        ),
        Study(
            "perceptual",
            "weight of the VGG term",
            "Eq. 11 and 12",
            lambda base: ((f"{w:g}", _plan(base, perceptual_weight=w)) for w in (0.0, 0.1, 1.0)),
        ),
        Study(
            "layer",
            "VGG layer",
            "paper silent",
            lambda base: ((name, _plan(base, vgg_layer=name)) for name in ("conv2_2", "conv3_4", "conv4_4")),
        ),
        Study("refresh", "renewal of the labels", "ours; live: nearest to the paper", _refresh),
        Study(
            "teachers",
            "sharp frames per label",
            "ours; 1: the paper",
            lambda base: ((str(n), _align(base, teachers=n)) for n in (1, 3, 10)),
        ),
        Study(
            "anchor",
            "weight of sharp frames as their own labels",
            "ours; 1: the paper",
            lambda base: ((f"{w:g}", _plan(base, sharp_weight=w)) for w in (0.0, 0.1, 1.0)),
        ),
    )
}


def chosen(names: Iterable[str]) -> list[Study]:
    """Studies by id; ``paper`` stands for those of Tables 3 to 5.

    Raises:
        UsageError: no such study.
    """
    found: dict[str, Study] = {}
    for name in names:
        if name != PAPER and name not in STUDIES:
            raise UsageError(f"unknown study '{name}'", f"Known are: {PAPER}, {', '.join(STUDIES)}.")
        found |= {one.id: one for one in STUDIES.values() if one.id == name or (name == PAPER and one.published)}
    return list(found.values())
