"""Commands that show stored results, end to end."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from posbench.store.store import Store
from tests.command_line import RUN, SMALL, Install, Posbench, assert_message, rows
from tests.factories import plan, scored, target


@pytest.mark.usefixtures("tiny")
class TestReading:
    @pytest.fixture(autouse=True)
    def _stored(self, posbench: Posbench, tiny: str) -> None:
        assert posbench("run", "--backbones", "tiny,none", "--paddings", "zero,circular", *SMALL).code == 0

    def test_the_leaderboard_is_what_the_run_showed(self, posbench: Posbench) -> None:
        shown = posbench("run", "--backbones", "tiny,none", "--paddings", "zero,circular", *SMALL).out
        assert posbench("leaderboard").out == shown

    def test_by_backbone_turns_the_table(self, posbench: Posbench) -> None:
        text = posbench("leaderboard", "--by", "backbone").out
        header = next(line for line in text.splitlines() if "backbone" in line)
        assert header.index("backbone") < header.index("zero")
        assert "circular" in header

    def test_another_metric(self, posbench: Posbench) -> None:
        text = posbench("leaderboard", "--metric", "mae").out
        assert "mae on leaves" in text
        assert "lower is better" in text

    def test_markdown_and_csv_files(self, posbench: Posbench) -> None:
        ran = posbench("leaderboard", "--markdown", "-")
        lines = ran.out.splitlines()
        assert lines[0] == "**spc on leaves**"
        assert lines[2].startswith("| target | padding | tiny<br>untrained, random:0 | none<br>none |")
        assert len([line for line in lines if line.startswith(("| H |", "| V |"))]) == 4
        posbench("leaderboard", "--markdown", "board.md", "--csv", "board.csv")
        assert Path("board.md").read_text(encoding="utf-8") == ran.out
        assert len(rows(Path("board.csv").read_text())) == 6

    def test_the_csv_holds_the_whole_store(self, posbench: Posbench) -> None:
        posbench(*RUN, "--paddings", "reflect")
        table = rows(posbench("leaderboard", "--csv", "-").out)
        assert len(table) == 8
        assert table == [
            {key: "" if value is None else str(value) for key, value in row.items()}
            for row in json.loads(posbench("leaderboard", "--json").out)
        ]

    def test_show_draws_a_cell_beside_its_target(self, posbench: Posbench) -> None:
        row = rows(posbench("leaderboard", "--csv", "-").out)[0]
        text = posbench("show", row["cell_id"][:12]).out
        spc = f"{float(row['spc']):.4g}\n"  # of numbers, what one reads, and no blanks to the widest line
        for piece in (row["cell_id"], spc, "random:0", "mean prediction", "target H", "provenance", "torch"):
            assert piece in text
        # The target rises from left to right, each of its 6 rows alike.
        ramps = [line for line in text.splitlines() if re.search(r" +░+▒+▓+█+\s*$", line)]
        assert len(ramps) == 6

    def test_a_metric_from_a_later_run_joins_the_row(self, posbench: Posbench, install: Install) -> None:
        before = rows(posbench("leaderboard", "--csv", "-").out)
        install(
            "posbench-median",
            """
            from posbench import Metric, hookimpl

            def score(prediction, target):
                return (prediction - target).abs().flatten(1).median(1).values

            @hookimpl
            def posbench_metrics():
                return [Metric(name="median", summary="", version="1", score=score, higher_is_better=False)]
            """,
        )
        more = rows(posbench(*RUN, "--metrics", "spc,mae,r2,median", "--csv", "-").out)
        assert all(float(row["median"]) > 0 and row["median_hi"] for row in more)
        assert [row["spc"] for row in more] == [row["spc"] for row in before[:4]]
        assert "median on leaves" in posbench("leaderboard", "--metric", "median").out


@pytest.mark.parametrize(
    ("arguments", "pieces"),
    [
        (("leaderboard", "--store", "none.db"), ("there is no store at 'none.db'", "posbench run")),
        (("leaderboard", "--metric", "scp"), ("unknown metric 'scp'", "spc")),
        (("leaderboard", "--by", "colour"), ("--by 'colour'", "padding or backbone")),
        (("leaderboard", "--json", "--csv", "-"), ("one of --json, --csv - and --markdown -",)),
        (("leaderboard", "--csv", "no/folder/a.csv"), ("no/folder/a.csv",)),
        (("show", "zzz"), ("no cell in 'posbench.db' starts with 'zzz'",)),
        (("show", ""), ("2 cells start with ''",)),
        (("show", "a", "--store", "none.db"), ("there is no store at 'none.db'",)),
        (("list", "padding"), ("unknown kind 'padding'", "paddings")),
    ],
)
def test_asking_wrongly_for_results_is_one_line_and_exit_2(
    arguments: tuple[str, ...], pieces: tuple[str, ...], posbench: Posbench
) -> None:
    wanted = plan(targets=[target("H"), target("V")])
    with Store(Path("posbench.db")) as store:
        store.save(wanted.cells[0].job, wanted.cells, [scored(cell) for cell in wanted.cells], {})
    assert_message(posbench(*arguments), 2, *pieces)
    assert not Path("none.db").exists()


def test_show_of_a_cell_that_failed_says_why(posbench: Posbench, install: Install, tiny: str) -> None:
    install(
        "posbench-broken",
        """
        from posbench import Target, hookimpl

        @hookimpl
        def posbench_targets():
            return [Target(name="bad", summary="", version="1", draw=lambda size: 1 / 0)]
        """,
    )
    ran = posbench(*RUN, "--targets", "bad", "--paddings", "zero", "--csv", "-")
    assert ran.code == 1
    (row,) = rows(ran.out)
    text = posbench("show", row["cell_id"][:10])
    assert text.code == 0, text.err
    assert "division by zero" in text.out
