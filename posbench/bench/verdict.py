"""Whether a network encodes position, decided on leaves; the rules stand in docs/controls.md.

On a torus of leaves nothing but a border tells positions apart, so what is drawn there is position. On photographs two
more things can be drawn, which photographs turned by 180 degrees tell apart as far as a network treats a turned
photograph as it treats an upright one: content, whose part turns with them, and what the border makes of it, whose part
stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posbench.core.statistics import MeanEstimate, interval

Row = Mapping[str, Any]

ENCODES, DOES_NOT, UNDECIDED = "encodes position", "does not", "undecided"
SEAM, CONTENT = "seam leak", "content"
#: A correlation that matters: some 1 % of a map's order.
RELEVANT = 0.1
#: A false `encodes position` may come up in this share of networks that encode none, over all targets together.
ERROR = 0.005
METRIC = "spc"
#: Without all of these, `does not` is not said: position that one target does not show another may.
COMPLETE = ("H", "V", "G", "HS", "VS")
#: Targets that change their sign when they are turned by 180 degrees, about their mean. A symmetric one, such as the
#: Gaussian, is drawn alike from both, and cannot tell content from border.
TURNING = ("H", "V", "HS", "VS")

#: What must agree for rows to be evidence on the same network as it is read.
_SAME = ("backbone", "weights", "padding", "readout", "taps", "seed", "image_size", "precision", "score_at", "n_train")


@dataclass(frozen=True)
class Evidence:
    """One number that a verdict rests on.

    Attributes:
        what: on which images, or which part on photographs.
        mean: with its interval over photographs.
        p: one-sided, of being no greater than 0, corrected for the targets beside it (Bonferroni).
    """

    what: str
    target: str
    mean: MeanEstimate
    p: float

    @property
    def found(self) -> bool:
        """Whether there is something, and it matters."""
        return self.p <= ERROR and self.mean.value >= RELEVANT

    @property
    def excluded(self) -> bool:
        """Whether there is nothing that matters: the 95 % interval stays below."""
        return self.mean.hi is not None and self.mean.hi < RELEVANT


@dataclass(frozen=True)
class Verdict:
    """What is to be said of one network under one padding, and why."""

    text: str
    evidence: tuple[Evidence, ...]


def verdicts(rows: Sequence[Row]) -> list[Verdict | None]:
    """The verdict on the network of each row; None for a control's row, and for one that is no network's.

    A row's mapping `by_photograph` (metric → photograph → score) is what content and seam are told apart by; without it
    nothing is added.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(_network(row), []).append(row)
    decided = {key: decide(members) for key, members in groups.items()}
    return [None if row["control"] or row["padding"] == "none" else decided[_network(row)] for row in rows]


def _network(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in _SAME)


def decide(rows: Iterable[Row]) -> Verdict:
    """The verdict on one network from all its rows; see `verdicts`."""
    scored = [row for row in rows if row["status"] == "ok" and row.get(METRIC) is not None]
    # Of two results for one target, the one on more images counts.
    null = sorted((row for row in scored if _is_null(row)), key=lambda row: row["n_test_photos"] or 0)
    on_leaves = _corrected({("leaves", row["target"]): _mean(row) for row in null})
    if any(evidence.found for evidence in on_leaves):
        text = ENCODES
    elif all(evidence.excluded for evidence in on_leaves) and {one.target for one in on_leaves} >= set(COMPLETE):
        text = DOES_NOT
    else:
        text = UNDECIDED
    border, content = _parts(scored)
    # Where leaves decide nothing, what stays may be either, a seam or position.
    if text == DOES_NOT and any(evidence.found for evidence in border):
        text += f" + {SEAM}"
    if any(evidence.found for evidence in content):
        text += f" + {CONTENT}"
    return Verdict(text, (*on_leaves, *border, *content))


def _is_null(row: Row) -> bool:
    on_leaves = row["images"] == row["test_images"] == "leaves"
    return on_leaves and row["control"] in ("", None, "null")


def _mean(row: Row) -> MeanEstimate:
    return MeanEstimate(row[METRIC], row.get(f"{METRIC}_lo"), row.get(f"{METRIC}_hi"), row["n_test_photos"])


def _corrected(means: Mapping[tuple[str, str], MeanEstimate]) -> list[Evidence]:
    """Evidence by what it is about and its target."""
    return [Evidence(*key, mean, min(1.0, len(means) * mean.p_above(0.0))) for key, mean in means.items()]


def _parts(rows: Sequence[Row]) -> tuple[list[Evidence], list[Evidence]]:
    """What photographs show that stays when they are turned, and what turns with them.

    Were the drawn map the sum of one that the border fixes and one that content does, a turned photograph would keep
    the first correlation and change the sign of the second, for a target that turning inverts.
    """
    upright = {row["cell_id"]: row for row in rows}
    border: dict[tuple[str, str], MeanEstimate] = {}
    content: dict[tuple[str, str], MeanEstimate] = {}
    # Of two results for one target, the one on more images counts.
    for turned in sorted(rows, key=lambda row: (row["n_test_photos"] or 0, row.get("n_test") or 0)):
        beside = upright.get(turned["control_of"] or "")
        if turned["control"] != "rotated" or beside is None or turned["target"] not in TURNING:
            continue
        first, second = (row.get("by_photograph", {}).get(METRIC, {}) for row in (beside, turned))
        shared = [name for name in first if name in second]
        if not shared:
            continue
        own = beside["images"] == beside["test_images"]
        source = beside["test_images"] if own else f"{beside['images']} → {beside['test_images']}"
        for part, sign, what in ((border, 1, "stays when turned"), (content, -1, "turns with them")):
            values = [(first[name] + sign * second[name]) / 2 for name in shared]
            mean = interval(values, cross_fitted=bool(beside.get("mutual")))
            part[f"{source}: {what}", turned["target"]] = MeanEstimate(*mean, len(values))
    return _corrected(border), _corrected(content)
