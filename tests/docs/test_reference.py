"""The leaderboards in `benchmarks/`: each agrees with its provenance, and the reference can be computed again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from posbench.report.read_csv import from_csv
from posbench.report.rows import rows
from posbench.store import bundle
from posbench.store.store import Store
from tests.conftest import Ran
from tests.rows import CONTROLS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
REFERENCE = BENCHMARKS / "reference"
PUBLISHED = [REFERENCE, *sorted(path for path in (BENCHMARKS / "contributed").glob("*") if path.is_dir())]
#: Greatest differences between processors and versions of torch, as benchmarks/README.md states them.
TOLERANCE = {"spc": 0.02, "mae": 0.01, "r2": 0.05}


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda path: path.name)
def test_a_published_leaderboard_is_what_its_provenance_says(folder: Path) -> None:
    published = bundle.read(folder)
    table = from_csv(folder / bundle.TABLE, CONTROLS)
    assert [row["cell_id"] for row in table] == [record.cell_id for record in published.records]
    assert [row["spc"] for row in table] == [row["spc"] for row in rows(published.records, CONTROLS)]


def commands() -> list[list[str]]:
    """Return the two commands of the section on the reference as words."""
    text = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    section = text.split("## The reference leaderboard")[1]
    return [shlex.split(line) for line in re.findall(r"```sh\n(.*?)```", section, re.DOTALL)[0].splitlines()]


@pytest.mark.long
def test_part_of_the_reference_is_computed_again(posbench: Callable[..., Ran]) -> None:
    (_, *run), (_, *publish) = commands()
    assert publish == ["publish", "benchmarks/reference", "--store", "reference.db"]
    reference = {row["cell_id"]: row for row in rows(bundle.read(REFERENCE).records, CONTROLS)}
    planned = posbench(*run, "--dry-run")
    assert "7 jobs with 35 cells" in planned.out, planned.err
    ran = posbench(*run, "--paddings", "zero", "--quiet")
    assert ran.code == 0, ran.err
    with Store(Path("reference.db"), must_exist=True) as store:
        computed = rows(store.records(), CONTROLS)
    assert len(computed) == 10
    for row in computed:
        published = reference[row["cell_id"]]
        for metric, tolerance in TOLERANCE.items():
            assert row[metric] == pytest.approx(published[metric], abs=tolerance), (row["target"], metric)
    # Cells are matched by id, also those whose scores differ by more than `merge` allows.
    compared = posbench("compare", "reference.db", str(REFERENCE))
    assert compared.code == 0, compared.err
    assert "25 cells have no counterpart" in compared.out
