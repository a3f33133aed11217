"""The HTML report, one page that needs no other file, and boards as HTML tables for notebooks."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from html import escape
from pathlib import Path

from posbench.core.errors import MissingError
from posbench.core.version import __version__
from posbench.plugin.components import Metric, Target
from posbench.plugin.control import ControlCatalogue
from posbench.report import literature
from posbench.report.boards import Board, Entry, entry_text
from posbench.report.galleries import Draw, drawn_by
from posbench.report.ranking import difference_text, mean_text, rankings
from posbench.report.sections import SECTIONS, load, photograph_numbers, setting_headings

_TEMPLATES = Path(__file__).parent / "templates"
#: The number of tables of a section, and of lines of a table, up to which they are open; otherwise they are folded.
FEW, MANY = 3, 40


def content(
    store: Path,
    metrics: Sequence[Metric],
    targets: Iterable[Target],
    controls: ControlCatalogue,
    warn: Callable[[str], None],
) -> bytes:
    """Return the page as the content of a file.

    Args:
        metrics: as for `page`.
        targets: those that can be drawn beside predictions.
        controls: the installed controls.
        warn: called for targets that cannot be drawn.

    Raises:
        UsageError, MissingError: as `page`.
    """
    return page(store, metrics, controls, drawn_by(targets, warn)).encode("utf-8", "backslashreplace")


def page(store: Path, metrics: Sequence[Metric], controls: ControlCatalogue, draw: Draw) -> str:
    """Return the page about everything that a store holds.

    Args:
        metrics: those that get a leaderboard, if the store has them.
        controls: the installed controls.
        draw: draws the targets that are shown beside predictions.

    Raises:
        UsageError: if the store holds nothing.
        MissingError: without jinja2 or matplotlib.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        raise MissingError("a report needs jinja2: pip install 'position-bench[report]'") from error
    data = load(store, metrics, controls, draw)
    script, style = ((_TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.js", "report.css"))
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "board_table": board_table,
        "difference_text": difference_text,
        "few": FEW,
        "headings": literature.headings,
        "many": MANY,
        "mean_text": mean_text,
        "photograph_numbers": photograph_numbers,
        "setting_headings": setting_headings,
        "version": __version__,
    }
    return environment.get_template("report.html").render(
        allowed=f"'sha256-{base64.b64encode(sha256(script.encode()).digest()).decode()}'",
        script=script,
        style=style,
        rankings=rankings(data.together),
        sections=[(section, blocks) for section in SECTIONS if (blocks := section.blocks(data))],
    )


def board_table(board: Board) -> str:
    """Return a board as an HTML table, with the best of each column within its section in bold.

    Each section is a table body and each line names its section, so that the report's script can sort lines.
    """
    # The weights of the control are named like it: one of the two names is enough.
    columns = ["\n".join(dict.fromkeys(heading.split("\n"))) for heading in board.headings]
    headings = "".join(f'<th scope="col">{_text(heading)}</th>' for heading in (board.section, board.by, *columns))
    lines = [f"<caption>{_text(board.title)}</caption>", f"<thead><tr>{headings}</tr></thead>"]
    for section, section_lines in board.sections.items():
        lines.append("<tbody>")
        for label, entries in section_lines:
            names = f"<td>{_text(section)}</td><td>{_text(label)}</td>"
            lines.append(f"<tr>{names}{''.join(map(_cell, entries))}</tr>")
        lines.append("</tbody>")
    table = "\n".join(lines)
    below = "<br>".join(map(_text, [board.caption, *board.notes]))
    return f'<div class="scroll"><table class="sortable">{table}\n</table></div>\n<p><small>{below}</small></p>'


def paragraphs(texts: Iterable[str]) -> str:
    """Return texts as HTML paragraphs."""
    return "".join(f"<p>{_text(text)}</p>" for text in texts)


def _cell(entry: Entry) -> str:
    text = _text(entry_text(entry))
    if entry.text:
        return f"<td>{text}</td>"
    kind, value = "number best" if entry.best else "number", "" if entry.value is None else entry.value
    shown = f"<b>{text}</b>" if entry.best else text
    return f'<td class="{kind}" data-value="{value}" style="text-align: right">{shown}</td>'


def _text(text: str) -> str:
    return escape(text).replace("\n", "<br>")
