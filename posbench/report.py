"""A store as one HTML page that needs nothing beside itself: what padding hides, and all that this rests on."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from posbench import __version__, boards
from posbench.answers import answers, difference_text, mean_text
from posbench.comparison import Comparison, compare, headings
from posbench.components import Metric
from posbench.content_error import content_errors
from posbench.errors import MissingError, UsageError
from posbench.galleries import Draw, Picture, galleries
from posbench.leaderboard import Row, job_row, rows
from posbench.pictures import svg_uri
from posbench.published import every_table
from posbench.reproduction import commands
from posbench.store import Run, Store
from posbench.tap_scores import svg, tap_scores

_TEMPLATES = Path(__file__).parent / "templates"


def page(store: Path, metrics: Sequence[Metric], draw: Draw) -> str:
    """The page about everything that a store holds.

    Args:
        metrics: those that get a leaderboard, if the store has them.
        draw: gives the targets to show beside what was drawn.

    Raises:
        UsageError: if the store holds nothing.
        MissingError: without jinja2 or matplotlib.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        raise MissingError("a report needs jinja2: pip install 'posbench[report]'") from error
    with Store(store, must_exist=True) as opened:
        records, readings, runs = opened.records(), opened.readings(), opened.runs()
        examples = opened.examples()
    if not records and not readings:
        raise UsageError(f"{str(store)!r} holds nothing to report: `posbench run` computes some")
    table = rows(records)
    of_jobs = [job_row(one) for one in readings]
    script, style = ((_TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.js", "report.css"))
    contents = content_errors(records, table, examples, draw)
    # Each photograph stands in the page once, however many maps are laid over it.
    photographs = dict.fromkeys(one.uri for of in contents for one in of.photographs)
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(
        allowed=f"'sha256-{base64.b64encode(sha256(script.encode()).digest()).decode()}'",
        script=script,
        style=style,
        version=__version__,
        answers=answers(table),
        mean_text=mean_text,
        difference_text=difference_text,
        boards=_leaderboards(table, metrics),
        controls=[board for metric in metrics for board in _having(boards.control_boards(table, metric.name))],
        verdicts=boards.verdict_boards(table),
        job_boards=boards.job_boards(of_jobs),
        entry_text=boards.entry_text,
        galleries=galleries(records, table, draw),
        contents=contents,
        photographs={uri: number for number, uri in enumerate(photographs)},
        tap_charts=[Picture(svg_uri(svg(one)), one.title) for one in tap_scores(table)],
        reaches=boards.reaches(table),
        comparisons=_comparisons(table),
        headings=headings,
        not_ok=[row for row in (*table, *of_jobs) if row["status"] != "ok"],
        cells=len(table),
        commands=commands(records, readings),
        provenance=[json.dumps(one, indent=1, sort_keys=True, ensure_ascii=False) for one in _made_with(runs)],
        identities=_hashes([one.outcome.identity for one in records] + [dict(one.identity) for one in readings]),
    )


def _leaderboards(table: Sequence[Row], metrics: Sequence[Metric]) -> list[boards.Board]:
    present = [one for one in metrics if any(row.get(one.name) is not None for row in table)]
    return [
        board
        for metric in present
        for board in boards.boards(table, metric.name, higher_is_better=metric.higher_is_better)
    ]


def _having(found: Iterable[boards.Board]) -> list[boards.Board]:
    """Boards on which there is any score."""
    return [
        board
        for board in found
        if any(entry.value is not None for lines in board.sections.values() for _, of in lines for entry in of)
    ]


def _comparisons(table: Sequence[Row]) -> list[Comparison]:
    """What papers print beside what was measured, for rows that a paper has a number of."""
    rows = [row for row in table if not row["control"]]
    answering = [(one, [row for row in rows if one.find(row)]) for one in every_table()]
    return [compare(found, one) for one, found in answering if found]


def _made_with(runs: Sequence[Run]) -> list[Mapping[str, Any]]:
    """What runs were made with, each once, without their times."""
    found = {}
    for run in runs:
        known = {key: value for key, value in run.provenance.items() if key != "seconds"}
        found[json.dumps(known, sort_keys=True)] = known
    return list(found.values())


def _hashes(identities: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The weights and images that results are of, each with the SHA-256 of its content."""
    parts = [("weights", "weights"), ("images", "images"), ("images", "test_images")]
    return sorted(
        {
            (f"{kind} {one[role]['label']}", str(one[role].get("sha256") or "–"))
            for one in identities
            for kind, role in parts
        }
    )
