"""Commands on what can be named, end to end."""

from __future__ import annotations

import re

from tests.command_line import Install, Posbench


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


def test_controls_are_listed(posbench: Posbench) -> None:
    assert "held-out-positions" in posbench("list", "controls").out
