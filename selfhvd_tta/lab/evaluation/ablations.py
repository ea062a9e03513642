"""Runs the studies of :mod:`selfhvd_tta.lab.evaluation.studies`: each variant is a benchmark run of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from selfhvd_tta.errors import DiskError, Interrupted, SelfHVDError, UsageError
from selfhvd_tta.events import Listener, Note, Progress, ignore
from selfhvd_tta.lab.evaluation.bench import (
    NOT_OF_THE_METHOD,
    BenchResult,
    BenchSettings,
    find_pairs,
    run_bench,
    write_whole,
)
from selfhvd_tta.lab.evaluation.studies import STUDIES, Study, chosen
from selfhvd_tta.run.device import choose_device
from selfhvd_tta.settings import Settings

TABLE, RUNS = "ablations.md", "runs"
SCORED = ("adapted+detail", "adapted")


@dataclass(frozen=True)
class Measured:
    """One variant's outcome.

    Attributes:
        label: of the variant.
        result: its benchmark; None if it could not be run.
        problem: why not, or which videos failed.
    """

    label: str
    result: BenchResult | None
    problem: str = ""


def run_studies(
    root: Path,
    out: Path,
    bench: BenchSettings,
    base: Settings,
    studies: Iterable[str] = tuple(STUDIES),
    listen: Listener = ignore,
) -> str:
    """Run ablations over a data set and save their tables.

    Variants that are equal are run once, whatever studies they belong to; what was finished before is not run again. A
    variant that cannot be run (no weights, say) is listed with the reason, and the others continue.

    Args:
        root: the data set.
        out: gets ``ablations.md`` and a benchmark's folder per variant.
        bench: protocol and what to measure.
        base: settings of everything that a study does not vary.
        studies: ids.
        listen: gets progress and notes.

    Returns:
        The tables as Markdown.

    Raises:
        UsageError: no such study, or a method without adaptation.
        InputError: no data set there.
        DiskError: the tables cannot be written.
    """
    wanted = chosen(studies)
    if base.method not in ("auto", "adapt") or not base.adaptation.iters:
        raise UsageError("ablations need an adaptation", "Use --method adapt and --iters above 0.")
    find_pairs(root, bench, ignore)  # a wrong folder is one error and not one per variant
    plan = [(study, list(study.variants(base))) for study in wanted]
    count = sum(len(variants) for _, variants in plan)
    done: dict[str, Measured] = {}
    blocks: list[str] = []
    position = 0
    for study, variants in plan:
        rows = []
        for label, settings in variants:
            key = _key(settings)
            if key not in done:
                listen(Note(f"{study.id}: {label}"))
                done[key] = _measure(root, out / RUNS / key, bench, settings, listen)
            rows.append(replace(done[key], label=label))
            position += 1
            listen(Progress("ablations", position, count, "variants"))
        blocks.append(_block(study, rows, base, dict(variants)))
        text = "\n".join([_heading(base), *blocks])
        write_whole(out / TABLE, text)  # after every study: an interrupted run leaves what it has finished
    return text


def _measure(root: Path, folder: Path, bench: BenchSettings, settings: Settings, listen: Listener) -> Measured:
    try:
        result = run_bench(root, folder, bench, settings, listen)
    except (Interrupted, DiskError):
        raise
    except SelfHVDError as error:
        listen(Note(f"not run: {error}", "warning"))
        return Measured("", None, str(error))
    failed = "; ".join(f"{name}: {why}" for name, why in result.failed.items())
    return Measured("", result, failed)


def _key(settings: Settings) -> str:
    """Name of a variant's folder: of everything that decides its result."""
    content = {k: v for k, v in asdict(settings).items() if k not in NOT_OF_THE_METHOD}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _heading(base: Settings) -> str:
    plan = base.adaptation.on(choose_device(base.runtime.device, ignore).type)
    rate = "by the number of steps" if plan.learning_rate is None else f"{plan.learning_rate:g}"
    return (
        f"# Ablations\n\nBackbone {base.backbone}, {plan.iters} steps of {plan.batch} x {plan.clip_length} frames of "
        f"{plan.crop} px, learning rate {rate}, seed {base.runtime.seed}; everything else at its "
        "default. PSNR in dB, mean over the videos; the difference is to the variant that is the default.\n"
    )


def _block(study: Study, rows: list[Measured], base: Settings, variants: dict[str, Settings]) -> str:
    lines = [f"## {study.title} ({study.source})", ""]
    ran = [row for row in rows if row.result is not None and row.result.mean]
    if ran:
        assert ran[0].result is not None
        scored = [name for name in SCORED if name in ran[0].result.mean]
        head = ["variant", *(f"{name}: PSNR | difference | of blurry frames | SSIM" for name in scored)]
        head += ["paper: PSNR | difference"] if study.published else []
        lines += ["| " + " | ".join(head) + " |", "|" + " --- |" * (" | ".join(head).count("|") + 1)]
        usual = next((row for row in ran if _key(variants[row.label]) == _key(base)), None)
        lines += [_line(row, usual, scored, study) for row in ran]
    if study.published:
        lines += ["", f"The paper's figures are those of BasicVSR++ on GoProShake. {study.remark}".rstrip()]
    for row in rows:
        if row.problem:
            lines.append(f"- {row.label}: {'not run' if row.result is None else 'failed'}: {row.problem}")
    return "\n".join([*lines, ""])


def _line(row: Measured, usual: Measured | None, scored: list[str], study: Study) -> str:
    assert row.result is not None
    cells = [f"**{row.label}** (default)" if row is usual else row.label]
    for name in scored:
        one = row.result.mean[name]
        cells.append(f"{one['psnr']:.3f}")
        same = usual.result.mean.get(name) if usual is not None and usual.result is not None else None
        cells.append(f"{one['psnr'] - same['psnr']:+.3f}" if same else "–")
        cells += [f"{one['psnr_blurry']:.3f}" if "psnr_blurry" in one else "–", f"{one['ssim']:.4f}"]
    if study.published:
        theirs, complete = study.published.get(row.label), study.published.get(usual.label if usual else "")
        cells.append("–" if theirs is None else f"{theirs:.2f}")
        cells.append("–" if theirs is None or complete is None else f"{theirs - complete:+.2f}")
    return "| " + " | ".join(cells) + " |"
