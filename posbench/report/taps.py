"""Scores of single taps, from the first to the last: where in a network position is encoded."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posbench.bench.records import Score
from posbench.bench.row import Row
from posbench.core.errors import MissingError
from posbench.core.text import printable
from posbench.report.labels import board_title, groups, network_label, network_name, setting_text

METRIC = "spc"
#: Panels in one line of a chart.
_WIDE = 3
_MARKERS = "osv^D<>pXP*"


@dataclass(frozen=True)
class TapScores:
    """The SPC of every tap of a network that was read by itself.

    Attributes:
        scores: by target, padding and number of the tap.
    """

    title: str
    setting: str
    scores: Mapping[str, Mapping[str, Mapping[int, Score]]]

    @property
    def paddings(self) -> list[str]:
        return list(dict.fromkeys(padding for of_target in self.scores.values() for padding in of_target))


def tap_scores(rows: Sequence[Row]) -> list[TapScores]:
    """Return the scores of each network and setting that has at least two single taps.

    Of several versions of a cell, the newest counts; controls are left out.
    """
    single = [row for row in rows if row.taps.isdecimal() and METRIC in row.scores]
    charts = []
    for group in groups(single, network_label):
        if len({row.taps for row in group}) < 2:
            continue
        scores: dict[str, dict[str, dict[int, Score]]] = {}
        for row in group:
            of_padding = scores.setdefault(row.target, {}).setdefault(row.padding, {})
            of_padding[int(row.taps)] = row.scores[METRIC]
        first = group[0]
        title = f"{network_name(first)}: {board_title(first, METRIC)}"
        charts.append(TapScores(title, setting_text(first, taps="by themselves"), scores))
    return charts


def svg(chart: TapScores) -> str:
    """Return a chart as SVG, with a panel a target and a line a padding; equal scores make equal text.

    Raises:
        MissingError: without matplotlib.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingError("charts need matplotlib: pip install 'position-bench[report]'") from error
    wide = min(_WIDE, len(chart.scores))
    high = -(-len(chart.scores) // wide)
    lines: dict[str, Any] = {}
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "posbench", "axes.unicode_minus": False}):
        figure = Figure(figsize=(1 + 3.2 * wide, 0.6 + 2.6 * high), layout="constrained")
        FigureCanvasSVG(figure)
        grid = figure.subplots(high, wide, squeeze=False, sharey=True).ravel()
        for axes, (target, of_target) in zip(grid, chart.scores.items(), strict=False):
            _draw_panel(axes, target, of_target, chart.paddings, lines)
        for axes in grid[len(chart.scores) :]:
            axes.remove()
        legend = figure.legend(
            list(lines.values()), list(map(printable, lines)), loc="outside lower center", ncols=4, frameon=False
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
        picture = io.StringIO()
        figure.savefig(picture, format="svg", metadata={"Date": None, "Creator": None})
    return picture.getvalue()


def _draw_panel(
    axes: Any,
    target: str,
    of_target: Mapping[str, Mapping[int, Score]],
    paddings: Sequence[str],
    lines: dict[str, Any],
) -> None:
    """Draw the scores of one target, and add the line of each padding to `lines` for the legend."""
    for padding, scores in of_target.items():
        number, taps = paddings.index(padding), sorted(scores)
        below, above = zip(*(_whiskers(scores[tap]) for tap in taps), strict=True)
        style: dict[str, Any] = {"color": f"C{number % 10}", "marker": _MARKERS[number % len(_MARKERS)]}
        values = [scores[tap].value for tap in taps]
        lines[padding] = axes.errorbar(taps, values, (below, above), capsize=2, ms=4, lw=1.2, **style)
    axes.set_title(printable(target), parse_math=False, fontsize=10)
    axes.set_xticks(sorted({tap for scores in of_target.values() for tap in scores}))
    axes.axhline(0, color="#888888", linewidth=0.6)
    axes.set_xlabel("tap")
    axes.set_ylabel("SPC")


def _whiskers(score: Score) -> tuple[float, float]:
    """Return the distances from a score down and up to the bounds of its interval; 0 without one."""
    return (
        0.0 if score.lo is None else score.value - score.lo,
        0.0 if score.hi is None else score.hi - score.value,
    )
