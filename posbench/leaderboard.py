"""Results as rows of the published table, and as boards: a metric's scores, padding against network, the best first."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posbench.errors import UsageError
from posbench.store import Record

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]

_SETTINGS = ("taps", "seed", "image_size", "precision", "score_at", "n_train", "n_test")
_FIRST = (
    *("backbone", "weights", "padding", "images", "test_images", "target", "readout"),
    *_SETTINGS,
    *("n_test_photos", "status", "reason"),
)
#: The metrics whose columns every table has, in this order; others follow by name.
_METRICS = ("spc", "mae", "r2")
#: `reach`, `control`, `control_of` and `verdict` are reserved: empty in this version.
_LAST = (
    *("degenerate", "reach", "control", "control_of", "verdict"),
    *("seconds", "cell_id", "posbench_version", "created"),
)
_FORMULA = ("=", "+", "-", "@", "\t", "\n")


def row(record: Record) -> Row:
    """One cell as a row; a metric that was not computed has no key, nor has one that is called like a column."""
    identity, outcome = record.outcome.identity, record.outcome
    scores: Row = {}
    # Should a metric be there in several versions, the newest is the one that a reader wants.
    for score in sorted(outcome.scores, key=lambda score: _natural(score.version)):
        scores |= dict(zip(_spread([score.metric]), (score.value, score.lo, score.hi), strict=True))
    return scores | {
        "backbone": identity["backbone"]["name"],
        "weights": identity["weights"]["label"],
        "padding": identity["padding"]["name"],
        "images": identity["images"]["label"],
        "test_images": identity["test_images"]["label"],
        "target": identity["target"]["name"],
        "readout": identity["readout"]["name"],
        **{key: identity[key] for key in _SETTINGS},
        "n_test_photos": outcome.n_test_photos,
        "status": outcome.status,
        "reason": outcome.reason,
        "degenerate": outcome.degenerate,
        **dict.fromkeys(("reach", "control", "control_of", "verdict")),
        "seconds": outcome.seconds,
        "cell_id": record.cell_id,
        "posbench_version": record.posbench_version,
        "created": record.created,
    }


def _natural(version: str) -> list[tuple[int, str]]:
    """Sorts versions as people read them: 9 before 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", version)]


