"""Ranking of paddings: which one hides position best in each network, and by how much."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from posbench.bench.row import Row
from posbench.core.statistics import Difference, MeanEstimate, interval, paired_difference, significantly_different
from posbench.report.labels import (
    CONTROL,
    distinct_parts,
    family,
    groups,
    half_width,
    images_name,
    in_common,
    network_label,
    number_text,
    setting_parts,
    tested,
)

METRIC = "spc"
#: The padding that others are compared with; networks are trained with it.
REFERENCE = "zero"
#: A score of a network under a padding: its target, and its network's label, which names the seed.
Scored = tuple[str, str]


@dataclass(frozen=True)
class Standing:
    """One padding of a network.

    Attributes:
        mean: of the SPC over targets and seeds, photograph by photograph.
        less: the difference of distances from 0, this padding's mean less that of `REFERENCE`; negative if this one is
            nearer to 0. None for the reference itself, or without one.
        level: not significantly different from the best padding, at 95 % for all paddings together.
    """

    padding: str
    mean: MeanEstimate
    less: Difference | None
    level: bool


@dataclass(frozen=True)
class Ranking:
    """The paddings of one network in one setting, the one that hides position best first.

    Attributes:
        network, weights: the probed network; of several seeds, the weights give their number.
        images: that the scores are of; `tested`, the number of independent ones.
        measured: the parts of the setting; `setting`, those that not all rankings share.
        targets: over which means are taken.
        left_out: a sentence on what is not compared, and why; empty where everything is.
    """

    network: str
    weights: str
    images: str
    tested: str
    measured: tuple[str, ...]
    setting: str
    targets: tuple[str, ...]
    standings: tuple[Standing, ...]
    left_out: str

    @property
    def best(self) -> Standing:
        return self.standings[0]

    @property
    def level(self) -> list[str]:
        """The paddings that are not significantly different from the best."""
        return [standing.padding for standing in self.standings[1:] if standing.level]

    @property
    def significant(self) -> bool:
        """True if a padding hides position significantly better than the reference, or the reference was not run."""
        better = self.best.padding != REFERENCE or not self.level
        return better and REFERENCE not in self.level

    @property
    def text(self) -> str:
        """The result in one or two sentences."""
        best, mean = self.best, mean_text(self.best.mean)
        less = f", {difference_text(best.less)} against {REFERENCE} padding" if best.less else ""
        level = f" Not significantly different: {', '.join(self.level)}." if self.level else ""
        if not self.significant:
            none = f"No padding hides position significantly better than {REFERENCE}"
            return f"{none}: {best.padding} comes nearest to 0, mean SPC {mean}{less}.{level}"
        return f"{best.padding} hides position best: mean SPC {mean}{less}.{level}"


def mean_text(mean: MeanEstimate) -> str:
    """Return a mean with half the width of its interval: `0.62 ±0.11`, with three digits for a narrow interval."""
    half = half_width(mean)
    return number_text(mean.value, half, digits=_digits(half))


def difference_text(difference: Difference) -> str:
    """Return a difference with its interval: `-0.55 (-0.61 to -0.49)`, with three digits for a narrow interval."""
    if difference.lo is None or difference.hi is None:
        return _signed(difference.value, 2)
    digits = _digits(half_width(difference))
    value, low, high = (_signed(number, digits) for number in (difference.value, difference.lo, difference.hi))
    return f"{value} ({low} to {high})"


def _digits(half: float | None) -> int:
    return 2 if half is None or half >= 0.01 else 3


def _signed(value: float, digits: int) -> str:
    # Adding zero turns −0 into 0, which has no sign.
    rounded = round(value, digits) + 0
    return f"{rounded:{'+' if rounded else ''}.{digits}f}"


def rankings(rows: Sequence[Row]) -> list[Ranking]:
    """Rank the paddings of each network and setting that has scores of at least two paddings for one target.

    All seeds of a network make one ranking. Of several versions of one cell, the newest counts; controls and networks
    without a border are left out.

    Args:
        rows: as `labels.without_single_taps` returns them; each choice of taps makes a ranking of its own.
    """
    scored = [row for row in rows if row.padding != CONTROL and row.status == "ok" and METRIC in row.scores]
    ranked = [_ranking(group) for group in groups(scored, lambda row: (family(row), row.taps))]
    with_two = [ranking for ranking in ranked if ranking]
    settings = distinct_parts([ranking.measured for ranking in with_two])
    labelled = [replace(ranking, setting=setting) for ranking, setting in zip(with_two, settings, strict=True)]
    return sorted(labelled, key=lambda ranking: (ranking.network, ranking.weights, ranking.images))


def _ranking(rows: Sequence[Row]) -> Ranking | None:
    scored: dict[str, dict[Scored, Row]] = {}
    for row in rows:
        scored.setdefault(row.padding, {})[row.target, network_label(row)] = row
    shared, paddings = in_common(scored)
    if not shared:
        return None
    mutual = any(row.mutual for row in rows)
    by_photograph = {padding: _mean_by_photograph(scored[padding], shared) for padding in paddings}
    means = {padding: _mean(scored[padding], shared, by_photograph[padding], mutual) for padding in paddings}
    standings = _standings(means, by_photograph, mutual)
    first, labels = rows[0], dict.fromkeys(label for _, label in shared)
    return Ranking(
        first.backbone,
        f"{family(first)[1]}, {len(labels)} seeds" if len(labels) > 1 else _weights(next(iter(labels))),
        images_name(first),
        tested(standings[0].mean.n, first.n_test),
        tuple(setting_parts(first)),
        "",
        tuple(dict.fromkeys(target for target, _ in shared)),
        standings,
        _left_out(scored, shared, paddings),
    )


def _standings(
    means: Mapping[str, MeanEstimate], by_photograph: Mapping[str, Mapping[str, float]], mutual: bool
) -> tuple[Standing, ...]:
    """Sort paddings by the distance of their mean from 0, and compare each with the reference and with the best."""
    # A prediction with all signs inverted shows position as well as one without, so the distance from 0 counts.
    distances = {
        padding: {name: -score if means[padding].value < 0 else score for name, score in scores.items()}
        for padding, scores in by_photograph.items()
    }
    first, *others = order = sorted(means, key=lambda padding: abs(means[padding].value))

    def standing(padding: str) -> Standing:
        own = distances[padding]
        less = (
            None if padding == REFERENCE else paired_difference(own, distances.get(REFERENCE, {}), cross_fitted=mutual)
        )
        level = padding != first and not significantly_different(
            own, distances[first], len(others), cross_fitted=mutual
        )
        return Standing(padding, means[padding], less, level)

    return tuple(map(standing, order))


def _weights(label: str) -> str:
    """Return a network's label without its name."""
    return ", ".join(label.split("\n")[1:])


