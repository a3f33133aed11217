"""Scores by tap: the rows that they are of, and their picture."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from posbench.bench.records import Score
from posbench.report.rows import rows
from posbench.report.taps import TapScores, svg, tap_scores
from posbench.store.store import Store
from tests import factories
from tests.rows import CONTROLS


def score(value: float, lo: float | None = None, hi: float | None = None) -> Score:
    return Score("spc", "1", value, lo, hi)


def charts(path: Path, taps: list[str], **more: Any) -> list[TapScores]:
    plan = factories.plan(
        taps=taps,
        paddings=[factories.padding("zero"), factories.padding("circular")],
        targets=[factories.target("H"), factories.target("G")],
        **more,
    )
    values = {"1": 0.25, "2": 0.5, "3": 0.75, "1+2": 0.9, "all": 1.0}
    with Store(path) as store:
        for job, cells in plan.jobs():
            half = None if job.padding and job.padding.name == "zero" else 0.125
            store.save(job, cells, [factories.scored(cell, values[cell.taps], half) for cell in cells], {})
        return tap_scores(rows(store.records(), CONTROLS))


def test_single_taps_alone_and_in_order(tmp_path: Path) -> None:
    [chart] = charts(tmp_path / "a.db", ["all", "1", "2", "3", "1+2"])
    zero = {1: (0.25, None, None), 2: (0.5, None, None), 3: (0.75, None, None)}
    circular = {1: (0.25, 0.125, 0.375), 2: (0.5, 0.375, 0.625), 3: (0.75, 0.625, 0.875)}
    shown = {
        target: {
            padding: {tap: (score.value, score.lo, score.hi) for tap, score in of_padding.items()}
            for padding, of_padding in of_target.items()
        }
        for target, of_target in chart.scores.items()
    }
    assert shown == {name: {"zero": zero, "circular": circular} for name in "HG"}
    assert chart.title.startswith("net, imagenet:net@1: ")


def test_one_tap_is_no_line(tmp_path: Path) -> None:
    assert charts(tmp_path / "a.db", ["all", "2"]) == []


def test_networks_and_settings_are_apart(tmp_path: Path) -> None:
    networks = [(factories.backbone(name), [factories.TRAINED]) for name in ("a", "b")]
    readouts = [factories.readout("ridge"), factories.readout("other")]
    every = charts(tmp_path / "a.db", ["1", "2"], networks=networks, readouts=readouts)
    assert len({(chart.title, chart.setting) for chart in every}) == len(every) == 4


def test_the_picture_names_what_it_shows_and_is_the_same_again() -> None:
    scores = {
        "a $x$ <b>": {"p & q": {1: score(0.5, 0.25, 0.75), 2: score(0.0, 0.0, 0.5)}},
        **{f"t{i}": {"_hidden": {1: score(1.0), 12: score(0.5)}} for i in range(3)},
    }
    text = svg(TapScores("title", "", scores))
    assert text == svg(TapScores("title", "", scores))
    root = ET.fromstring(text)  # noqa: S314  matplotlib wrote it
    words = ["".join(element.itertext()).strip() for element in root.iter("{http://www.w3.org/2000/svg}text")]
    for word in ("a $x$ <b>", "p & q", "_hidden", "t0", "t2", "12", "tap", "SPC"):
        assert word in words
    assert "<script" not in text
