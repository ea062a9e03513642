"""Damaged files of every container, from reading to the finished output; the whole of it is benchmarks/mutants.py."""

from __future__ import annotations

import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_sixty_mutants_end_in_the_table_of_exit_codes() -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import mutants
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    outcomes, wrong = mutants.run(mutants.CONTAINERS, 60, command=False, first=5000)
    assert not wrong, "\n".join(wrong)
    codes = {name.split()[-1] for name in outcomes}
    assert {"0", "1"} <= codes, "some can be read and some cannot"
    assert {name.split()[0] for name in outcomes} == set(mutants.CONTAINERS)