def _left_out(scored: Mapping[str, Mapping[Scored, Row]], shared: Sequence[Scored], paddings: Sequence[str]) -> str:
    """Describe paddings that lack what is compared, and scores that not all compared paddings have."""
    several = len({label for rows in scored.values() for _, label in rows}) > 1

    def named(items: Iterable[Scored]) -> str:
        return ", ".join(f"{target} ({_weights(label)})" if several else target for target, label in items)

    lacking = {
        name: [item for item in shared if item not in rows] for name, rows in scored.items() if name not in paddings
    }
    beyond = dict.fromkeys(item for name in paddings for item in scored[name] if item not in shared)
    texts = [f"{name}, which lacks {named(items)}" for name, items in lacking.items()]
    texts += [f"{named(beyond)}, which not all paddings have"] if beyond else []
    return f"Left out: {'; '.join(texts)}." if texts else ""


def _mean_by_photograph(scored: Mapping[Scored, Row], shared: Sequence[Scored]) -> dict[str, float]:
    """Return the mean over targets and seeds of each photograph that all of them were scored on."""
    scores = [scored[item].by_photograph(METRIC) for item in shared]
    return {
        name: sum(of_item[name] for of_item in scores) / len(scores)
        for name in scores[0]
        if all(name in of_item for of_item in scores)
    }


def _mean(
    scored: Mapping[Scored, Row], shared: Sequence[Scored], by_photograph: Mapping[str, float], mutual: bool
) -> MeanEstimate:
    if not by_photograph:
        return MeanEstimate(sum(scored[item].scores[METRIC].value for item in shared) / len(shared), None, None, 0)
    return MeanEstimate(*interval(list(by_photograph.values()), cross_fitted=mutual), len(by_photograph))
