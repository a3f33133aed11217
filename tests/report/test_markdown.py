"""Tables in Markdown: their form, and that texts of others are escaped."""

from __future__ import annotations

from posbench.report import markdown
from posbench.report.boards import Board, Entry

LIVE = "![x](https://example.org/x.png) **a** _b_ `c` [d](e) \\"
EVIL = "<script>alert(1)</script>|<img src=x onerror=alert(1)> & more"


def test_a_board_as_a_table() -> None:
    entries = [Entry(0.5, 0.1, best=True), Entry(status="failed", note=1)]
    board = Board(
        "spc on photos", "a caption", "target", "padding", ["net\nrandom:0", "b"], {"H": [("zero", entries)]}, ["[1] x"]
    )
    assert markdown.of_boards([board]) == (
        "**spc on photos**\n"
        "\n"
        "| target | padding | net<br>random:0 | b |\n"
        "| --- | --- | ---: | ---: |\n"
        "| H | zero | **0.50 ±0.10** | failed \\[1\\] |\n"
        "\n"
        "a caption\n"
        "\\[1\\] x\n"
    )


def test_html_of_others_is_text() -> None:
    board = Board(EVIL, EVIL, EVIL, EVIL, [EVIL], {EVIL: [(EVIL, [Entry(text=EVIL)])]}, [EVIL])
    markdown_text = markdown.of_boards([board])
    assert "<" not in markdown_text
    assert ">" not in markdown_text
    assert markdown_text.count("&lt;script&gt;") == 9
    [heading, _, row] = [line for line in markdown_text.splitlines() if line.startswith("| ")]
    assert heading.replace("\\|", "").count("|") == row.replace("\\|", "").count("|") == 4


def test_markdown_of_others_is_text_and_ours_is_not() -> None:
    board = Board(LIVE, LIVE, LIVE, LIVE, [LIVE], {LIVE: [(LIVE, [Entry(text=LIVE, best=True)])]}, [LIVE])
    markdown_text = markdown.of_boards([board])
    escaped = r"\!\[x\](https://example.org/x.png) \*\*a\*\* \_b\_ \`c\` \[d\](e) \\"
    assert markdown_text.count(escaped) == markdown_text.count("example.org") == 9
    assert markdown_text.startswith(f"**{escaped}**\n")
    assert f"| {escaped} | **{escaped}** |" in markdown_text
