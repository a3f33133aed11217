"""The report in a browser, Chromium: loading, sorting, filtering, folding and printing at several widths.

`apt-get install chromium` installs the browser on Debian.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from posbench.bench.records import Example, Outcome, Score
from posbench.report.html import page as report_page
from posbench.store.store import Store
from tests import factories
from tests.conftest import Ran
from tests.rows import CONTROLS

pytestmark = pytest.mark.long
#: Chromium's sandbox does not work as root; the other flags turn off first-run dialogs and background traffic.
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
#: JavaScript that returns the bounding boxes of elements.
BOXES = "all => all.map(element => element.getBoundingClientRect().toJSON())"
HOSTILE = "<img src=http://example.org/x onerror=document.title='run'><script>document.title='run'</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert executable, "these tests need Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()


def scored(cell: Any) -> Any:
    """Return an outcome with an SPC by padding and target, maps and examples; one fails, with markup as its reason."""
    padding = cell.job.padding.name if cell.job.padding else "none"
    value = {"zero": 0.9, "circular": 0.125, "reflect": 0.25, "none": 0.0}[padding] + 0.05 * (cell.target.name == "G")
    if cell.job.backbone.name == "b" and padding == "reflect":
        return Outcome(cell.identity(), "failed", HOSTILE)
    rng = np.random.default_rng(0)
    scores = [Score("spc", "1", value, value - 0.1, value + 0.1, {f"{i}@1": value + i / 500 for i in range(3)})]
    thumbnail = rng.integers(0, 256, 112 * 112 * 3, np.uint8).tobytes()
    drawn = rng.normal(size=(28, 28))
    examples = [Example("a@1", thumbnail, drawn.astype("<f2").tobytes())]
    more = {"scores": scores, "reach": 20.0 + value} if cell.target.name != "HS" else {"scores": scores}
    return factories.scored(cell, mean_map=drawn.astype("<f4").tobytes(), examples=examples, **more)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the report of two networks, three paddings, four targets, all taps and two single ones; return its path."""
    folder = tmp_path_factory.mktemp("report")
    plan = factories.plan(
        networks=[*((factories.backbone(name), [factories.TRAINED]) for name in ("a", "b")), factories.control()],
        paddings=[factories.padding(name) for name in ("zero", "circular", "reflect")],
        targets=[factories.target(name) for name in ("H", "V", "G", "HS")],
        taps=["all", "1", "2"],
    )
    with Store(folder / "a.db") as store:
        for job, cells in plan.jobs():
            store.save(job, cells, [scored(cell) for cell in cells], {"machine": HOSTILE})
    text = report_page(
        folder / "a.db", [factories.metric("spc")], CONTROLS, lambda identity, side: np.eye(side, dtype=np.float32)
    )
    (folder / "report.html").write_text(text, encoding="utf-8")
    return folder / "report.html"


