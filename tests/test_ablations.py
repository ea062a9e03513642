"""Ablations: every study's variants differ as they say, and the tables hold what the benchmark measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from selfhvd_tta.errors import UsageError
from selfhvd_tta.flows import discover
from selfhvd_tta.lab.evaluation.ablations import run_studies
from selfhvd_tta.lab.evaluation.bench import BenchSettings
from selfhvd_tta.lab.evaluation.studies import PAPER, STUDIES, chosen
from selfhvd_tta.settings import Settings
from tests.commands import run
from tests.test_bench import QUICK, make_set

BENCH = BenchSettings("bsd", temporal=False)
BASE = replace(QUICK, detail=False)
ONE_STEP = replace(BASE, adaptation=replace(QUICK.adaptation, iters=1))


@pytest.mark.parametrize("study", STUDIES.values(), ids=lambda study: study.id)
def test_variants_differ_and_contain_the_default_where_there_is_one(study) -> None:  # type: ignore[no-untyped-def]
    variants = list(study.variants(Settings()))
    labels = [label for label, _ in variants]
    assert len(set(labels)) == len(labels) >= 3
    assert all(a != b for i, (_, a) in enumerate(variants) for _, b in variants[:i])
    # "flow" names what ``auto`` would choose between.
    assert study.id == "flow" or Settings() in [settings for _, settings in variants]
    assert len([1 for _, s in variants if s.clues == Settings().clues]) == len(variants) or study.id == "segment"


def test_the_flow_study_compares_every_flow_there_is() -> None:
    assert [label for label, _ in STUDIES["flow"].variants(Settings())] == list(discover())


def test_tables_from_one_run_per_different_variant(tmp_path: Path) -> None:
    root = make_set(tmp_path / "data", videos=1, count=6)
    out = tmp_path / "out"
    text = run_studies(root, out, BENCH, ONE_STEP, ["sevd", "modules", "flow"])
    assert (out / "ablations.md").read_text() == text
    # Six of "sevd", two more of "modules" (SCSCM alone, neither), the flows without weights or with bundled ones (dis,
    # which is the default here, is there).
    offline = [flow for flow in discover() if f"- {flow}: not run: " not in text and flow != "dis"]
    assert len(list((out / "runs").glob("*/results.json"))) == 6 + 2 + len(offline)
    assert "## parts of SEVD (Table 4)" in text
    table = [line for line in text.splitlines() if line.startswith("| ")]
    assert len([line for line in table if line.startswith("| variant")]) == 3
    default = [line.split(" | ") for line in table if "**RSCR + SIS** (default)" in line]
    assert [cells[2] for cells in default] == ["+0.000"]
    rows = {line.split(" | ")[0]: line.split(" | ")[1] for line in table}
    assert rows["| RSCR"] == f"{float(rows['| RSCR']):.3f}"
    assert float(rows["| RSCR"]) > 10
    # Weights that are not here: said, and the rest goes on.
    assert "- sea-raft: not run: " in text
    stamps = {p: p.stat().st_mtime_ns for p in (out / "runs").glob("*/videos/*.json")}
    assert run_studies(root, out, BENCH, ONE_STEP, ["sevd"]).count("| RSCR") == 1
    assert all(p.stat().st_mtime_ns == stamp for p, stamp in stamps.items()), "finished runs are not repeated"


def test_the_paper_is_three_tables_next_to_its_figures(tmp_path: Path) -> None:
    assert [study.id for study in chosen([PAPER, "sevd"])] == ["modules", "sevd", "updates"]
    for study in chosen([PAPER]):
        labels = [label for label, _ in study.variants(Settings())]
        assert set(study.published) <= set(labels)
        usual = next(label for label, settings in study.variants(Settings()) if settings == Settings())
        assert study.published[usual] == 37.44
    text = run_studies(make_set(tmp_path / "data", videos=1, count=6), tmp_path / "out", BENCH, BASE, ["updates"])
    head = next(line for line in text.splitlines() if line.startswith("| variant"))
    rows = [line for line in text.splitlines() if line.startswith("| ") and line != head and "---" not in line]
    assert head.endswith("| paper: PSNR | difference |")
    assert all(line.count("|") == head.count("|") for line in rows)
    assert [line.split(" | ")[-2:] for line in rows] == [
        ["–", "– |"],
        ["36.00", "-1.44 |"],
        ["37.44", "+0.00 |"],
        ["37.57", "+0.13 |"],
    ]
    assert "belongs to n - 1" in text


def test_what_cannot_be_ablated(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown study 'masts'"):
        run_studies(tmp_path, tmp_path / "out", BENCH, BASE, ["masts"])
    with pytest.raises(UsageError, match="need an adaptation"):
        run_studies(tmp_path, tmp_path / "out", BENCH, replace(BASE, method="transfer"))


def test_the_command(tmp_path: Path) -> None:
    root = make_set(tmp_path / "data", videos=1, count=6)
    done = run(
        *("ablate", root, "-o", tmp_path / "out", "--study", "updates", "--backbone", "estrnn:lite", "--iters", "2"),
        *("--crop", "32", "--clip-length", "4", "--flow", "dis", "--teachers", "2", "--device", "cpu", "--offline"),
    )
    assert done.returncode == 0, done.stderr
    assert "#update, renewals of the historical model (Table 5)" in done.stdout
    assert done.stdout.count("| 2** (default)") + done.stdout.count("**2** (default)") == 1
    wrong = run("ablate", tmp_path / "nothing", "-o", tmp_path / "out2", "--study", "sevd", "--offline")
    assert wrong.returncode == 1
    assert "nothing: no such folder" in wrong.stderr
    assert not (tmp_path / "out2").exists()
