"""Verdicts, comparisons and measurements of whole networks, end to end."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from pathlib import Path

import pytest

from posbench.bench.verdict import verdicts
from posbench.report.rows import rows as to_rows
from posbench.store.store import Store
from tests.command_line import Posbench
from tests.rows import CONTROLS

CHECKED = ("run", "--backbones", "resnet18", "--weights", "random", "--paddings", "zero,circular", "--targets", "H,G")
CROPS = ("--image-size", "64", "--train-count", "16", "--test-count", "16", "--quiet")


class TestControls:
    def test_a_checked_run_ends_in_verdicts_and_their_evidence(self, posbench: Posbench) -> None:
        ran = posbench(*CHECKED, *CROPS, "--images", "leaves", "--controls", "null,permuted", "--csv", "out.csv")
        assert ran.code == 0, ran.err
        assert "and its controls: resnet18, untrained, random:0" in ran.out
        [verdict] = [line for line in ran.out.splitlines() if "zero" in line and "encodes position" in line]
        assert " to " in verdict
        with Path("out.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        plain = {(row["padding"], row["target"]): row for row in rows if not row["control"]}
        assert Counter(row["control"] for row in rows) == {"": 4, "null": 4, "permuted": 4}
        for row in rows:
            checked = plain[row["padding"], row["target"].removesuffix("-permuted")]
            assert row["control_of"] in ("", checked["cell_id"])
            assert bool(row["verdict"]) == (not row["control"])
        assert plain["zero", "H"]["verdict"] == "encodes position"
        assert plain["circular", "H"]["verdict"] != "encodes position"
        assert float(plain["zero", "H"]["reach"]) > float(plain["circular", "H"]["reach"])
        shown = posbench("show", plain["zero", "H"]["cell_id"][:12]).out
        assert "verdict: encodes position" in shown
        assert "permuted" in shown
        with Store(Path("posbench.db")) as store:
            every = to_rows(store.records(), CONTROLS)
            for record, verdict in zip(store.records(), verdicts(every), strict=True):
                related = to_rows(store.related(record), CONTROLS)
                ids = [row["cell_id"] for row in related]
                assert verdicts(related)[ids.index(record.cell_id)] == verdict
                assert {row["cell_id"] for row in every if row["control_of"] == record.cell_id} <= {*ids}
                assert len(related) < len(every)
        assert "encodes position" in posbench("leaderboard", "--json").out
        plotted = posbench("leaderboard", "--reach").out
        assert "reach of the border, in pixels" in plotted

    def test_a_store_without_measures_of_networks_says_how_to_have_them(self, posbench: Posbench) -> None:
        assert posbench(*CHECKED, *CROPS).code == 0
        answer = posbench("measures")
        assert answer.code == 2
        assert "holds none: `posbench run --metrics modes" in answer.err

    def test_two_paddings_are_compared_on_the_same_photographs(self, posbench: Posbench) -> None:
        assert posbench(*CHECKED, *CROPS).code == 0
        ran = posbench("compare", "padding=zero", "padding=circular")
        assert ran.code == 0, ran.err
        assert "spc: A is padding=zero, B is padding=circular" in ran.out
        compared = json.loads(posbench("compare", "padding=zero", "padding=circular", "--json").out)
        assert [line["labels"]["target"] for line in compared["lines"]] == ["H", "G"]
        assert all(line["difference"]["n"] == 15 for line in compared["lines"])
        assert all(line["adjusted"] >= line["difference"]["p"] for line in compared["lines"])
        assert posbench("compare", "padding=zero", "padding=odd").code == 2

    def test_a_metric_that_a_paper_does_not_print_is_shown_beside_its_table(self, posbench: Posbench) -> None:
        table = ("--published", "islam2020-table1", "--metrics")
        printed = posbench(*CHECKED, *CROPS, *table, "spc").out
        assert "measured beside islam2020-table1" in printed
        assert "spc on photos" not in printed
        both = posbench(*CHECKED, *CROPS, *table, "r2").out
        assert "measured beside islam2020-table1" in both
        assert "r2 on photos" in both

    def test_networks_as_a_whole_have_a_table_of_their_own(self, posbench: Posbench) -> None:
        # From 112 pixels on, a window's margin is as wide as the network's stride.
        crops = ("--image-size", "112", "--train-count", "8", "--test-count", "8", "--quiet")
        arguments = (*CHECKED, *crops, "--images", "leaves", "--metrics", "modes,ppp-mae,ppp-snr")
        ran = posbench(*arguments)
        assert ran.code == 0, ran.err
        assert "networks as a whole on leaves" in ran.out
        rows = list(csv.DictReader(io.StringIO(posbench("measures", "--csv", "-").out)))
        values = {(row["metric"], row["padding"], row["tap"]): float(row["value"]) for row in rows}
        assert len(values) == 2 * (1 + 4 + 4)
        assert values["modes", "zero", "all"] > values["modes", "circular", "all"] + 1
        assert values["ppp-mae", "zero", "1"] > 100 * abs(values["ppp-mae", "circular", "1"])
        drawn = posbench("measures", "--pictures").out
        assert "modes: resnet18 (random:0), zero, leaves" in drawn
        assert len(json.loads(posbench("measures", "--json").out)) == len(rows)
        assert "0 jobs with 0 cells to do" in posbench(*arguments, "--dry-run").out

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("run", "--controls", "nul"), "unknown control 'nul': did you mean null?"),
            (("compare", "here.db", "padding=zero"), "'here.db' is no file: give a store, a CSV file, or columns"),
            (("compare", "padding=zero", "padding=zero"), "there is no store at 'posbench.db'"),
            (("measures",), "there is no store at 'posbench.db'"),
        ],
    )
    def test_what_is_not_there_is_said_in_one_line(
        self, arguments: tuple[str, ...], message: str, posbench: Posbench
    ) -> None:
        ran = posbench(*arguments)
        assert (ran.code, ran.out) == (2, "")
        assert message in ran.err
