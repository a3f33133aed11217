"""Which padding hides position best, network by network, and by how much."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from posbench.core.statistics import Difference, MeanEstimate, interval, paired_difference, significantly_different
from posbench.report.grouping import groups, in_common
from posbench.report.labels import (
    CONTROL,
    apart,
    family,
    images_name,
    network_label,
    number_text,
    setting_parts,
    tested,
)
from posbench.report.rows import Row

METRIC = "spc"
#: What others are held against, and what networks come with.
REFERENCE = "zero"
#: A score of a network under a padding: its target, and its network's label, which names the seed.
Scored = tuple[str, str]


@dataclass(frozen=True)
class Standing:
    """One padding of a network.

    Attributes:
        mean: of the SPC over targets and seeds, photograph by photograph.
        less: how much farther from 0 than the mean under `REFERENCE`; negative where nearer. None for that padding, or
            where there is none.
        level: it cannot be told from the one that hides position best, at 95 % for all paddings together.
    """

    padding: str
    mean: MeanEstimate
    less: Difference | None
    level: bool


@dataclass(frozen=True)
class Answer:
    """The paddings of one network in one setting, the one that hides position best first.

    Attributes:
        network, weights: what was probed; the weights say of how many seeds scores are the mean.
        images: what the scores are of, and `tested`, how many independent ones.
        measured: with what, part by part; `setting`, the parts of it that not all answers have in common.
        targets: those over which means are taken.
        left_out: what is not compared, and why; empty where all is.
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
        """The paddings that cannot be told from the best."""
        return [one.padding for one in self.standings[1:] if one.level]

    @property
    def told(self) -> bool:
        """Whether any padding can be told to hide position better than the reference; true where that was not run."""
        better = self.best.padding != REFERENCE or not self.level
        return better and REFERENCE not in self.level

    @property
    def text(self) -> str:
        """The answer in one or two sentences."""
        best, mean = self.best, mean_text(self.best.mean)
        less = f", {difference_text(best.less)} against {REFERENCE} padding" if best.less else ""
        if not self.told:
            named = f"No padding can be told to hide position better than {REFERENCE}"
            return f"{named}: {best.padding} comes nearest to 0, mean SPC {mean}{less}.{self._beside()}"
        return f"{best.padding} hides position best: mean SPC {mean}{less}.{self._beside()}"

    def _beside(self) -> str:
        return f" Not to be told from it: {', '.join(self.level)}." if self.level else ""


def mean_text(mean: MeanEstimate) -> str:
    """A mean with half the width of its interval, such as `0.62 ±0.11`; three digits where two hide the interval."""
    half = None if mean.lo is None or mean.hi is None else (mean.hi - mean.lo) / 2
    return number_text(mean.value, half, digits=_digits(half))


def difference_text(difference: Difference) -> str:
    """A difference with its sign, and its interval: `-0.55 (-0.61 to -0.49)`; three digits where two hide that."""
    if difference.lo is None or difference.hi is None:
        return _signed(difference.value, 2)
    digits = _digits((difference.hi - difference.lo) / 2)
    value, low, high = (_signed(one, digits) for one in (difference.value, difference.lo, difference.hi))
    return f"{value} ({low} to {high})"


def _digits(half: float | None) -> int:
    return 2 if half is None or half >= 0.01 else 3


def _signed(value: float, digits: int) -> str:
    # Adding zero turns −0 into 0, which has no sign to show.
    rounded = round(value, digits) + 0
    return f"{rounded:{'+' if rounded else ''}.{digits}f}"


def answers(rows: Sequence[Row]) -> list[Answer]:
    """An answer for each network and setting that has scores of at least two paddings for one target.

    The seeds of a network have one answer. Of several versions of one cell, the newest counts; controls and networks
    without a border are left out.

    Args:
        rows: as `grouping.whole` gives them; each choice of taps has an answer of its own.
    """
    scored = [
        row for row in rows if row["padding"] != CONTROL and row["status"] == "ok" and row.get(METRIC) is not None
    ]
    answered = [_answer(group) for group in groups(scored, lambda row: (family(row), row["taps"]))]
    found = [one for one in answered if one]
    settings = apart([one.measured for one in found])
    told = [replace(one, setting=setting) for one, setting in zip(found, settings, strict=True)]
    return sorted(told, key=lambda one: (one.network, one.weights, one.images))


def _answer(rows: Sequence[Row]) -> Answer | None:
    scored: dict[str, dict[Scored, Row]] = {}
    for row in rows:
        scored.setdefault(row["padding"], {})[row["target"], network_label(row)] = row
    shared, paddings = in_common(scored)
    if not shared:
        return None
    mutual = any(row.get("mutual") for row in rows)
    by_photograph = {padding: _over(scored[padding], shared) for padding in paddings}
    means = {padding: _mean(scored[padding], shared, by_photograph[padding], mutual) for padding in paddings}
    # A drawing with all signs turned round shows position as well as one without, so what counts is how far from 0.
    distances = {
        padding: {name: -value if means[padding].value < 0 else value for name, value in of.items()}
        for padding, of in by_photograph.items()
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

    one, labels = rows[0], dict.fromkeys(label for _, label in shared)
    return Answer(
        one["backbone"],
        f"{family(one)[1]}, {len(labels)} seeds" if len(labels) > 1 else _weights(next(iter(labels))),
        images_name(one),
        tested(means[first].n, one["n_test"]),
        tuple(setting_parts(one)),
        "",
        tuple(dict.fromkeys(target for target, _ in shared)),
        tuple(standing(padding) for padding in order),
        _left_out(scored, shared, paddings),
    )


def _weights(label: str) -> str:
    """A network's label without its name."""
    return ", ".join(label.split("\n")[1:])


def _left_out(scored: Mapping[str, Mapping[Scored, Row]], shared: Sequence[Scored], paddings: Sequence[str]) -> str:
    """Paddings that lack what is compared, and what is not compared since not all the others have it."""
    several = len({label for of in scored.values() for _, label in of}) > 1

    def named(items: Iterable[Scored]) -> str:
        return ", ".join(f"{target} ({_weights(label)})" if several else target for target, label in items)

    lacking = {name: [item for item in shared if item not in of] for name, of in scored.items() if name not in paddings}
    beyond = dict.fromkeys(item for name in paddings for item in scored[name] if item not in shared)
    said = [f"{name}, which lacks {named(items)}" for name, items in lacking.items()]
    said += [f"{named(beyond)}, which not all paddings have"] if beyond else []
    return f"Left out: {'; '.join(said)}." if said else ""


def _over(scored: Mapping[Scored, Row], shared: Sequence[Scored]) -> dict[str, float]:
    """The mean over targets and seeds of each photograph that all of them were scored on."""
    scores = [scored[item].get("by_photograph", {}).get(METRIC, {}) for item in shared]
    return {
        name: sum(one[name] for one in scores) / len(scores) for name in scores[0] if all(name in s for s in scores)
    }


def _mean(
    scored: Mapping[Scored, Row], shared: Sequence[Scored], by_photograph: Mapping[str, float], mutual: bool
) -> MeanEstimate:
    if not by_photograph:
        return MeanEstimate(sum(scored[item][METRIC] for item in shared) / len(shared), None, None, 0)
    return MeanEstimate(*interval(list(by_photograph.values()), cross_fitted=mutual), len(by_photograph))