@pytest.fixture
def opened(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open a file as a page that records its console `log` and the `urls` it requests: opened(path, **options)."""
    contexts = []

    def open_page(path: Path, **options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.log, page.urls = [], []  # type: ignore[attr-defined]
        page.on("console", lambda message: page.log.append(message.text))  # type: ignore[attr-defined]
        page.on("pageerror", lambda error: page.log.append(str(error)))  # type: ignore[attr-defined]
        page.on("request", lambda request: page.urls.append(request.url))  # type: ignore[attr-defined]
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()


def size(width: int) -> dict[str, Any]:
    return {"viewport": {"width": width, "height": 800}}


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_says_nothing_asks_for_nothing_and_fits(
    width: int, scheme: str, report: Path, opened: Callable[..., Any]
) -> None:
    page = opened(report, **size(width), color_scheme=scheme)
    assert page.log == []
    assert [url for url in page.urls if not url.startswith("data:")] == [report.as_uri()]
    assert page.title() == "posbench report"  # the script in the failure's reason has not run
    # Tables scroll by themselves; the page does not.
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    broken = page.evaluate("[...document.images].filter(image => !image.naturalWidth).length")
    assert broken == 0
    # Single taps have no pictures: a has three paddings, b two that did not fail, and `none` is one more job.
    assert page.locator(".photo").count() == (1 + 3) + (1 + 2) + (1 + 1)
    light, dark = "rgb(255, 255, 255)", "rgb(13, 17, 23)"
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == (dark if scheme == "dark" else light)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the report of four networks, two image sources and five paddings, of which one differs from the others."""
    folder = tmp_path_factory.mktemp("many")
    photos, leaves = factories.folder(), factories.folder("leaves", "ef" * 32)
    names = ("efficientnet_b0", "resnet50", "vgg16", "a_network_of_a_long_name.with_weights_in1k")
    plan = factories.plan(
        networks=[(factories.backbone(name), [factories.TRAINED]) for name in names],
        paddings=[
            factories.padding(name) for name in ("zero", "circular", "reflect", "a-long-name-of-a-padding", "mean")
        ],
        sources=[(photos, photos), (leaves, leaves)],
        targets=[factories.target("H")],
        n_train=256,
    )
    with Store(folder / "a.db") as store:
        for job, cells in plan.jobs():
            # By photograph, circular .2 .3 .2 .3 .2 and all others .8 .7 .8 .7 .8: the difference is -.6 or -.4, in the
            # mean -.52 with s = .110, so ±.136 by t = 2.78, and ±.21 for four paddings together.
            base, sign = (0.2, 1) if job.padding and job.padding.name == "circular" else (0.8, -1)
            by = {f"{i}@1": base + sign * 0.1 * (i % 2) for i in range(5)}
            score = Score("spc", "1", base, base - 0.1, base + 0.1, by)
            store.save(job, cells, [factories.scored(cell, scores=[score]) for cell in cells], {})
    text = report_page(folder / "a.db", [factories.metric("spc")], CONTROLS, lambda identity, side: None)
    (folder / "report.html").write_text(text, encoding="utf-8")
    return folder / "report.html"


def test_the_first_screen_answers_the_question(many: Path, report: Path, opened: Callable[..., Any]) -> None:
    page = opened(many, **size(1280))
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    line = page.locator("#answers tbody tr", has_text="resnet50").filter(has_text="photos")
    box = line.bounding_box()
    assert box["y"] + box["height"] < 800
    cells = ["resnet50 imagenet:net@1", "photos", "circular", "0.24 ±0.07", "-0.52 (-0.66 to -0.38)", "–"]
    assert line.locator("td").all_inner_texts() == cells
    # The contents are on the first screen, too, and each answer links to its paddings, which are folded.
    assert page.locator("nav").bounding_box()["y"] < 800
    paddings = page.locator("#answer-5 tbody tr")
    assert not paddings.first.is_visible()
    line.locator("a").click()
    assert page.locator("details:has(#answer-6)").get_attribute("open") is not None
    assert page.locator("#answer-6 tbody tr").count() == 5
    page = opened(report, **size(390))
    assert "a imagenet:net@1" in page.locator("#answers tbody tr").first.inner_text()
    box = page.locator("#answers tbody tr").nth(1).bounding_box()
    assert box["y"] + box["height"] < 800
    assert box["x"] + box["width"] <= 390


def test_contents_lead_to_every_section(report: Path, opened: Callable[..., Any]) -> None:
    page = opened(report, **size(1280))
    names = page.locator("nav a").all_inner_texts()
    assert names == page.locator("h2").all_inner_texts()
    for link in page.locator("nav a").all():
        assert page.locator(link.get_attribute("href")).locator("h2").inner_text() == link.inner_text()
    # Four galleries and three boards: the first of many is open, all of few are.
    assert page.locator("#drawn > details").evaluate_all("all => all.map(details => details.open)") == [
        True,
        *3 * [False],
    ]
    assert page.locator("#leaderboard > details").evaluate_all("all => all.map(details => details.open)") == 3 * [True]


def test_what_failed_is_a_line_a_job(report: Path, opened: Callable[..., Any]) -> None:
    page = opened(report, **size(1280))
    [line] = page.locator("#missing tbody tr").all()
    what = "H, V, G, HS; taps 1: H, V, G, HS; taps 2: H, V, G, HS"
    assert line.locator("td").all_inner_texts() == [
        "failed",
        "b, imagenet:net@1",
        "reflect",
        "photos",
        what,
        HOSTILE,
    ]


def test_headings_sort_as_numbers_there_and_back(report: Path, opened: Callable[..., Any]) -> None:
    page = opened(report, **size(1280))
    board = page.locator("#leaderboard table").first

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
    # A failed job has no score and stays last in both orders.
    other = board.locator("thead th").nth(3).locator("button")
    for _ in range(2):
        other.click()
        assert column(2)[-1] == "reflect"


def test_whole_words_filter_lines(report: Path, opened: Callable[..., Any]) -> None:
    page = opened(report, **size(1280))
    lines = page.locator("#leaderboard tbody tr:visible")
    every = page.locator("main tbody tr:visible").count()
    search = page.get_by_label("Show lines of")
    assert search.bounding_box()["y"] < page.locator("main").bounding_box()["y"]

    def shown(words: str) -> list[tuple[str, str]]:
        search.fill(words)
        page.wait_for_timeout(50)
        return [tuple(line.split("\t")[:2]) for line in lines.all_inner_texts()]

    # H alone, not HS and not the h of photos; once in each board; folded boards open.
    assert shown("reflect H") == [("H", "reflect")] * 3
    assert shown("CIRCULAR hs") == [("HS", "circular")] * 3
    # Networks are columns, and images are in the title.
    assert len(shown("b")) == 3 * 4 * 3
    assert shown("b photos V zero") == [("V", "zero")] * 3
    assert page.locator("#drawn > details:visible").count() == 1
    assert page.locator("#reach h2").is_visible()
    # Empty tables are hidden, with their captions and headings.
    assert shown("reflect reach") == []
    assert page.locator("main").inner_text().strip() == ""
    assert page.get_by_text("Nothing matches").is_visible()
    shown("")
    assert page.get_by_text("Nothing matches").count() == 0
    assert page.locator("main tbody tr:visible").count() == every
    assert page.locator("#drawn > details").evaluate_all("all => all.map(details => details.open)") == [
        True,
        *3 * [False],
    ]


def test_without_scripts_it_is_readable(report: Path, opened: Callable[..., Any]) -> None:
    page = opened(report, **size(390), java_script_enabled=False)
    assert page.locator("#filter").is_hidden()
    assert "circular" in page.locator("#answers tbody tr").first.inner_text()
    assert page.locator("thead button").count() == 0
    assert page.locator("#leaderboard tbody tr").first.is_visible()
    last = page.locator("#drawn > details").last
    assert not last.locator("img").first.is_visible()
    last.locator("summary").click()
    assert last.locator("img").first.is_visible()


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the report of twenty networks: leaderboards and galleries of twenty columns."""
    folder = tmp_path_factory.mktemp("wide")
    plan = factories.plan(
        networks=[(factories.backbone(f"a_network_with_number_{i}"), [factories.TRAINED]) for i in range(20)]
    )
    drawn = np.eye(28, dtype="<f4").tobytes()
    with Store(folder / "a.db") as store:
        for job, cells in plan.jobs():
            store.save(job, cells, [factories.scored(cell, -0.25, mean_map=drawn) for cell in cells], {})
    text = report_page(folder / "a.db", [factories.metric("spc")], CONTROLS, lambda identity, side: None)
    (folder / "report.html").write_text(text, encoding="utf-8")
    return folder / "report.html"


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without"])
def test_it_prints_all_there_is(
    scripts: bool, report: Path, many: Path, wide: Path, opened: Callable[..., Any]
) -> None:
    for path in (report, many, wide):
        # The width of A4 within its margins; the dark scheme must not be printed.
        page = opened(path, **size(703), color_scheme="dark", java_script_enabled=scripts)
        assert page.pdf(format="A4").startswith(b"%PDF")
        page.emulate_media(media="print", color_scheme="dark")
        assert page.locator("#filter").is_hidden()
        assert page.locator("body").evaluate("body => getComputedStyle(body).color") == "rgb(27, 31, 36)"
        folded = page.locator("details:not([open])")
        assert folded.count() > 0
        assert all(box["height"] > 0 for box in folded.locator("> :not(summary)").evaluate_all(BOXES))
        assert all(box["right"] <= 703 for box in page.locator("table, img, pre").evaluate_all(BOXES))
        if scripts:  # for browsers that print folded sections folded
            page.evaluate("dispatchEvent(new Event('beforeprint'))")
            assert folded.count() == 0
            page.evaluate("dispatchEvent(new Event('afterprint'))")
            assert folded.count() > 0


def test_the_page_of_a_run_is_sound_too(
    posbench: Callable[..., Ran], tiny: str, opened: Callable[..., Any], tmp_path: Path
) -> None:
    few = ("--train-count", "12", "--test-count", "6", "--image-size", "64", "--images", "leaves", "--taps", "all,each")
    ran = posbench("run", "--backbones", f"{tiny},none", "--paddings", "zero,circular", *few, "--controls", "null")
    assert ran.code == 0, ran.err
    assert posbench("report", "--out", str(tmp_path / "r.html")).code == 0
    for width in (390, 1280):
        page = opened(tmp_path / "r.html", **size(width))
        assert page.log == []
        assert [url for url in page.urls if not url.startswith("data:")] == [(tmp_path / "r.html").as_uri()]
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("[...document.images].filter(image => !image.naturalWidth).length") == 0
