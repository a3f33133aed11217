"""Controls of plugins in runs of the command line, and their catalogue."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from posbench.plugin.control import Check, Control, ControlCatalogue
from tests.conftest import Ran
from tests.plugin.test_hookspecs import example

BROKEN = """
import os
from posbench import Check, Control, hookimpl

def checks(cell, context):
    {body}

@hookimpl
def posbench_controls():
    return [Control(name="broken", summary="", version="1", checks=checks)]
"""
SMALL = ("--backbones", "tf_efficientnet_lite0", "--weights", "random", "--images", "leaves", "--targets", "H")
TINY = ("--paddings", "zero", "--image-size", "64", "--train-count", "8", "--test-count", "4", "--precision", "fp32")


def test_a_plugins_control_is_listed_run_and_shown(install: Callable[..., None], posbench: Callable[..., Ran]) -> None:
    install("posbench-example", example("posbench_controls"))
    assert "without-means" in posbench("list", "controls").out
    ran = posbench("run", *SMALL, *TINY, "--controls", "without-means,permuted", "--quiet", "--json")
    assert ran.code == 0, ran.err
    rows = {row["control"]: row for row in json.loads(ran.out)}
    assert set(rows) == {None, "without-means", "without-means-more-images", "permuted"}
    assert rows["without-means-more-images"]["n_test"] == 8
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert rows["without-means"]["spc"] != rows[None]["spc"]
    shown = posbench("show", str(rows[None]["cell_id"])[:12]).out
    assert "without-means-more-images" in shown


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise KeyError('lost')", "control 'broken' of posbench-broken 1.0: KeyError: 'lost'"),
        ("os._exit(3)", "control 'broken' of posbench-broken 1.0: its process"),
        ("return [Check(name='null')]", "check 'null' must be called 'broken'"),
        (
            "return [Check(name='broken', n_test=-1)]",
            "broken: n_test is -1; it must be None, or an integer ≥ 1",
        ),
    ],
)
def test_a_control_that_fails_costs_its_own_cells(
    body: str, reason: str, install: Callable[..., None], posbench: Callable[..., Ran]
) -> None:
    install("posbench-broken", BROKEN.format(body=body))
    with_others = posbench("run", *SMALL, *TINY, "--controls", "all", "--dry-run")
    assert "left out: " in with_others.err
    assert reason in with_others.err
    alone = posbench("run", *SMALL, *TINY, "--controls", "broken", "--dry-run")
    assert alone.code == 2
    assert reason in alone.err


def control(name: str) -> Control:
    return Control(name=name, summary="", version="1", checks=lambda cell, context: [])


def test_the_catalogue_finds_the_control_of_a_check() -> None:
    size, large = control("size"), control("size-large")
    catalogue = ControlCatalogue([size, large])
    assert [*catalogue] == [size, large]
    assert catalogue.of_check("size") is catalogue.of_check("size-256-border") is size
    assert catalogue.of_check("size-large") is catalogue.of_check("size-large-pixel") is large
    assert catalogue.of_check("sizes") is catalogue.of_check("") is catalogue.of_check(None) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"n_test": 0}, "n_test is 0"),
        ({"n_test": True}, "n_test is True"),
        ({"test_size": "64"}, "test_size is '64'"),
        ({"random_weights": -3}, "random_weights is -3"),
        ({"score_at": "pixels"}, "score_at is 'pixels'"),
        ({"no_network": True, "random_weights": 1}, "needs a network"),
    ],
)
def test_a_check_that_no_store_could_hold_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Check(name="mine", **changes)
