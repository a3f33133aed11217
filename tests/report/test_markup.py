"""Boards as HTML, worked out by hand."""

from posbench.report import markup
from posbench.report.boards import Board, Entry


def test_a_board_is_a_table_that_escapes_what_it_says() -> None:
    entries = [Entry(0.5, 0.1, best=True, status="ok"), Entry(status="failed", note=1)]
    board = Board("<t>", "c & d", "target", "padding", ["a\nb", "c"], {"H": [("zero", entries)]}, ["[1] <i>"])
    assert markup.board(board) == (
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


def test_remarks_are_escaped() -> None:
    assert markup.remarks(["a < b"]) == "<p>a &lt; b</p>"
