"""Scores by tap: which rows they are of, and what the picture shows."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from posbench.report.rows import rows
from posbench.report.taps import TapScores, svg, tap_scores
from posbench.store.store import Store
from tests import factories as made


def found(path: Path, taps: list[str], **more: Any) -> list[TapScores]:
    plan = made.plan(
        taps=taps,
        paddings=[made.padding("zero"), made.padding("circular")],
        targets=[made.target("H"), made.target("G")],
        **more,
    )
    values = {"1": 0.25, "2": 0.5, "3": 0.75, "1+2": 0.9, "all": 1.0}
    with Store(path) as store:
        for job, cells in plan.jobs():
            half = None if job.padding and job.padding.name == "zero" else 0.125
            store.save(job, cells, [made.scored(cell, values[cell.taps], half) for cell in cells], {})
        return tap_scores(rows(store.records()))


def test_single_taps_alone_and_in_order(tmp_path: Path) -> None:
    [one] = found(tmp_path / "a.db", ["all", "1", "2", "3", "1+2"])
    zero = {1: (0.25, None, None), 2: (0.5, None, None), 3: (0.75, None, None)}
    circular = {1: (0.25, 0.125, 0.375), 2: (0.5, 0.375, 0.625), 3: (0.75, 0.625, 0.875)}
    assert one.scores == {name: {"zero": zero, "circular": circular} for name in "HG"}
    assert one.title.startswith("net, imagenet:net@1: ")


def test_one_tap_is_no_line(tmp_path: Path) -> None:
    assert found(tmp_path / "a.db", ["all", "2"]) == []


def test_networks_and_settings_are_apart(tmp_path: Path) -> None:
    networks = [(made.backbone(name), [made.TRAINED]) for name in ("a", "b")]
    readouts = [made.readout("ridge"), made.readout("other")]
    of = found(tmp_path / "a.db", ["1", "2"], networks=networks, readouts=readouts)
    assert len({(one.title, one.setting) for one in of}) == len(of) == 4


def test_the_picture_names_what_it_shows_and_is_the_same_again() -> None:
    scores = {
        "a $x$ <b>": {"p & q": {1: (0.5, 0.25, 0.75), 2: (0.0, 0.0, 0.5)}},
        **{f"t{i}": {"_hidden": {1: (1.0, None, None), 12: (0.5, None, None)}} for i in range(3)},
    }
    text = svg(TapScores("title", "", scores))
    assert text == svg(TapScores("title", "", scores))
    words = ["".join(one.itertext()).strip() for one in ET.fromstring(text).iter("{http://www.w3.org/2000/svg}text")]  # noqa: S314  matplotlib wrote it
    for word in ("a $x$ <b>", "p & q", "_hidden", "t0", "t2", "12", "tap", "SPC"):
        assert word in words
    assert "<script" not in text
