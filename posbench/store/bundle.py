"""Results as a folder to commit and share: tables for people, cells for posbench, a file that vouches for both."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn

from posbench.bench.plan import identify
from posbench.bench.records import CellRecord, JobRun, Measurement, MeasurementRecord, Outcome, Score
from posbench.core.errors import UsageError
from posbench.core.files import read_regular_file, write_atomically
from posbench.store import validation as validation

FORMAT = 1
TABLE, MEASURES, MARKDOWN, CELLS = "leaderboard.csv", "measures.csv", "leaderboard.md", "cells.json"
_PROVENANCE = "provenance-"
#: No published file is larger, in bytes; what is, is not read.
LARGEST = 2**28
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
_HASH = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Publication:
    """What a published folder holds: all that a store does, but for maps and pictures."""

    runs: Sequence[JobRun]
    records: Sequence[CellRecord]
    readings: Sequence[MeasurementRecord]

    def results(self) -> set[tuple[str, ...]]:
        """What it has results of: each score, each reading, and what cannot exist; a failure is no result."""
        scores = {(one.cell_id, score.metric, score.version) for one in self.records for score in one.outcome.scores}
        skipped = {(one.cell_id,) for one in self.records if one.outcome.status == "skipped"}
        readings = ((one.job_id, one.reading) for one in self.readings if one.reading.status != "failed")
        return scores | skipped | {(job, one.metric, one.version, one.tap) for job, one in readings}


def write(folder: Path, files: Mapping[str, bytes], *, force: bool = False) -> Path:
    """Write files and what vouches for them; of what is there, only what was published before is replaced.

    What vouches is written first and what vouched before is removed last, so that what was begun can be done again.

    Args:
        force: replace results that are not among these, such as those of another store.

    Returns:
        The provenance file.

    Raises:
        UsageError: if a file or another store's results are in the way, or the folder cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{str(folder)!r} is a file: name a folder")
    before = _vouched(folder)
    known = {(name, digest) for one in before.values() for name, digest in one["files"].items()}
    for name in files:
        path = folder / name
        if (path.exists() or path.is_symlink()) and (name, _digest(path)) not in known:
            raise UsageError(
                f"{str(path)!r} was not written by publish, or has been edited since: "
                "move it away, or name another folder"
            )
    cells = folder / CELLS
    if cells.exists() and not force:
        try:
            there = _published(cells.read_bytes(), cells).results()
        except UsageError as error:
            raise UsageError(
                f"{str(cells)!r} cannot be read ({error.__cause__!r}): "
                "name another folder, or give --force to replace what is there"
            ) from error
        lost = there - _published(files[CELLS], cells).results()
        if lost:
            raise UsageError(
                f"{str(folder)!r} holds {len(lost)} results that this store does not: "
                "name another folder, or give --force to replace them"
            )
    provenance = _provenance(files)
    vouching = folder / f"{_PROVENANCE}{sha256(provenance).hexdigest()}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{str(folder)!r} cannot be made ({error.strerror}): name another folder") from error
    write_atomically(vouching, provenance)
    for name, content in files.items():
        write_atomically(folder / name, content)
    for name, digest in known - {(name, sha256(content).hexdigest()) for name, content in files.items()}:
        # What was published then and is no longer, such as a report.
        if name not in files and _digest(folder / name) == digest:
            (folder / name).unlink()
    for path in before.keys() - {vouching}:
        path.unlink()
    return vouching


def read(path: Path) -> Publication:
    """What a published folder holds; a file of it stands for the folder.

    Raises:
        UsageError: if it is none, or a file of it has been edited.
    """
    folder = path if path.is_dir() else path.parent
    found = vouched_for(folder)
    if CELLS not in found:
        raise UsageError(f"{str(folder)!r} is no published folder: `posbench publish` writes one")
    return _published(found[CELLS], folder / CELLS)


def _published(content: bytes, path: Path) -> Publication:
    """What a file of cells holds; the path is for messages."""
    try:
        return _from_json(json.loads(content, parse_constant=_no_number))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise UsageError(f"{str(path)!r} does not hold cells ({error!r}): publish them again") from error


def is_published(path: Path) -> bool:
    """Whether a path is a published folder, or a table in one."""
    if path.is_dir():
        return bool(list(path.glob(f"{_PROVENANCE}*.json")))
    return any(path.name in one["files"] for one in _vouched(path.parent).values())


def vouched_for(folder: Path) -> dict[str, bytes]:
    """The files of a published folder, by name, as they were when they were published.

    Raises:
        UsageError: naming the one that has changed.
    """
    every = _vouched(folder)
    if not every:
        raise UsageError(f"{str(folder)!r} is no published folder: `posbench publish` writes one")
    wrong = ""
    for manifest in every.values():
        changed = [name for name, digest in manifest["files"].items() if _digest(folder / name) != digest]
        if not changed:
            return {name: (folder / name).read_bytes() for name in manifest["files"]}
        wrong = wrong or changed[0]
    raise UsageError(
        f"{str(folder / wrong)!r} is not what was published, it has been edited or is missing: "
        "restore it, or publish the store again"
    )


