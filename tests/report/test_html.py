"""The page that `posbench report` writes: its texts, that it needs no other file, that only its script runs."""

from __future__ import annotations

import base64
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from posbench.bench.records import Example
from posbench.report.boards import Board, Entry
from posbench.report.html import board_table, page, paragraphs
from posbench.store.store import Store
from tests import factories
from tests.conftest import Ran
from tests.rows import CONTROLS

Posbench = Callable[..., Ran]
ALONE = ("src", "href", "action", "data", "poster", "srcset")


class Reader(HTMLParser):
    """Records the elements of a page, their references and their text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.references: list[str] = []
        self.handlers: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.references += [value or "" for name, value in attrs if name in ALONE]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Return a store with two paddings of a network, one cell failed for a reason that looks like markup."""
    plan = factories.plan(paddings=[factories.padding("zero"), factories.padding("valid")])
    path = tmp_path / "a.db"
    with Store(path) as opened:
        for job, cells in plan.jobs():
            value = 0.8 if job.padding and job.padding.name == "zero" else 0.1
            outcomes = [factories.scored(cell, value) for cell in cells]
            if value == 0.1:
                outcomes[0] = replace(
                    factories.scored(cells[0]), status="failed", scores=(), reason="<script>alert(1)</script>"
                )
            opened.save(job, cells, outcomes, {"machine": "<img src=x onerror=alert(2)>", "seconds": {}})
    return path


