"""Verdicts: whether a network encodes position, decided on dead leaves. See docs/controls.md for the rules.

On a torus of leaves nothing but a border tells positions apart, so what is predicted there is position. On photographs
a readout can also predict from content, and from what the border makes of content. Photographs turned by 180 degrees
separate the two, as far as a network treats a turned photograph as it treats an upright one: the part that comes from
content turns with the photograph, the part that comes from the border stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posbench.bench.row import Row
from posbench.core.statistics import MeanEstimate, interval

ENCODES, DOES_NOT, UNDECIDED = "encodes position", "does not", "undecided"
SEAM, CONTENT = "seam leak", "content"
#: The text that people are shown for `DOES_NOT`, which is the value in tables.
NO_POSITION = "no position found"
#: The smallest correlation that matters: some 1 % of a map's order.
RELEVANT = 0.1
#: The share of networks without position, over all targets together, that may falsely be called `encodes position`.
ERROR = 0.005
METRIC = "spc"
#: The targets that `does not` requires: a network may show position in one target and not in another.
COMPLETE = ("H", "V", "G", "HS", "VS")
#: Targets that change their sign about their mean when turned by 180 degrees. A symmetric one, such as the Gaussian,
#: looks the same after a turn, and cannot separate content from border.
TURNING = ("H", "V", "HS", "VS")


@dataclass(frozen=True)
class Evidence:
    """One number that a verdict rests on.

    Attributes:
        what: the images, and on photographs the part of the score.
        mean: with its interval over photographs.
        p: one-sided p-value of a mean no greater than 0, corrected for the other targets (Bonferroni).
    """

    what: str
    target: str
    mean: MeanEstimate
    p: float

    @property
    def found(self) -> bool:
        """True if the mean is significantly above 0 and large enough to matter."""
        return self.p <= ERROR and self.mean.value >= RELEVANT

    @property
    def excluded(self) -> bool:
        """True if the 95 % interval lies below every value that matters."""
        return self.mean.hi is not None and self.mean.hi < RELEVANT


@dataclass(frozen=True)
class Verdict:
    """The verdict on one network under one padding, and its evidence.

    Attributes:
        text: as the column `verdict` holds it.
    """

    text: str
    evidence: tuple[Evidence, ...]

    @property
    def label(self) -> str:
        """The text as people are shown it."""
        return self.text.replace(DOES_NOT, NO_POSITION)


def verdicts(rows: Sequence[Row]) -> list[Verdict | None]:
    """Return the verdict on the network of each row; None for rows of controls and rows without a network.

    Content and seam are separated by the scores of single photographs; rows read from a table lack these, so their
    verdicts name neither.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(_network(row), []).append(row)
    decided = {key: decide(members) for key, members in groups.items()}
    return [None if row.control or row.padding == "none" else decided[_network(row)] for row in rows]


def _network(row: Row) -> tuple[Any, ...]:
    """Return what must agree for rows to be evidence on one network and its readout."""
    network = (row.backbone, row.weights, row.padding)
    return (*network, row.readout, row.taps, row.seed, row.image_size, row.precision, row.score_at, row.n_train)


def decide(rows: Iterable[Row]) -> Verdict:
    """Return the verdict on one network from all its rows; see `verdicts`."""
    scored = [row for row in rows if row.status == "ok" and METRIC in row.scores]
    # Of two results for one target, the one on more images counts.
    null = sorted(
        (row for row in scored if row.on_null_images and _evidence(row) == "null"),
        key=lambda row: row.n_test_photos or 0,
    )
    on_leaves = _corrected({(row.images, row.target): row.mean(METRIC) for row in null})
    if any(evidence.found for evidence in on_leaves):
        text = ENCODES
    elif all(evidence.excluded for evidence in on_leaves) and {item.target for item in on_leaves} >= set(COMPLETE):
        text = DOES_NOT
    else:
        text = UNDECIDED
    border, content = _parts(scored)
    # Where leaves decide nothing, what stays may be a seam or position.
    if text == DOES_NOT and any(evidence.found for evidence in border):
        text += f" + {SEAM}"
    if any(evidence.found for evidence in content):
        text += f" + {CONTENT}"
    return Verdict(text, (*on_leaves, *border, *content))


def _evidence(row: Row) -> str:
    """Return what a row is evidence of: a plain cell on null images is evidence of position, as their control is."""
    if row.of_control and row.control == row.of_control.name:
        return row.of_control.evidence
    return "" if row.control else "null"


def _corrected(means: Mapping[tuple[str, str], MeanEstimate]) -> list[Evidence]:
    """Return evidence from means by `(what, target)`, each p-value corrected for the others."""
    return [Evidence(*key, mean, min(1.0, len(means) * mean.p_above(0.0))) for key, mean in means.items()]


def _parts(rows: Sequence[Row]) -> tuple[list[Evidence], list[Evidence]]:
    """Split scores on photographs into the part that stays when they are turned and the part that turns with them.

    If the predicted map were the sum of a map that the border fixes and one that content fixes, then a turned
    photograph would keep the first correlation and change the sign of the second, for a target that turning inverts.
    """
    upright = {row.cell_id: row for row in rows}
    border: dict[tuple[str, str], MeanEstimate] = {}
    content: dict[tuple[str, str], MeanEstimate] = {}
    # Of two results for one target, the one on more images counts.
    for turned in sorted(rows, key=lambda row: (row.n_test_photos or 0, row.n_test)):
        checked = upright.get(turned.control_of or "")
        if _evidence(turned) != "rotation" or checked is None or turned.target not in TURNING:
            continue
        first, second = (row.by_photograph(METRIC) for row in (checked, turned))
        shared = [name for name in first if name in second]
        if not shared:
            continue
        for part, sign, what in ((border, 1, "stays when turned"), (content, -1, "turns with them")):
            values = [(first[name] + sign * second[name]) / 2 for name in shared]
            mean = MeanEstimate(*interval(values, cross_fitted=checked.mutual), len(values))
            part[f"{checked.sources}: {what}", turned.target] = mean
    return _corrected(border), _corrected(content)
