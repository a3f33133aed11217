"""What a store holds: of each cell, of each job as a whole, and of each time that a job was computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Score:
    """One metric of one cell.

    Attributes:
        value: the mean over photographs of the mean over each one's images.
        lo, hi: the 95 % interval of that mean, by Student's t over photographs; None with fewer than two of them.
        by_photograph: the mean of each photograph.
    """

    metric: str
    version: str
    value: float
    lo: float | None
    hi: float | None
    by_photograph: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Example:
    """What the readout of a cell drew for one test image.

    Attributes:
        photograph: that the image shows, as `NAME@hash8`.
        thumbnail: the image made small, uint8 red, green, blue, a square row by row.
        drawn: float16 little-endian, a square map row by row.
    """

    photograph: str
    thumbnail: bytes
    drawn: bytes


@dataclass(frozen=True)
class Outcome:
    """What became of one cell.

    Attributes:
        status: `ok`, `skipped` (cannot exist) or `failed`; `reason` says why.
        n_test_photos: how many independent photographs the scores rest on.
        degenerate: the share of test predictions that were constant.
        seconds: the cell's share of its job's time.
        mean_map: the mean predicted map, float32 little-endian, square.
        reach: how far from the border the SPC reaches, in pixels; None where that cannot be said.
        examples: of test images; a store gives them by `Store.examples` alone, as few ask for them.
    """

    identity: dict[str, Any]
    status: str
    reason: str = ""
    n_test_photos: int | None = None
    degenerate: float | None = None
    seconds: float = 0.0
    mean_map: bytes | None = None
    scores: Sequence[Score] = ()
    reach: float | None = None
    examples: Sequence[Example] = ()


@dataclass(frozen=True)
class Measurement:
    """A metric of a job as a whole; see `observation.Reading`.

    Attributes:
        status, reason: as an outcome's.
        picture: float32 little-endian, row by row, `columns` to a row.
    """

    metric: str
    version: str
    tap: str = "all"
    status: str = "ok"
    reason: str = ""
    value: float | None = None
    lo: float | None = None
    hi: float | None = None
    by_photograph: Mapping[str, float] = field(default_factory=dict)
    picture: bytes | None = None
    columns: int | None = None


@dataclass(frozen=True)
class MeasurementRecord:
    """A stored reading: of which job, and when and by what it was made."""

    job_id: str
    identity: dict[str, Any]
    run_id: int
    reading: Measurement
    created: str
    posbench_version: str


@dataclass(frozen=True)
class CellRecord:
    """A stored cell: its outcome, and when and by what it was made."""

    cell_id: str
    run_id: int
    outcome: Outcome
    created: str
    posbench_version: str


@dataclass(frozen=True)
class JobRun:
    """One time that a job was computed: when, and how."""

    run_id: int
    job_id: str
    provenance: Mapping[str, Any]
    created: str
