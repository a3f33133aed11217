"""Scores of single taps, from the first to the last: where in a network position is written."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posbench.core.errors import MissingError
from posbench.core.text import printable
from posbench.report import labels
from posbench.report.grouping import groups
from posbench.report.rows import Row

METRIC = "spc"
#: Panels to a line of a chart.
_WIDE = 3
_MARKERS = "osv^D<>pXP*"


@dataclass(frozen=True)
class TapScores:
    """The SPC of every tap of a network that was read by itself.

    Attributes:
        scores: by target and padding, the score of each tap: its value, and the ends of its 95 % interval or None.
    """

    title: str
    setting: str
    scores: Mapping[str, Mapping[str, Mapping[int, tuple[float, float | None, float | None]]]]


def tap_scores(rows: Sequence[Row]) -> list[TapScores]:
    """Of each network and setting that has scores of two single taps or more.

    Of several versions of a cell, the newest counts; controls are left out.
    """
    single = [row for row in rows if row["taps"].isdecimal() and row.get(METRIC) is not None]
    found = []
    for group in groups(single, labels.network_label):
        if len({row["taps"] for row in group}) < 2:
            continue
        scores: dict[str, dict[str, dict[int, tuple[float, float | None, float | None]]]] = {}
        for row in group:
            of_padding = scores.setdefault(row["target"], {}).setdefault(row["padding"], {})
            of_padding[int(row["taps"])] = (row[METRIC], row[f"{METRIC}_lo"], row[f"{METRIC}_hi"])
        first = group[0]
        network = labels.network_name(first)
        setting = labels.setting_text(first | {"taps": "by themselves"})
        found.append(TapScores(f"{network}: {labels.board_title(first, METRIC)}", setting, scores))
    return found


def svg(found: TapScores) -> str:
    """A chart with a panel a target and a line a padding, as an SVG picture; equal scores make equal pictures.

    Raises:
        MissingError: without matplotlib.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingError("charts need matplotlib: pip install 'position-bench[report]'") from error
    wide = min(_WIDE, len(found.scores))
    high = -(-len(found.scores) // wide)
    paddings = list(dict.fromkeys(padding for of in found.scores.values() for padding in of))
    lines: dict[str, Any] = {}
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "posbench", "axes.unicode_minus": False}):
        figure = Figure(figsize=(1 + 3.2 * wide, 0.6 + 2.6 * high), layout="constrained")
        FigureCanvasSVG(figure)
        grid = figure.subplots(high, wide, squeeze=False, sharey=True).ravel()
        for axes, (target, of_target) in zip(grid, found.scores.items(), strict=False):
            for padding, of in of_target.items():
                number, taps = paddings.index(padding), sorted(of)
                below, above = zip(*(_whiskers(*of[tap]) for tap in taps), strict=True)
                style: dict[str, Any] = {"color": f"C{number % 10}", "marker": _MARKERS[number % len(_MARKERS)]}
                values = [of[tap][0] for tap in taps]
                lines[padding] = axes.errorbar(taps, values, (below, above), capsize=2, ms=4, lw=1.2, **style)
            axes.set_title(printable(target), parse_math=False, fontsize=10)
            axes.set_xticks(sorted({tap for of in of_target.values() for tap in of}))
            axes.axhline(0, color="#888888", linewidth=0.6)
            axes.set_xlabel("tap")
            axes.set_ylabel("SPC")
        for axes in grid[len(found.scores) :]:
            axes.remove()
        legend = figure.legend(
            list(lines.values()), list(map(printable, lines)), loc="outside lower center", ncols=4, frameon=False
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
        picture = io.StringIO()
        figure.savefig(picture, format="svg", metadata={"Date": None, "Creator": None})
    return picture.getvalue()


def _whiskers(value: float, low: float | None, high: float | None) -> tuple[float, float]:
    """How far an interval reaches below and above its value; nowhere, where there is none."""
    return (0.0 if low is None else value - low, 0.0 if high is None else high - value)
