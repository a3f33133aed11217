"""A store as one HTML page that needs nothing beside itself: what padding hides, and all that this rests on."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from posbench.bench.records import JobRun
from posbench.bench.taps import ALL
from posbench.core.errors import MissingError, UsageError
from posbench.core.version import __version__
from posbench.plugin.components import Metric, Target
from posbench.report import boards, labels, markup
from posbench.report.commands import commands
from posbench.report.content_error import content_errors
from posbench.report.galleries import Draw, drawn_by, galleries
from posbench.report.grouping import whole
from posbench.report.labels import CONTROL
from posbench.report.literature import Comparison, compare, headings
from posbench.report.pictures import svg_uri
from posbench.report.published import every_table
from posbench.report.ranking import Answer, answers, difference_text, mean_text
from posbench.report.reaches import Reach, reaches
from posbench.report.rows import Row, job_row, rows
from posbench.report.taps import TapScores, svg, tap_scores
from posbench.store.store import Store

_TEMPLATES = Path(__file__).parent / "templates"


#: So many tables of a section, and lines of a long one, stand open; beyond, all but the first are folded.
FEW, MANY = 3, 40


@dataclass(frozen=True)
class Missing:
    """Cells of one job that have no score for one reason.

    Attributes:
        setting: what the job was run with, where not all were run with the same.
        what: the targets or metrics, those of controls and of single taps apart.
    """

    status: str
    network: str
    padding: str
    images: str
    setting: str
    what: str
    reason: str


@dataclass(frozen=True)
class Chart:
    """A picture of scores over taps, and what it shows in words."""

    title: str
    setting: str
    picture: str
    said: str


def content(store: Path, metrics: Sequence[Metric], targets: Iterable[Target], tell: Callable[[str], None]) -> bytes:
    """The page, as a file holds it.

    Args:
        metrics: as for `page`. targets: those that can be drawn.
        tell: hears of targets that cannot.

    Raises:
        UsageError, MissingError: as `page`.
    """
    return page(store, metrics, drawn_by(targets, tell)).encode("utf-8", "backslashreplace")


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
        raise MissingError("a report needs jinja2: pip install 'position-bench[report]'") from error
    with Store(store, must_exist=True) as opened:
        records, readings, runs = opened.records(), opened.readings(), opened.runs()
        examples = opened.examples()
    if not records and not readings:
        raise UsageError(f"{str(store)!r} holds nothing to report: `posbench run` computes some")
    table = rows(records)
    of_jobs = [job_row(one) for one in readings]
    # Single taps are in the chart and the leaderboards.
    together = whole(table)
    script, style = ((_TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.js", "report.css"))
    contents = content_errors(records, together, examples, draw)
    # Each photograph stands in the page once, however many maps are laid over it.
    photographs = dict.fromkeys(column.uri for one in contents for column in one.columns)
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
        few=FEW,
        many=MANY,
        answers=answers(together),
        settings_of=_settings_of,
        mean_text=mean_text,
        difference_text=difference_text,
        board=markup.board,
        boards=_leaderboards(table, metrics),
        controls=[board for metric in metrics for board in _having(boards.control_boards(table, metric.name))],
        verdicts=boards.verdict_boards(together),
        job_boards=boards.job_boards(of_jobs),
        galleries=galleries(records, together, draw),
        contents=contents,
        photographs={uri: number for number, uri in enumerate(photographs)},
        tap_charts=[_chart(one) for one in tap_scores(table)],
        reaches=reaches(table),
        comparisons=_comparisons(table),
        headings=headings,
        missing=_missing([row for row in (*table, *of_jobs) if row["status"] != "ok"]),
        cells=len(table),
        commands=commands(records, readings),
        provenance=[json.dumps(one, indent=1, sort_keys=True, ensure_ascii=False) for one in _made_with(runs)],
        identities=_hashes([one.outcome.identity for one in records] + [dict(one.identity) for one in readings]),
    )


def _settings_of(lines: Sequence[Answer] | Sequence[Reach] | Sequence[Missing]) -> list[str]:
    """The heading of the column that tells settings apart, if they need telling apart."""
    return ["measured with"] if any(one.setting for one in lines) else []


def _chart(found: TapScores) -> Chart:
    paddings = dict.fromkeys(padding for of in found.scores.values() for padding in of)
    said = f"{', '.join(found.scores)} under {', '.join(paddings)}"
    return Chart(found.title, found.setting, svg_uri(svg(found)), said)


def _leaderboards(table: Sequence[Row], metrics: Sequence[Metric]) -> list[boards.Board]:
    """A board a metric and setting, as far as there are scores."""
    found = []
    for metric in metrics:
        found += _having(boards.boards(table, metric.name, higher_is_better=metric.higher_is_better))
    return found


def _having(found: Iterable[boards.Board]) -> list[boards.Board]:
    """Boards on which there is any score."""
    return [
        board
        for board in found
        if any(entry.value is not None for lines in board.sections.values() for _, of in lines for entry in of)
    ]


def _comparisons(table: Sequence[Row]) -> list[Comparison]:
    """What papers print beside what was measured, for rows that a paper has a number of; the control's once."""
    rows = [row for row in table if not row["control"]]
    answering = [(one, [row for row in rows if one.find(row)]) for one in every_table()]
    found, shown = [], set()
    for published, matching in sorted(answering, key=lambda one: all(row["padding"] == CONTROL for row in one[1])):
        of_networks = any(row["padding"] != CONTROL for row in matching)
        left = [row for row in matching if of_networks or row["cell_id"] not in shown]
        shown |= {row["cell_id"] for row in left}
        if left:
            found.append(compare(left, published))
    return found


def _missing(rows: Sequence[Row]) -> list[Missing]:
    """Cells and readings without a score, a line a job and reason."""
    several = len({row["readout"] for row in rows if "readout" in row}) > 1
    groups: dict[tuple[Any, ...], dict[str, dict[str, None]]] = {}
    for row in rows:
        crops = f"{row['n_train']} training and {row['n_test']} test crops of {row['image_size']} px"
        network = labels.network_name({"seed": None} | row)
        job = (row["status"], network, row["padding"], labels.images_name(row), row["reason"], crops, row["precision"])
        taps = f"taps {row['taps']}" if row.get("taps", ALL) != ALL else ""
        kind = ", ".join(filter(None, (row.get("control"), row.get("readout") if several else "", taps)))
        groups.setdefault(job, {}).setdefault(kind, {})[row.get("target") or row["metric"]] = None
    found = []
    for (job, kinds), setting in zip(groups.items(), labels.apart([job[5:] for job in groups]), strict=True):
        what = [f"{kind}: {', '.join(of)}" if kind else ", ".join(of) for kind, of in kinds.items()]
        status, network, padding, images, reason = job[:5]
        found.append(Missing(status, network, padding, images, setting, "; ".join(what), reason))
    return found


def _made_with(runs: Sequence[JobRun]) -> list[Mapping[str, Any]]:
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