def _provenance(files: Mapping[str, bytes]) -> bytes:
    """What the files are and what they were made with; no time, so that equal files have equal provenance."""
    cells = json.loads(files[CELLS])
    made_with = {canonical({k: v for k, v in run["provenance"].items() if k != "seconds"}) for run in cells["runs"]}
    identities = [one["identity"] for one in (*cells["cells"], *cells["measures"])]
    return canonical(
        {
            "format": FORMAT,
            "files": {name: sha256(content).hexdigest() for name, content in files.items()},
            "cells": len(cells["cells"]),
            "posbench": sorted({one["posbench_version"] for one in (*cells["cells"], *cells["measures"])}),
            "weights": {one["weights"]["label"]: one["weights"]["sha256"] for one in identities},
            "images": {one[role]["label"]: one[role]["sha256"] for one in identities for role in _ROLES},
            "made_with": [json.loads(text) for text in sorted(made_with)],
        }
    ).encode()


_ROLES = ("images", "test_images")


def _vouched(folder: Path) -> dict[Path, Any]:
    """The provenance files in a folder that are called by their own hash, with what they say."""
    found = {}
    for path in sorted(folder.glob(f"{_PROVENANCE}*.json")):
        if not path.is_file() or path.name != f"{_PROVENANCE}{_digest(path)}.json":
            raise UsageError(f"{str(path)!r} has been edited, it is not what its name says: restore it")
        try:
            said = json.loads(path.read_bytes())
            files = said["files"]
            plain = all(_NAME.fullmatch(name) and _HASH.fullmatch(digest) for name, digest in files.items())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            plain = False
        if not plain or said.get("format") != FORMAT:
            raise UsageError(f"{str(path)!r} is not of a form that this posbench reads: publish the store again")
        found[path] = said
    return found


def _digest(path: Path) -> str:
    """SHA-256 of a file; empty if it is none, cannot be read, or is larger than anything that is published."""
    try:
        return sha256(read_regular_file(path, LARGEST)).hexdigest()
    except OSError:
        return ""


def canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, indent=1, allow_nan=False) + "\n"


def _fields(kind: Any, *without: str) -> list[str]:
    return [one.name for one in fields(kind) if one.name not in without]


_OF_SCORE = _fields(Score)
_OF_READING = _fields(Measurement, "picture", "columns")
_OF_OUTCOME = _fields(Outcome, "identity", "mean_map", "scores", "examples")
_MADE = ("created", "posbench_version")


def to_json(published: Publication) -> dict[str, Any]:
    def made(one: CellRecord | MeasurementRecord) -> dict[str, Any]:
        return {"run": one.run_id} | _named(one, _MADE)

    return {
        "format": FORMAT,
        "runs": [vars(run) for run in published.runs],
        "cells": [
            made(one)
            | {"identity": one.outcome.identity}
            | {name: getattr(one.outcome, name) for name in _OF_OUTCOME}
            | {"scores": [_named(score, _OF_SCORE) for score in one.outcome.scores]}
            for one in published.records
        ],
        "measures": [
            made(one) | {"identity": one.identity} | _named(one.reading, _OF_READING) for one in published.readings
        ],
    }


def _named(one: object, names: Sequence[str]) -> dict[str, Any]:
    return {name: dict(value) if isinstance(value := getattr(one, name), Mapping) else value for name in names}


def _from_json(said: Any) -> Publication:
    """The inverse of `to_json`; ids are computed again, from what they identify.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: if it is not of that form.
    """
    if said["format"] != FORMAT:
        raise ValueError(f"format {said['format']!r}")
    published = Publication(
        [validation.run(JobRun(**_picked(one, _fields(JobRun)))) for one in said["runs"]],
        [_cell(one) for one in said["cells"]],
        [_reading(one) for one in said["measures"]],
    )
    known: list[list[object]] = [
        [run.run_id for run in published.runs],
        [one.cell_id for one in published.records],
        [(one.job_id, one.reading.metric, one.reading.version, one.reading.tap) for one in published.readings],
    ]
    if any(len(set(ids)) < len(ids) for ids in known):
        raise ValueError("something twice")
    if lost := without_run(published):
        raise ValueError(f"no run {lost[0]}")
    return published


def _cell(one: Any) -> CellRecord:
    scores = [Score(**_picked(score, _OF_SCORE)) for score in one["scores"]]
    outcome = Outcome(validation.anything(one["identity"]), scores=scores, **_picked(one, _OF_OUTCOME))
    return validation.record(CellRecord(identify(outcome.identity), one["run"], outcome, **_picked(one, _MADE)))


def _reading(one: Any) -> MeasurementRecord:
    identity, reading = validation.anything(one["identity"]), Measurement(**_picked(one, _OF_READING))
    return validation.job_record(
        MeasurementRecord(identify(identity), identity, one["run"], reading, **_picked(one, _MADE))
    )


def _picked(one: Any, names: Sequence[str]) -> dict[str, Any]:
    return {name: one[name] for name in names}


def without_run(published: Publication) -> list[int]:
    """The runs that results are said to be of, but that are not there."""
    of = {one.run_id for one in published.records} | {one.run_id for one in published.readings}
    return sorted(of - {run.run_id for run in published.runs})


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")
