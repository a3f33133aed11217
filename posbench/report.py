"""A store as one HTML page that needs nothing beside itself: what padding hides, and all that this rests on."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posbench import __version__, boards
from posbench.answers import answers, difference_text, mean_text
from posbench.comparison import Comparison, compare, headings
from posbench.components import Metric
from posbench.errors import MissingError, UsageError
from posbench.leaderboard import Row, job_row, rows
from posbench.pictures import data_uri
from posbench.published import every_table
from posbench.store import Record, Run, Store

_TEMPLATES = Path(__file__).parent / "templates"
Floats = NDArray[np.float32]
#: Draws a target as it was asked for, [side, side], from a cell's identity; None if that version is not installed.
Draw = Callable[[Mapping[str, Any], int], Floats | None]


@dataclass(frozen=True)
class Picture:
    """A map on the page; without a map, `text` says why."""

    uri: str
    text: str


@dataclass(frozen=True)
class Gallery:
    """The mean predicted maps of one target and setting, a line a padding and a column a network, on one scale.

    Attributes:
        scale: the values of the darkest and the brightest colour.
        target: the pattern that was to be drawn, if it can be had.
    """

    title: str
    scale: str
    target: Picture | None
    networks: tuple[str, ...]
    lines: tuple[tuple[str, tuple[Picture | None, ...]], ...]


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
    if not records and not readings:
        raise UsageError(f"{str(store)!r} holds nothing to report: `posbench run` computes some")
    table = rows(records)
    of_jobs = [job_row(one) for one in readings]
    script, style = ((_TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.js", "report.css"))
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
        reaches=boards.reaches(table),
        comparisons=_comparisons(table),
        headings=headings,
        not_ok=[row for row in (*table, *of_jobs) if row["status"] != "ok"],
        cells=len(table),
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


def galleries(records: Sequence[Record], table: Sequence[Row], draw: Draw) -> list[Gallery]:
    """The maps of all cells that are no controls, by target and setting; of several versions of a cell, the newest.

    Args:
        table: the rows of the records, in their order.
    """
    groups: dict[tuple[Any, ...], list[tuple[Record, Row]]] = {}
    for record, row in zip(records, table, strict=True):
        if not row["control"]:
            groups.setdefault((row["target"], row["taps"], *boards.setting(row)), []).append((record, row))
    return [_gallery(group, draw) for group in groups.values() if any(record.outcome.mean_map for record, _ in group)]


def _gallery(group: Sequence[tuple[Record, Row]], draw: Draw) -> Gallery:
    drawn = {record.cell_id: values for record, _ in group if (values := _map(record)) is not None}
    first = group[0][1]
    side = next(iter(drawn.values())).shape[0]
    target = draw(group[0][0].outcome.identity, side)
    scaled = [*drawn.values(), *([] if target is None else [target])]
    low, high = float(min(one.min() for one in scaled)), float(max(one.max() for one in scaled))

    def picture(record: Record, row: Row) -> Picture:
        values = drawn.get(record.cell_id)
        if values is None:
            return Picture("", row["status"])
        score = row.get("spc")
        return Picture(data_uri(values, low, high), "" if score is None else f"SPC {score + 0:.2f}")

    newest = sorted(group, key=lambda one: str(one[1]["created"]))
    at = {(boards.network_label(row), row["padding"]): picture(record, row) for record, row in newest}
    networks, paddings = (tuple(dict.fromkeys(key[i] for key in at)) for i in (0, 1))
    title = f"{first['target']}: {boards.board_title(first, 'maps')}, readout {first['readout']}, taps {first['taps']}"
    return Gallery(
        title,
        f"{low + 0:.2f} (dark) to {high + 0:.2f} (bright)",
        None if target is None else Picture(data_uri(target, low, high), f"target {first['target']}"),
        tuple(network.replace("\n", ", ") for network in networks),
        tuple((padding, tuple(at.get((network, padding)) for network in networks)) for padding in paddings),
    )


def _map(record: Record) -> Floats | None:
    if not record.outcome.mean_map:
        return None
    flat = np.frombuffer(record.outcome.mean_map, "<f4").astype(np.float32)
    side = round(len(flat) ** 0.5)
    return flat.reshape(side, side)


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