def columns(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The columns of a table of these rows: the same for every table but for metrics beyond posbench's own."""
    known = {*_FIRST, *_LAST, *_spread(_METRICS)}
    extra = sorted({key for row in rows for key in row if key not in known and f"{key}_lo" in row})
    return [*_FIRST, *_spread(_METRICS), *_spread(extra), *_LAST]


def _spread(metrics: Iterable[str]) -> list[str]:
    return [name for metric in metrics for name in (metric, f"{metric}_lo", f"{metric}_hi")]


def frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The rows as a data frame, one row a cell."""
    import pandas as pd

    return pd.DataFrame(rows, columns=columns(rows))


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as CSV: floats in full, and an apostrophe before text that a spreadsheet would run as a formula."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns(rows), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _harmless(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def _harmless(value: object) -> object:
    if not isinstance(value, str):
        return value
    # A lone carriage return would end the row for some readers.
    text = value.replace("\r\n", "\n").replace("\r", "\n")
    return "'" + text if text.startswith(_FORMULA) else text


def to_json(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a JSON array of objects with the columns of the CSV."""
    names = columns(rows)
    return json.dumps([{name: row.get(name) for name in names} for row in rows], indent=1) + "\n"


@dataclass(frozen=True)
class Entry:
    """One score on a board.

    Attributes:
        value: None where there is no score.
        half: half the width of its 95 % interval.
        best: no other score of this target and column is better.
        status: of the cell, or empty where nothing was asked for.
        note: the number, from 1, of the note that says why there is no score, or what to know about it.
    """

    value: float | None = None
    half: float | None = None
    best: bool = False
    status: str = ""
    note: int | None = None


@dataclass(frozen=True)
class Board:
    """The scores of one setting: for each target a section, whose lines are sorted with the best first.

    Attributes:
        headings: of the columns of scores.
        sections: by target, its lines, each a label and one entry a column.
        notes: why cells have no score.
    """

    title: str
    caption: str
    by: str
    headings: list[str]
    sections: dict[str, list[tuple[str, list[Entry]]]]
    notes: list[str]


_SETTING = ("images", "test_images", "readout", "image_size", "precision", "score_at", "n_train", "n_test")
BY = ("padding", "backbone")
CONTROL = "none"


def boards(rows: Sequence[Row], metric: str, *, higher_is_better: bool, by: str = "padding") -> list[Board]:
    """The boards of these rows, one a setting, in the order in which the settings first occur.

    Args:
        by: `padding` for a line a padding and a column a network, or `backbone` the other way round.
    """
    # The control has no border and one tap: it stands beside every padding and every choice of taps.
    controls = [row for row in rows if row["padding"] == CONTROL]
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row["padding"] != CONTROL:
            groups.setdefault((row["taps"], *_setting(row)), []).append(row)
    beside = {key[1:] for key in groups}
    for key, group in groups.items():
        group += [row for row in controls if _setting(row) == key[1:]]
    for row in controls:
        if _setting(row) not in beside:
            groups.setdefault((row["taps"], *_setting(row)), []).append(row)
    return [_board(group, metric, 1 if higher_is_better else -1, by) for group in groups.values()]


def _setting(row: Row) -> tuple[Any, ...]:
    """What must agree, beside the taps, for two scores to stand on one board."""
    return tuple(row[key] for key in _SETTING)


def _board(rows: list[Row], metric: str, sign: int, by: str) -> Board:
    networks = sorted(dict.fromkeys(map(_network, rows)), key=lambda network: network.startswith(CONTROL + "\n"))
    # The control has no border: its one score is what every padding is held against.
    paddings = [p for p in dict.fromkeys(row["padding"] for row in rows) if p != CONTROL] or [CONTROL]
    reasons = list(dict.fromkeys(row["reason"] for row in rows if row["reason"]))
    lines, headings = (paddings, networks) if by == "padding" else (networks, paddings)
    sections, superseded = {}, 0
    for target in dict.fromkeys(row["target"] for row in rows):
        # One name may stand for several versions of a component: the newest result is the one that a reader wants.
        found = sorted((row for row in rows if row["target"] == target), key=lambda row: str(row["created"]))
        at = {(_network(row), row["padding"]): row for row in found}
        superseded += len(found) - len(at)

        def entry(line: str, heading: str, at: Mapping[tuple[str, str], Row] = at) -> Entry:
            network, padding = (heading, line) if by == "padding" else (line, heading)
            return _entry(at.get((network, padding)) or at.get((network, CONTROL)), metric, reasons)

        grid = [(line, [entry(line, heading) for heading in headings]) for line in lines]
        sections[target] = _mark_best(_best_first(grid, sign), sign)
    notes = _notes(rows, reasons)
    if superseded:
        notes.append(f"{superseded} older results, of other versions of these components, are in the CSV alone")
    return Board(_title(rows[0], metric), _caption(rows, sign), by, headings, sections, notes)


def _network(row: Row) -> str:
    """A network's heading: its name, and below it its weights, an untrained one marked."""
    weights = f"untrained, {row['weights']}" if row["weights"].startswith("random:") else row["weights"]
    seeded = "" if row["seed"] is None else f"\nreadout seed {row['seed']}"
    return f"{row['backbone']}\n{weights}{seeded}"


def _entry(row: Row | None, metric: str, reasons: Sequence[str]) -> Entry:
    if row is None:
        return Entry()
    note = reasons.index(row["reason"]) + 1 if row["reason"] else None
    lo, hi = row.get(f"{metric}_lo"), row.get(f"{metric}_hi")
    return Entry(row.get(metric), None if lo is None or hi is None else (hi - lo) / 2, status=row["status"], note=note)


Line = tuple[str, list[Entry]]


def _best_first(grid: list[Line], sign: int) -> list[Line]:
    """Lines by their mean over the columns in which all that have scores have one, so that no gap moves a line."""
    scored = [entries for _, entries in grid if any(entry.value is not None for entry in entries)]
    every = range(len(grid[0][1]))
    shared = [i for i in every if all(entries[i].value is not None for entries in scored)] or every

    def rank(line: Line) -> float:
        values = [sign * entry.value for i in shared if (entry := line[1][i]).value is not None]
        return sum(values) / len(values) if values else float("-inf")

    return sorted(grid, key=rank, reverse=True)


def _mark_best(grid: list[Line], sign: int) -> list[Line]:
    """The same lines with the best entry of each column marked; a column that never changes has none."""
    columns = list(zip(*(entries for _, entries in grid), strict=True))
    values = [{sign * entry.value for entry in column if entry.value is not None} for column in columns]
    best = [max(column) if len(column) > 1 else None for column in values]
    return [
        (
            label,
            [
                replace(entry, best=entry.value is not None and sign * entry.value == top)
                for entry, top in zip(entries, best, strict=True)
            ],
        )
        for label, entries in grid
    ]


def _title(row: Row, metric: str) -> str:
    images = (
        row["images"] if row["images"] == row["test_images"] else f"{row['images']}, tested on {row['test_images']}"
    )
    return f"{metric} on {images}"


def _caption(rows: Sequence[Row], sign: int) -> str:
    first = rows[0]
    photographs = max((row["n_test_photos"] or 0 for row in rows), default=0)
    independent = "images" if photographs == first["n_test"] else "photographs"
    interval = {0: "", 1: "no interval: one photograph; "}.get(
        photographs, f"±: 95 % interval over {photographs} test {independent}; "
    )
    return (
        f"{'higher' if sign > 0 else 'lower'} is better; {interval}"
        f"{first['n_train']} training and {first['n_test']} test crops of {first['image_size']} px; "
        f"readout {first['readout']}, taps {first['taps']}, {first['precision']}"
        + ("" if first["score_at"] == "grid" else f", scored at {first['score_at']} size")
    )


def _notes(rows: Sequence[Row], reasons: Sequence[str]) -> list[str]:
    """For each reason or remark, the networks and paddings that it is about."""
    struck: dict[str, dict[str, None]] = {reason: {} for reason in reasons}
    for row in rows:
        if row["reason"]:
            status = "" if row["status"] == "ok" else f" {row['status']}"
            struck[row["reason"]][f"{row['backbone']} × {row['padding']}{status}"] = None
    return [f"[{i}] {', '.join(where)}: {reason}" for i, (reason, where) in enumerate(struck.items(), 1)]


def entry_text(entry: Entry) -> str:
    """An entry as text: `0.62 ±0.11`, or why there is none."""
    note = f" [{entry.note}]" if entry.note else ""
    if entry.value is None:
        return entry.status + note if note else "–"
    return number_text(entry.value, entry.half, digits=2) + note


def number_text(value: float, half: float | None, *, digits: int) -> str:
    """A score with half the width of its interval, if it has one: `0.62 ±0.11`."""
    # Adding zero turns −0 into 0.
    return f"{round(value, digits) + 0:.{digits}f}" + (f" ±{half:.{digits}f}" if half is not None else "")


def to_markdown(tables: Iterable[Board]) -> str:
    """Boards as Markdown, the best of each column in bold."""

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", "<br>") for cell in cells) + " |"

    text = []
    for board in tables:
        text += [f"**{board.title}**", "", line(["target", board.by, *board.headings])]
        text.append(line(["---", "---", *("---:" for _ in board.headings)]))
        for target, lines in board.sections.items():
            for label, entries in lines:
                shown = [f"**{entry_text(entry)}**" if entry.best else entry_text(entry) for entry in entries]
                text.append(line([target, label, *shown]))
        text += ["", board.caption, *(f"{note}" for note in board.notes), ""]
    return "\n".join(text)


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is either as before or whole: a temporary one beside it, then a rename.

    A link is followed, and what is no regular file, such as a pipe, is written to as it is.

    Raises:
        UsageError: if that fails; the file is then as it was.
    """
    try:
        path = path.resolve()
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8", newline="")
            return
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            umask = os.umask(0)
            os.umask(umask)
            Path(name).chmod(0o666 & ~umask)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UsageError(
            f"{str(path)!r} cannot be written ({error.strerror}): check the folder and the disk"
        ) from error
