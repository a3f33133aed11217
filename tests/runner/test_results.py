"""What a run gives back: frames, boards as text and HTML, maps."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import posbench as api
from posbench.core.errors import UsageError
from posbench.report.rows import columns
from posbench.store.store import Store
from tests.command_line import RUN, flat
from tests.conftest import Ran
from tests.runner.test_api import SMALL

HOSTILE = "<script>alert('1')</script> & \"more\""


@pytest.fixture
def results(tiny: str, posbench: Callable[..., Ran]) -> api.Results:
    return api.run(backbones=[tiny, "none"], paddings="zero,circular", **SMALL)


def test_a_frame_has_the_columns_of_the_table(results: api.Results) -> None:
    frame = results.to_frame()
    assert list(frame.columns) == columns(results.rows)
    assert len(frame) == 6
    assert frame["spc"].dtype == np.float64
    assert isinstance(results.jobs(), pd.DataFrame)
    assert list(results.jobs()["cells"]) == [2, 2, 2]
    assert results.measures().empty


def test_the_leaderboard_is_that_of_the_command_line(results: api.Results, posbench: Callable[..., Ran]) -> None:
    typed = posbench(*RUN, "--backbones", "tiny,none")
    assert str(results.leaderboard()).split() == typed.out.split()


def test_the_leaderboard_may_be_by_another_metric_or_the_other_way_round(results: api.Results) -> None:
    assert "mae on leaves" in str(results.leaderboard("mae"))
    by_backbone = results.leaderboard(metric="spc", by="backbone")
    assert by_backbone.boards[0].headings == ["zero", "circular"]
    assert "**spc on leaves**" in by_backbone.to_markdown()
    with pytest.raises(UsageError, match="no metric 'pearson': choose spc or mae or r2"):
        results.leaderboard("pearson")
    with pytest.raises(UsageError, match="by='target'"):
        results.leaderboard(by="target")


class Tables(HTMLParser):
    """The text of each cell, and every tag that occurs."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not {name for name, _ in attrs if name.startswith("on")}

    def handle_data(self, data: str) -> None:
        self.text += data + " "


def test_html_says_what_the_terminal_says(results: api.Results) -> None:
    page = Tables(results._repr_html_())
    assert page.tags <= {"div", "table", "caption", "thead", "tbody", "tr", "th", "td", "b", "p", "small", "br"}
    printed = re.sub(r"[┏┳┓┃┡╇┩│├┼┤└┴┘━─]", " ", str(results.leaderboard()))
    # On a page each line names its section, and what is said twice is said once.
    assert set(page.text.split()) == {*printed.split(), *" ".join(results.warnings).split()}
    assert "no trained weights for tiny" in flat(page.text)


def test_html_is_escaped(tiny: str, posbench: Callable[..., Ran]) -> None:
    def pad(x: object, sides: api.Sides) -> object:
        raise RuntimeError(HOSTILE)

    bad = api.Padding(name="bad", summary="", version="1", pad=pad)  # type: ignore[arg-type]
    results = api.run(backbones=tiny, paddings=[bad, "zero"], **SMALL)
    html = results._repr_html_()
    assert "<script" not in html
    assert HOSTILE in Tables(html).text


def test_a_dry_run_shows_its_plan_as_html(tiny: str, posbench: Callable[..., Ran]) -> None:
    html = api.run(backbones=tiny, paddings="zero", dry_run=True, **SMALL)._repr_html_()
    assert "<td>random:0</td>" in html
    assert "<td>True</td>" in html


def test_a_map_is_what_the_store_holds(results: api.Results) -> None:
    row = results.rows[0]
    drawn = results.map(row["cell_id"])
    assert (drawn.shape, drawn.dtype) == ((6, 6), np.dtype("float32"))
    assert np.array_equal(results.map(row["cell_id"][:12]), drawn)
    with Store(results.store, must_exist=True) as store:
        assert store.find(row["cell_id"]).outcome.mean_map == drawn.astype("<f4").tobytes()
    drawn += 1  # the caller's own
    assert not np.array_equal(results.map(row["cell_id"]), drawn)
    with pytest.raises(UsageError, match="no cell"):
        results.map("nothing")


def test_a_failed_cell_has_no_map(tiny: str, posbench: Callable[..., Ran]) -> None:
    def draw(size: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        raise RuntimeError("undrawn")

    small = {**SMALL, "targets": api.Target(name="T", summary="", version="1", draw=draw)}
    results = api.run(backbones=tiny, paddings="zero", **small)
    with pytest.raises(UsageError, match=r"has no map: it is failed \(.*undrawn"):
        results.map(results.rows[0]["cell_id"])


def test_a_page_is_that_of_the_command(
    results: api.Results, tiny: str, posbench: Callable[..., Ran], tmp_path: Path
) -> None:
    path = results.report(tmp_path / "a.html")
    typed = posbench("report", "--store", str(results.store), "--out", str(tmp_path / "b.html"))
    assert typed.code == 0
    assert path.read_bytes() == (tmp_path / "b.html").read_bytes()


def test_a_page_shows_a_target_of_ones_own(tiny: str, tmp_path: Path) -> None:
    def rising(side: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        return np.linspace(0, 1, side * side).reshape(side, side)

    ramp = api.Target(name="ramp", summary="", version="1", draw=rising)
    small = {key: value for key, value in SMALL.items() if key != "targets"}
    found = api.run(backbones=[tiny], paddings="zero", targets=[ramp], **small)
    text = found.report(str(tmp_path / "a.html")).read_text(encoding="utf-8")
    assert "ramp: maps on" in text
    assert "<img" in text
    assert "mean over ramp" in text


def test_a_temporary_store_goes_with_the_results(results: api.Results, tiny: str) -> None:
    made = api.run(backbones=tiny, paddings="zero", **SMALL)
    path = made.store
    assert path.exists()
    del made
    gc.collect()
    assert not path.parent.exists()
    assert results.store.exists()


def test_a_papers_numbers_stand_beside_ours(results: api.Results, tiny: str) -> None:
    beside = api.run(backbones=tiny, paddings="zero", published="islam2020-table1", **SMALL).comparison()
    assert list(beside["target"]) == ["H", "V"]
    with pytest.raises(UsageError, match="names no paper"):
        results.comparison()


def test_measures_have_a_frame(tiny: str, posbench: Callable[..., Ran]) -> None:
    results = api.run(backbones=tiny, paddings="zero", metrics=["spc", "modes"], **SMALL)
    assert set(results.measures()["metric"]) == {"modes"}
    assert "networks as a whole" in str(results.leaderboard())


def test_a_result_says_what_it_is(results: api.Results) -> None:
    assert repr(results).startswith("<posbench.Results of 3 jobs with 6 cells")
    assert not results.failed
