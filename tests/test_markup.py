"""Boards as HTML, worked out by hand."""

from posbench import markup
from posbench.boards import Board, Entry


def test_a_board_is_a_table_that_escapes_what_it_says() -> None:
    entries = [Entry(0.5, 0.1, best=True, status="ok"), Entry(status="failed", note=1)]
    board = Board("<t>", "c & d", "target", "padding", ["a\nb", "c"], {"H": [("zero", entries)]}, ["[1] <i>"])
    assert markup.board(board) == (
        "<table><caption>&lt;t&gt;</caption>\n"
        "<tr><th>target</th><th>padding</th><th>a<br>b</th><th>c</th></tr>\n"
        '<tr><th>H</th><th>zero</th><td style="text-align: right"><b>0.50 ±0.10</b></td>'
        '<td style="text-align: right">failed [1]</td></tr>\n'
        "</table>\n"
        "<p><small>c &amp; d<br>[1] &lt;i&gt;</small></p>"
    )


def test_remarks_are_escaped() -> None:
    assert markup.remarks(["a < b"]) == "<p>a &lt; b</p>"
