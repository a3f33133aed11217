"""Records of results: of each cell, of each job as a whole, and of each time that a job was computed.

Building a record checks nothing. `store.validation` checks records of data that comes from outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Self

from pydantic import AfterValidator, ConfigDict, SkipValidation, model_validator

from posbench.bench import field_types as types

#: Records that are already built are checked like others.
_CHECKED = ConfigDict(revalidate_instances="always")


@dataclass(frozen=True)
class Score:
    """One metric of one cell.

    Attributes:
        value: the mean over photographs of the mean over each photograph's images.
        lo, hi: the 95 % interval of that mean, by Student's t over photographs; None with fewer than two of them.
        by_photograph: the mean of each photograph.
    """

    __pydantic_config__ = _CHECKED

    metric: types.MetricName
    version: types.PlainText
    value: types.FiniteFloat
    lo: types.FiniteFloat | None
    hi: types.FiniteFloat | None
    by_photograph: types.ByPhotograph = field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        types.check_interval(self.value, self.lo, self.hi)
        return self


@dataclass(frozen=True)
class Example:
    """A map that the readout of a cell predicted for one test image.

    Attributes:
        photograph: that the image shows, as `NAME@hash8`.
        thumbnail: the image made small, uint8 red, green, blue, a square row by row.
        drawn: the map, float16 little-endian, a square row by row.
    """

    photograph: types.PlainText
    thumbnail: types.Thumbnail
    drawn: types.SmallMap


def _check_scores(scores: Sequence[Score]) -> Sequence[Score]:
    keys = [(score.metric, score.version) for score in scores]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise ValueError(f"two scores by {twice[0]}")
    return scores


@dataclass(frozen=True)
class Outcome:
    """The result of one cell.

    Attributes:
        status: `ok`, `skipped` (cannot exist) or `failed`; `reason` says why.
        n_test_photos: how many independent photographs the scores rest on.
        degenerate: the share of test predictions that were constant.
        seconds: the cell's share of its job's time.
        mean_map: the mean predicted map, float32 little-endian, square.
        reach: how far from the border the SPC reaches, in pixels; None where that cannot be said.
        examples: of test images; a store returns them from `Store.examples` alone, as few readers need them.
    """

    __pydantic_config__ = _CHECKED

    identity: types.CellIdentity
    status: types.Status
    reason: types.PlainText = ""
    n_test_photos: types.Count | None = None
    degenerate: types.Share | None = None
    seconds: types.NonNegativeFloat = 0.0
    mean_map: types.SquareMap | None = None
    scores: Annotated[Sequence[Score], AfterValidator(_check_scores)] = ()
    reach: types.NonNegativeFloat | None = None
    examples: SkipValidation[Sequence[Example]] = ()


@dataclass(frozen=True)
class Measurement:
    """A metric of a job as a whole; see `observation.Reading`.

    Attributes:
        status, reason: as those of an outcome.
        picture: float32 little-endian, row by row, `columns` to a row.
    """

    __pydantic_config__ = _CHECKED

    metric: types.MetricName
    version: types.PlainText
    tap: types.Tap = "all"
    status: types.Status = "ok"
    reason: types.PlainText = ""
    value: types.FiniteFloat | None = None
    lo: types.FiniteFloat | None = None
    hi: types.FiniteFloat | None = None
    by_photograph: types.ByPhotograph = field(default_factory=dict)
    picture: types.Picture | None = None
    columns: types.PositiveInt | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        types.check_interval(self.value, self.lo, self.hi)
        if self.picture is not None and (not self.columns or len(self.picture) // 4 % self.columns):
            raise ValueError(f"a map of {len(self.picture)} bytes, with {self.columns} columns")
        return self


@dataclass(frozen=True)
class MeasurementRecord:
    """A stored measurement: of which job, and when and by which version it was made."""

    job_id: types.Digest
    identity: types.JobIdentity
    run_id: types.Count
    measurement: Measurement
    created: types.Moment
    posbench_version: types.PlainText


@dataclass(frozen=True)
class CellRecord:
    """A stored cell: its outcome, and when and by which version it was made."""

    cell_id: types.Digest
    run_id: types.Count
    outcome: Outcome
    created: types.Moment
    posbench_version: types.PlainText


@dataclass(frozen=True)
class JobRun:
    """One time that a job was computed: when, and how."""

    run_id: types.Count
    job_id: types.Digest
    provenance: types.JsonObject
    created: types.Moment
