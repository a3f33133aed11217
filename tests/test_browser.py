"""The report in a real browser, Debian's Chromium: what it loads, sorts, filters, and shows at two widths.

`apt-get install chromium` provides the browser, where it is not there.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from posbench.report import page
from posbench.store import Example, Store
from tests import made
from tests.conftest import Ran

pytestmark = pytest.mark.long
#: Not to be run as root, nor to ask anybody anything.
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
HOSTILE = "<img src=http://example.org/x onerror=document.title='run'><script>document.title='run'</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert found, "these tests need Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield started
        started.close()


def scored(cell: Any) -> Any:
    """SPC by padding and target, with maps, examples, and a failure that would like to be markup."""
    value = {"zero": 0.9, "circular": 0.125, "reflect": 0.25}[cell.job.padding.name] + 0.05 * (cell.target.name == "G")
    if cell.job.backbone.name == "b" and cell.job.padding.name == "reflect":
        return made.Outcome(cell.identity(), "failed", HOSTILE)
    rng = np.random.default_rng(0)
    thumbnail = rng.integers(0, 256, 112 * 112 * 3, np.uint8).tobytes()
    drawn = rng.normal(size=(28, 28))
    examples = [Example("a@1", thumbnail, drawn.astype("<f2").tobytes())]
    return made.scored(cell, value, mean_map=drawn.astype("<f4").tobytes(), examples=examples, reach=20.0 + value)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of two networks, three paddings, three targets, single taps and all."""
    folder = tmp_path_factory.mktemp("report")
    plan = made.plan(
        networks=[(made.backbone(name), [made.TRAINED]) for name in ("a", "b")],
        paddings=[made.padding(name) for name in ("zero", "circular", "reflect")],
        targets=[made.target(name) for name in "HVG"],
        taps=["all", "1", "2"],
    )
    with Store(folder / "a.db") as store:
        for job, cells in plan.jobs():
            store.save(job, cells, [scored(cell) for cell in cells], {"machine": HOSTILE})
    text = page(folder / "a.db", [made.metric("spc")], lambda identity, side: np.eye(side, dtype=np.float32))
    (folder / "report.html").write_text(text, encoding="utf-8")
    return folder / "report.html"


@pytest.fixture
def opened(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens a page, and notes what it says on the console and asks for: opened(path, width=390)."""
    contexts = []

    def visit(path: Path, **options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        found = context.new_page()
        found.said, found.asked = [], []  # type: ignore[attr-defined]
        found.on("console", lambda message: found.said.append(message.text))  # type: ignore[attr-defined]
        found.on("pageerror", lambda error: found.said.append(str(error)))  # type: ignore[attr-defined]
        found.on("request", lambda request: found.asked.append(request.url))  # type: ignore[attr-defined]
        found.goto(path.as_uri())
        return found

    yield visit
    for context in contexts:
        context.close()


def size(width: int) -> dict[str, Any]:
    return {"viewport": {"width": width, "height": 800}}


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_says_nothing_asks_for_nothing_and_fits(
    width: int, scheme: str, report: Path, opened: Callable[..., Any]
) -> None:
    found = opened(report, **size(width), color_scheme=scheme)
    assert found.said == []
    assert [url for url in found.asked if not url.startswith("data:")] == [report.as_uri()]
    assert found.title() == "posbench report"  # what is hostile in it has not run
    # Tables scroll by themselves; the page does not.
    assert found.evaluate("document.documentElement.scrollWidth") <= width
    broken = found.evaluate("[...document.images].filter(one => !one.naturalWidth).length")
    assert broken == 0
    assert found.locator(".photo").count() == 3 * (1 + 3) + 3 * (1 + 2)
    light, dark = "rgb(255, 255, 255)", "rgb(13, 17, 23)"
    ground = found.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == (dark if scheme == "dark" else light)


def test_the_first_screen_answers_the_question(report: Path, opened: Callable[..., Any]) -> None:
    found = opened(report, **size(1280))
    first = found.locator(".answer").first
    assert "a, imagenet:net@1: circular hides position best: mean SPC 0.14" in first.inner_text()
    assert first.bounding_box()["y"] < 400


def test_headings_sort_as_numbers_there_and_back(report: Path, opened: Callable[..., Any]) -> None:
    found = opened(report, **size(1280))
    board = found.locator("h2", has_text="Leaderboard").locator("xpath=following::table[1]")

    def column(number: int) -> list[str]:
        return board.locator("tbody").first.locator(f"tr td:nth-child({number})").all_inner_texts()

    assert column(2) == ["zero", "reflect", "circular"]
    heading = board.locator("thead th").nth(2)
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert column(2) == ["circular", "reflect", "zero"]
    heading.locator("button").press("Enter")  # by keyboard too
    assert heading.get_attribute("aria-sort") == "descending"
    assert column(2) == ["zero", "reflect", "circular"]
    # What failed has no score and stays last, whichever way.
    other = board.locator("thead th").nth(3).locator("button")
    for _ in range(2):
        other.click()
        assert column(2)[-1] == "reflect"


def test_words_filter_lines(report: Path, opened: Callable[..., Any]) -> None:
    found = opened(report, **size(1280))
    lines = found.locator("table.sortable tbody tr")
    every = lines.count()
    found.get_by_label("Filter lines").fill("circular g")
    shown = found.locator("table.sortable tbody tr:visible")
    assert 0 < shown.count() < every
    assert all("circular" in text and "g" in text.lower() for text in shown.all_inner_texts())
    found.get_by_label("Filter lines").fill("")
    assert found.locator("table.sortable tbody tr:visible").count() == every


def test_without_scripts_it_is_readable(report: Path, opened: Callable[..., Any]) -> None:
    found = opened(report, **size(390), java_script_enabled=False)
    assert found.locator("#filter").is_hidden()
    assert "circular hides position best" in found.locator(".answer").first.inner_text()
    assert found.locator("thead button").count() == 0
    assert found.locator("table.sortable tbody tr").first.is_visible()


def test_it_prints_all_there_is(report: Path, opened: Callable[..., Any]) -> None:
    found = opened(report, **size(1280))
    assert found.pdf().startswith(b"%PDF")
    found.emulate_media(media="print")
    assert found.locator("#filter").is_hidden()
    # On paper nothing scrolls: what a screen would hide by scrolling is in the open.
    assert found.evaluate("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"


def test_the_page_of_a_run_is_sound_too(
    posbench: Callable[..., Ran], tiny: str, opened: Callable[..., Any], tmp_path: Path
) -> None:
    few = ("--train-count", "12", "--test-count", "6", "--image-size", "64", "--images", "leaves", "--taps", "all,each")
    ran = posbench("run", "--backbones", f"{tiny},none", "--paddings", "zero,circular", *few, "--controls", "null")
    assert ran.code == 0, ran.err
    assert posbench("report", "--out", str(tmp_path / "r.html")).code == 0
    for width in (390, 1280):
        found = opened(tmp_path / "r.html", **size(width))
        assert found.said == []
        assert [url for url in found.asked if not url.startswith("data:")] == [(tmp_path / "r.html").as_uri()]
        assert found.evaluate("document.documentElement.scrollWidth") <= width
        assert found.evaluate("[...document.images].filter(one => !one.naturalWidth).length") == 0
