"""`posbench run`: images, weights and plugins as inputs, and mistakes in them."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.command_line import RUN, SMALL, Install, Posbench, assert_message, flat, rows
from tests.conftest import TINY


@pytest.mark.usefixtures("tiny")
class TestInputs:
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
