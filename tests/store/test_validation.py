"""Commands work on any store, or refuse it in one line."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from posbench.bench.records import Example, Measurement
from posbench.store.store import Store
from tests.conftest import Ran
from tests.factories import padding, plan, scored, target

MAP = np.linspace(0, 1, 16, dtype="<f4").tobytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a value in every column."""
    path = tmp_path_factory.mktemp("whole") / "whole.db"
    example = Example("a@1", bytes(range(12)), np.zeros((2, 2), "<f2").tobytes())
    measurement = Measurement("modes", "1", "all", "ok", "", 1.5, 1.0, 2.0, {"a@1": 1.5}, MAP, 4)
    with Store(path) as store:
        for job, cells in plan(
            targets=[target("H"), target("V")], paddings=[padding("zero"), padding("reflect")]
        ).jobs():
            outcomes = [
                scored(cell, degenerate=0.25, seconds=1.0, mean_map=MAP, reach=3.0, examples=[example], reason="=1")
                for cell in cells
            ]
            store.save(job, cells, outcomes, {"torch": "2", "seconds": {"fit": 0.5}}, [measurement])
    return path


COLUMNS = {
    "runs": ("run_id", "job_id", "provenance", "created"),
    "cells": (
        *("cell_id", "run_id", "identity", "status", "reason", "n_test_photos", "degenerate", "seconds", "mean_map"),
        *("created", "posbench_version", "reach"),
    ),
    "scores": ("cell_id", "metric", "version", "value", "lo", "hi", "by_photograph"),
    "measures": (
        *("job_id", "metric", "version", "tap", "run_id", "identity", "status", "reason", "value", "lo", "hi"),
        *("by_photograph", "picture", "columns", "created", "posbench_version"),
    ),
    "thumbnails": ("digest", "rgb"),
    "examples": ("cell_id", "place", "photograph", "thumbnail", "drawn"),
}
PLACES = st.sampled_from([(table, column) for table, columns in COLUMNS.items() for column in columns])
ODD = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.binary(max_size=9),
    st.text(max_size=9),
    st.sampled_from(
        [
            "\x1b[2J",
            "a\nb",
            "=1+1",
            "<script>",
            "../x",
            "[red]",
            "spc",
            "mae",
            "spc_lo",
            "status",
            "ok",
            "failed",
            "none",
        ]
    ),
    st.sampled_from(['{"a": NaN}', '{"a": 1e999}', "[[[", "[" * 9999, "{}", "[1]", '{"\\ud800": 1}', '{"a": 1e300}']),
    st.sampled_from([9e999, -9e999, 1e300, 2**53, 2**63 - 1, -5, 0]),
)
#: Replacements of text within the JSON of identities, which keep it JSON.
WITHIN = st.sampled_from(
    [
        ('"name": "zero"', '"name": 7'),
        ('"taps": "all"', '"taps": "1+x"'),
        ('"taps": "all"', '"taps": "99"'),
        ('"seed": null', '"seed": "x"'),
        ('"seed": null', '"seed": 99999999999999999999999'),
        ('"n_test": 4', '"n_test": -4'),
        ('"image_size": 64', '"image_size": 0'),
        ('"image_size": 64', '"image_size": 9007199254740991'),
        ('"sha256"', '"sha"'),
        ('"label": "photos"', '"label": "\\u001b[31m"'),
        ('"label": "photos"', '"label": "leaves"'),
        ('"label": "imagenet:net@1"', '"label": ""'),
        ('"precision": "fp32"', '"precision": {}'),
        ('"taps"', '"control": ["null"], "taps"'),
        ('"taps"', '"control": "null", "control_of": "x", "taps"'),
        ('"taps"', '"test_size": "x", "taps"'),
        ('"version": "1"', '"version": null'),
        ('"halved": true', '"halved": {"a": []}'),
    ]
)


def spoil(path: Path, where: tuple[str, str], odd: Any, within: tuple[str, str] | None) -> bool:
    """Put something odd into one row; return whether that is possible."""
    table, column = where
    with sqlite3.connect(path) as connection:
        try:
            if within:
                connection.execute(
                    f"UPDATE {table} SET identity = replace(identity, ?, ?) WHERE run_id = 1",  # noqa: S608
                    within,
                )
            else:
                first = f"(SELECT min({column}) FROM {table})"  # noqa: S608
                connection.execute(f"UPDATE OR IGNORE {table} SET {column} = ? WHERE {column} = {first}", (odd,))  # noqa: S608
        except (sqlite3.Error, UnicodeEncodeError):
            return False
    connection.close()
    return True


def check(whole: Path, where: tuple[str, str], odd: Any, within: tuple[str, str] | None, posbench: Any) -> None:
    for path in Path().iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copy(whole, "a.db")
    if not spoil(Path("a.db"), where, odd, within):
        return

    def run(*command: str) -> bool:
        ran: Ran = posbench(*command)
        assert ran.code in (0, 2), ran
        if ran.code:
            assert (ran.out, len(ran.err.splitlines())) == ("", 1), ran
            assert ran.err.startswith("posbench: ")
        assert "\x1b" not in ran.out + ran.err
        return not ran.code

    shown = run("leaderboard", "--store", "a.db", "--csv", "a.csv")
    assert run("leaderboard", "--store", "a.db", "--json") == shown
    # Commands read what another command has written.
    if shown and run("compare", str(whole), "a.db"):
        assert run("compare", "a.csv", "a.csv")
    published = run("publish", "out", "--store", "a.db")
    assert published == Path("out").exists()
    if published:
        assert run("compare", "out", "out") == run("compare", "a.db", "a.db")
        assert run("merge", "out", "-o", "again.db")
    if run("merge", "a.db", "-o", "all.db"):
        assert shown
        assert run("leaderboard", "--store", "all.db")
        assert run("report", "--store", "all.db")
    run("merge", str(whole), "a.db", "-o", "both.db")


SAME_FOLDER = settings(suppress_health_check=list(HealthCheck), deadline=None, phases=[Phase.reuse, Phase.generate])


@settings(SAME_FOLDER, max_examples=4)
@given(where=PLACES, odd=ODD, within=st.none() | WITHIN)
def test_whatever_a_row_holds_commands_work_or_say_why_not(
    where: tuple[str, str], odd: Any, within: tuple[str, str] | None, whole: Path, posbench: Callable[..., Ran]
) -> None:
    check(whole, where if not within else ("cells", "identity"), odd, within, posbench)


@pytest.mark.long
@settings(SAME_FOLDER, max_examples=30)
@given(where=PLACES, odd=ODD, within=st.none() | WITHIN)
def test_whatever_many_rows_hold(
    where: tuple[str, str], odd: Any, within: tuple[str, str] | None, whole: Path, posbench: Callable[..., Ran]
) -> None:
    check(whole, where if not within else ("cells", "identity"), odd, within, posbench)