def test_the_page_stands_alone_and_escapes_what_it_shows(store: Path) -> None:
    text = page(store, [factories.metric("spc")], CONTROLS, lambda identity, side: None)
    reader = Reader(text)
    assert all(reference.startswith(("data:", "#")) for reference in reader.references)
    assert not reader.handlers
    assert reader.elements.count("script") == 1
    assert "<script>alert(1)</script>" in reader.text
    assert "<img src=x onerror=alert(2)>" in reader.text
    script = re.search("<script>(.*?)</script>", text[text.rindex("<script>") :], re.DOTALL)
    assert script
    digest = base64.b64encode(sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    assert "default-src 'none'" in text


def test_a_store_without_anything_has_no_report(posbench: Posbench, tmp_path: Path) -> None:
    with Store(tmp_path / "empty.db"):
        pass
    ran = posbench("report", "--store", str(tmp_path / "empty.db"), "--out", str(tmp_path / "r.html"))
    assert ran.code == 2
    assert "holds nothing to report: `posbench run` computes some" in ran.err
    assert not (tmp_path / "r.html").exists()


def test_without_jinja2_it_names_the_extra(
    posbench: Posbench, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    ran = posbench("report", "--store", str(store), "--out", str(tmp_path / "r.html"))
    assert (ran.code, ran.err.strip()) == (4, "posbench: a report needs jinja2: pip install 'position-bench[report]'")


def test_a_run_ends_in_a_page_to_look_at(posbench: Posbench, tiny: str, tmp_path: Path) -> None:
    where = str(tmp_path / "a.db")
    few = ("--train-count", "12", "--test-count", "6", "--image-size", "64", "--images", "leaves")
    assert (
        posbench(
            "run", "--backbones", tiny, "--paddings", "zero,circular", *few, "--targets", "G,H", "--store", where
        ).code
        == 0
    )
    ran = posbench("report", "--store", where, "--out", str(tmp_path / "r.html"))
    assert ran.code == 0, ran.err
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    reader = Reader(text)
    assert "mean SPC" in reader.text
    assert "against zero padding" in reader.text
    # A map for each padding and target, each beside its target; a content error for each padding and photograph.
    assert reader.elements.count("img") == 4 + 4 + 6
    assert text.count("data:image/jpeg;base64,") == 3
    assert text.count('alt="target, circular padding"') == 2
    assert text.count('alt="tiny, untrained, random:0, zero padding"') == 2
    again = posbench("report", "--store", where, "--out", str(tmp_path / "again.html"))
    assert again.code == 0
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("networks", "tables"),
    [
        ([], ["table1"]),
        ([factories.backbone("vgg16")], ["table1", "table2a", "table2b", "table3", "table4", "table6"]),
        ([factories.backbone("other")], ["table1"]),
    ],
)
def test_published_numbers_of_the_control_alone_stand_there_once(
    networks: list[factories.Backbone], tables: list[str], tmp_path: Path
) -> None:
    plan = factories.plan(networks=[factories.control(), *((network, [factories.TRAINED]) for network in networks)])
    with Store(tmp_path / "a.db") as opened:
        for job, cells in plan.jobs():
            opened.save(job, cells, [factories.scored(cell) for cell in cells], {})
    text = page(tmp_path / "a.db", [factories.metric("spc")], CONTROLS, lambda identity, side: None)
    assert re.findall(r"measured beside islam2020-(\w+)", text) == tables


def test_what_failed_is_a_line_a_job_and_reason(tmp_path: Path) -> None:
    plan = factories.plan(
        targets=[factories.target("H"), factories.target("V")],
        taps=["all", "1"],
        paddings=[factories.padding("zero"), factories.padding("valid")],
    )
    with Store(tmp_path / "a.db") as opened:
        for job, cells in plan.jobs():
            reasons = [
                f"{job.title}: {'late' if cell.taps == '1' and cell.target.name == 'V' else 'why'}" for cell in cells
            ]
            outcomes = [
                factories.Outcome(cell.identity(), "failed", reason)
                for cell, reason in zip(cells, reasons, strict=True)
            ]
            opened.save(job, cells, outcomes, {})
    text = Reader(page(tmp_path / "a.db", [factories.metric("spc")], CONTROLS, lambda identity, side: None)).text
    missing = text[text.index("Results without a score, job by job") : text.index("4 lines") + 2000]
    assert missing.count("H, V; taps 1: H") == 2
    assert missing.count("taps 1: V") == 2


@pytest.mark.parametrize("taps", [["all"], ["all", "1", "2", "3"]], ids=["together", "and each by itself"])
def test_two_hundred_jobs_stay_under_ten_megabytes(taps: list[str], tmp_path: Path) -> None:
    plan = factories.plan(
        taps=taps,
        networks=[(factories.backbone(f"net-{i}"), [factories.TRAINED]) for i in range(20)],
        paddings=[factories.padding(f"padding-{i}") for i in range(10)],
        targets=[factories.target(name) for name in ("H", "V", "G", "HS", "VS")],
    )
    jobs = list(plan.jobs())
    assert len(jobs) == 200
    # Noise compresses least.
    rng = np.random.default_rng(0)
    photographs = [rng.integers(0, 256, 112 * 112 * 3, np.uint8).tobytes() for _ in range(3)]

    def noise(form: str) -> bytes:
        return rng.normal(size=28 * 28).astype(form).tobytes()

    with Store(tmp_path / "a.db") as opened:
        for job, cells in jobs:
            outcomes = [
                factories.scored(
                    cell,
                    mean_map=noise("<f4"),
                    examples=[Example(f"photograph-{i}", rgb, noise("<f2")) for i, rgb in enumerate(photographs)],
                )
                for cell in cells
            ]
            opened.save(job, cells, outcomes, {"job": job.id, "seconds": {}})
    text = page(
        tmp_path / "a.db",
        [factories.metric("spc")],
        CONTROLS,
        lambda identity, side: np.zeros((side, side), np.float32),
    )
    charts = 20 if len(taps) > 1 else 0
    assert Reader(text).elements.count("img") == 5 * 10 + 5 * len(jobs) + 3 * len(jobs) + charts
    assert text.count("data:image/jpeg;base64,") == 3
    assert len(text.encode()) < 10 * 2**20


def test_a_board_is_a_table_that_escapes_what_it_says() -> None:
    entries = [Entry(0.5, 0.1, best=True, status="ok"), Entry(status="failed", note=1)]
    board = Board("<t>", "c & d", "target", "padding", ["a\nb", "c"], {"H": [("zero", entries)]}, ["[1] <i>"])
    assert board_table(board) == (
        '<div class="scroll"><table class="sortable"><caption>&lt;t&gt;</caption>\n'
        '<thead><tr><th scope="col">target</th><th scope="col">padding</th><th scope="col">a<br>b</th>'
        '<th scope="col">c</th></tr></thead>\n'
        "<tbody>\n"
        '<tr><td>H</td><td>zero</td><td class="number best" data-value="0.5" style="text-align: right">'
        '<b>0.50 ±0.10</b></td><td class="number" data-value="" style="text-align: right">failed [1]</td></tr>\n'
        "</tbody>\n"
        "</table></div>\n"
        "<p><small>c &amp; d<br>[1] &lt;i&gt;</small></p>"
    )


def test_paragraphs_are_escaped() -> None:
    assert paragraphs(["a < b"]) == "<p>a &lt; b</p>"
