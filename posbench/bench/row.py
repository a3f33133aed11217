"""Results as rows of the published tables, and the columns of these tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from posbench.bench import field_types as types
from posbench.bench.records import Score
from posbench.core.statistics import MeanEstimate
from posbench.plugin.control import Control, ControlCatalogue


def sources_label(images: str, test_images: str) -> str:
    """The images of a row in a few words: `photos`, or `photos → leaves` where training and test images differ."""
    return images if images == test_images else f"{images} → {test_images}"


@dataclass(frozen=True)
class Row(Mapping[str, Any]):
    """One cell as published.

    The fields are the columns of the CSV, in its order, with the types that a CSV read back must have (see
    `posbench.report.read_csv`; making a row checks nothing). Each of `scores` fills three columns (`spc`, `spc_lo`,
    `spc_hi`). A row is also a read-only mapping from column names to values, such as `row["spc_lo"]`; it has no key for
    a metric that was not computed.

    Attributes:
        scores: by metric.
        mutual: the readouts were cross-fitted on these photographs; not a column.
        of_control: the control that the cell belongs to, if it is installed; not a column.
        on_null_images: trained and tested on images in which nothing but a border indicates position; not a column.
    """

    backbone: types.PlainText
    weights: types.PlainText
    padding: types.PlainText
    images: types.PlainText
    test_images: types.PlainText
    target: types.PlainText
    readout: types.PlainText
    taps: types.Taps
    seed: types.Seed | None
    image_size: types.PositiveInt
    precision: types.PlainText
    score_at: types.PlainText
    n_train: types.PositiveInt
    n_test: types.PositiveInt
    n_test_photos: types.Count | None
    status: types.Status
    reason: types.PlainText
    scores: Mapping[str, Score]
    degenerate: types.Share | None
    reach: types.NonNegativeFloat | None
    control: types.PlainText | None
    control_of: types.PlainText | None
    verdict: types.PlainText | None
    seconds: types.NonNegativeFloat
    cell_id: types.Digest
    posbench_version: types.PlainText
    created: types.Moment
    mutual: bool = False
    of_control: Control | None = None
    on_null_images: bool = False

    @classmethod
    def from_columns(
        cls,
        columns: Mapping[str, Any],
        controls: ControlCatalogue,
        by_photograph: Mapping[str, Mapping[str, float]] | None = None,
        *,
        mutual: bool = False,
    ) -> Row:
        """Make a row from the columns of a table.

        Args:
            columns: a value for each fixed column, and for each metric `METRIC`, `METRIC_lo` and `METRIC_hi`; a metric
                without a value is left out. Other keys are ignored.
            controls: the installed controls.
            by_photograph: for each metric, the mean of each photograph; a table does not have these.
            mutual: see `Row`.
        """
        fixed, means = {name: columns[name] for name in (*FIRST, *LAST)}, by_photograph or {}
        scores = {
            name: Score(name, "", value, columns[f"{name}_lo"], columns[f"{name}_hi"], means.get(name, {}))
            for name, value in columns.items()
            if name not in fixed and f"{name}_lo" in columns and value is not None
        }
        return cls(**fixed, scores=scores, mutual=mutual).interpreted(controls)

    def interpreted(self, controls: ControlCatalogue) -> Row:
        """Return the row with the fields that follow from the installed controls."""
        on_null_images = self.images == self.test_images and self.images in controls.null_images
        return replace(self, of_control=controls.of_check(self.control), on_null_images=on_null_images)

    def __getitem__(self, column: str) -> Any:
        if column in _FIXED:
            return getattr(self, column)
        if column in self.scores:
            return self.scores[column].value
        metric, _, bound = column.rpartition("_")
        if bound in ("lo", "hi") and metric in self.scores:
            return getattr(self.scores[metric], bound)
        raise KeyError(column)

    def __iter__(self) -> Iterator[str]:
        metrics = (column for metric in self.scores for column in score_columns(metric) if column not in _FIXED)
        return iter(dict.fromkeys((*FIRST, *metrics, *LAST)))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @property
    def sources(self) -> str:
        """The images that the score is of, see `sources_label`."""
        return sources_label(self.images, self.test_images)

    def by_photograph(self, metric: str) -> Mapping[str, float]:
        """Return the mean score of each photograph; empty where there is no score, or only its mean is known."""
        score = self.scores.get(metric)
        return score.by_photograph if score else {}

    def mean(self, metric: str) -> MeanEstimate:
        """Return a score with its interval, for comparisons; raise KeyError if the row has no such score."""
        score = self.scores[metric]
        return MeanEstimate(score.value, score.lo, score.hi, self.n_test_photos or 0)


@dataclass(frozen=True)
class JobRow(Mapping[str, Any]):
    """One measurement of a job as published: a metric of the network as a whole, which needs no target.

    The fields are the columns of the table, in its order. A row is also a read-only mapping by column name.
    """

    backbone: str
    weights: str
    padding: str
    images: str
    test_images: str
    metric: str
    tap: str
    image_size: int
    precision: str
    n_train: int
    n_test: int
    n_test_photos: int | None
    status: str
    reason: str
    value: float | None
    lo: float | None
    hi: float | None
    job_id: str
    posbench_version: str
    created: str

    def __getitem__(self, column: str) -> Any:
        if column not in JOB_COLUMNS:
            raise KeyError(column)
        return getattr(self, column)

    def __iter__(self) -> Iterator[str]:
        return iter(JOB_COLUMNS)

    def __len__(self) -> int:
        return len(JOB_COLUMNS)

    @property
    def sources(self) -> str:
        """The images that the value is of, see `sources_label`."""
        return sources_label(self.images, self.test_images)


def score_columns(metric: str) -> tuple[str, str, str]:
    """Return the three columns of a metric: its value, and the bounds of its 95 % interval."""
    return metric, f"{metric}_lo", f"{metric}_hi"


_NAMES = tuple(field.name for field in fields(Row))
_SCORES = _NAMES.index("scores")
#: The columns before those of the metrics, and the columns after them.
FIRST, LAST = _NAMES[:_SCORES], _NAMES[_SCORES + 1 : _NAMES.index("mutual")]
_FIXED = frozenset((*FIRST, *LAST))
#: The columns that say what was measured, and with which settings; they come first.
SETTINGS = FIRST[: FIRST.index("n_test_photos")]
#: The columns of the table of what is measured of jobs.
JOB_COLUMNS = tuple(field.name for field in fields(JobRow))
