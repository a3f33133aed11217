"""Which padding hides position best, network by network, and by how much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posbench.boards import CONTROL, board_title, network_label, network_name, number_text, setting
from posbench.leaderboard import Row
from posbench.statistics import Difference, Mean, distinguishable, interval, paired

METRIC = "spc"
#: What others are held against, and what networks come with.
REFERENCE = "zero"


@dataclass(frozen=True)
class Standing:
    """One padding of a network.

    Attributes:
        mean: of the SPC over targets, photograph by photograph.
        less: the same less that under `REFERENCE`; None for that padding, or where there is none.
        level: it cannot be told from the one that hides position best, at 95 % for all paddings together.
    """

    padding: str
    mean: Mean
    less: Difference | None
    level: bool


@dataclass(frozen=True)
class Answer:
    """The paddings of one network in one setting, the one that hides position best first.

    Attributes:
        measured_on: what the scores are of.
        targets: those that every padding has a score of, over which means are taken.
    """

    network: str
    measured_on: str
    targets: tuple[str, ...]
    standings: tuple[Standing, ...]

    @property
    def text(self) -> str:
        """The answer in one or two sentences."""
        best, *others = self.standings
        said = f"{best.padding} hides position best: mean SPC {mean_text(best.mean)}"
        if best.less is not None:
            said += f", {difference_text(best.less)} against {REFERENCE} padding"
        level = [one.padding for one in others if one.level]
        return said + "." + (f" Not to be told from it: {', '.join(level)}." if level else "")


def mean_text(mean: Mean) -> str:
    """A mean with half the width of its interval, such as `0.62 ±0.11`."""
    half = None if mean.lo is None or mean.hi is None else (mean.hi - mean.lo) / 2
    return number_text(mean.value, half, digits=2).replace("-", "−")


def difference_text(difference: Difference) -> str:
    """A difference with its sign, and its interval: `−0.55 (−0.61 to −0.49)`."""
    extent = (
        ""
        if difference.lo is None or difference.hi is None
        else f" ({_signed(difference.lo)} to {_signed(difference.hi)})"
    )
    return _signed(difference.value) + extent


def _signed(value: float) -> str:
    return f"{round(value, 2) + 0:+.2f}".replace("-", "−")


def answers(rows: Sequence[Row]) -> list[Answer]:
    """An answer for each network and setting that has scores of at least two paddings for one target.

    Those of all taps come first. Of several versions of one cell, the newest counts; controls and networks without a
    border are left out.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in sorted(rows, key=lambda row: str(row["created"])):
        if not row["control"] and row["padding"] != CONTROL and row["status"] == "ok" and row.get(METRIC) is not None:
            groups.setdefault((network_label(row), row["taps"], *setting(row)), []).append(row)
    # What all taps say comes first: it is what is asked for, and a single tap is a part of it.
    found = (_answer(group) for group in sorted(groups.values(), key=lambda group: group[0]["taps"] != "all"))
    return [one for one in found if one]


def _answer(rows: Sequence[Row]) -> Answer | None:
    scored: dict[str, dict[str, Row]] = {}
    for row in rows:
        scored.setdefault(row["padding"], {})[row["target"]] = row
    every = dict.fromkeys(row["target"] for row in rows)
    targets = tuple(target for target in every if all(target in of for of in scored.values()))
    if len(scored) < 2 or not targets:
        return None
    mutual = any(row.get("mutual") for row in rows)
    by_photograph = {padding: _over(of, targets) for padding, of in scored.items()}
    means = {padding: _mean(of, targets, by_photograph[padding], mutual) for padding, of in scored.items()}
    order = sorted(means, key=lambda padding: means[padding].value)
    best = by_photograph[order[0]]

    def standing(padding: str) -> Standing:
        own, zero = by_photograph[padding], by_photograph.get(REFERENCE, {})
        less = paired(own, zero, mutual=mutual) if padding != REFERENCE else None
        shared = len(own.keys() & best.keys()) > 1
        level = padding != order[0] and shared and not distinguishable(own, best, len(order) - 1, mutual=mutual)
        return Standing(padding, means[padding], less, level)

    first = rows[0]
    on = f"{board_title(first, METRIC)}; {first['n_train']} training and {first['n_test']} test crops of "
    on += f"{first['image_size']} px; readout {first['readout']}, taps {first['taps']}, {first['precision']}"
    network = network_name(first)
    return Answer(network, on, targets, tuple(standing(padding) for padding in order))


def _over(of_target: Mapping[str, Row], targets: Sequence[str]) -> dict[str, float]:
    """The mean over targets of each photograph that all of them were scored on."""
    scores = [of_target[target].get("by_photograph", {}).get(METRIC, {}) for target in targets]
    return {
        name: sum(one[name] for one in scores) / len(scores) for name in scores[0] if all(name in s for s in scores)
    }


def _mean(
    of_target: Mapping[str, Row], targets: Sequence[str], by_photograph: Mapping[str, float], mutual: bool
) -> Mean:
    if not by_photograph:
        return Mean(sum(of_target[target][METRIC] for target in targets) / len(targets), None, None, 0)
    return Mean(*interval(list(by_photograph.values()), mutual=mutual), len(by_photograph))
