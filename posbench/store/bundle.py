"""Published folders: tables for people, cells for posbench, and a provenance file with the hashes of both."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, with_config
from typing_extensions import TypedDict

from posbench.bench.field_types import Digest
from posbench.bench.plan import identify
from posbench.bench.records import CellRecord, JobRun, Measurement, MeasurementRecord, Outcome, Score
from posbench.core.errors import UsageError
from posbench.core.files import read_regular_file, write_atomically
from posbench.store.validation import parse_json, validated

FORMAT = 1
TABLE, MEASURES, MARKDOWN, CELLS = "leaderboard.csv", "measures.csv", "leaderboard.md", "cells.json"
_PROVENANCE = "provenance-"
#: The size limit of a published file, in bytes; a larger one is not read.
LARGEST = 2**28
#: Fields of outcomes and measurements that are left out, or have a place of their own.
_UNPUBLISHED = ("mean_map", "scores", "examples", "picture", "columns")


@dataclass(frozen=True)
class Publication:
    """The contents of a published folder: those of a store without its maps and pictures."""

    runs: Sequence[JobRun]
    records: Sequence[CellRecord]
    measurements: Sequence[MeasurementRecord]

    def results(self) -> set[tuple[str, ...]]:
        """Return the key of each result: a score, a measurement, or a cell that cannot exist, but no failure."""
        scores = {(record.cell_id, s.metric, s.version) for record in self.records for s in record.outcome.scores}
        skipped = {(record.cell_id,) for record in self.records if record.outcome.status == "skipped"}
        measured = {_key(record) for record in self.measurements if record.measurement.status != "failed"}
        return scores | skipped | measured


def _key(record: MeasurementRecord) -> tuple[str, ...]:
    return record.job_id, record.measurement.metric, record.measurement.version, record.measurement.tap


class _Manifest(TypedDict):
    """A provenance file: the SHA-256 of each published file by its name. More is there for people."""

    format: int
    files: dict[Annotated[str, Field(strict=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")], Digest]


@with_config({"extra": "allow"})
class _Cell(TypedDict):
    scores: list[dict[str, Any]]


class _Cells(TypedDict):
    """The contents of `cells.json`; each entry has the fields of its records."""

    runs: list[dict[str, Any]]
    cells: list[_Cell]
    measures: list[dict[str, Any]]


def write(folder: Path, files: Mapping[str, bytes], *, force: bool = False) -> Path:
    """Write files and their provenance; of what is there, only what was published before is replaced.

    The new provenance is written first and the old one removed last, so that an interrupted publication can be
    repeated.

    Args:
        force: replace results that are not among these, such as those of another store.

    Returns:
        The provenance file.

    Raises:
        UsageError: if a file or another store's results are in the way, or the folder cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{str(folder)!r} is a file: name a folder")
    before = _manifests(folder)
    known = {(name, digest) for manifest in before.values() for name, digest in manifest["files"].items()}
    for name in files:
        path = folder / name
        if (path.exists() or path.is_symlink()) and (name, _digest(path)) not in known:
            raise UsageError(
                f"{str(path)!r} was not written by publish, or has been edited since: "
                "move it away, or name another folder"
            )
    if not force:
        _check_nothing_is_lost(folder, files[CELLS])
    provenance = _provenance(files)
    manifest_path = folder / f"{_PROVENANCE}{sha256(provenance).hexdigest()}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{str(folder)!r} cannot be made ({error.strerror}): name another folder") from error
    write_atomically(manifest_path, provenance)
    for name, content in files.items():
        write_atomically(folder / name, content)
    for name, digest in known:
        # It was published before and is no longer, such as a report.
        if name not in files and _digest(folder / name) == digest:
            (folder / name).unlink()
    for path in before.keys() - {manifest_path}:
        path.unlink()
    return manifest_path


def _check_nothing_is_lost(folder: Path, content: bytes) -> None:
    """Check that new cells hold all results that a folder does."""
    cells = folder / CELLS
    if not cells.exists():
        return
    try:
        before = _parse(cells.read_bytes(), cells).results()
    except UsageError as error:
        raise UsageError(
            f"{str(cells)!r} cannot be read ({error.__cause__!r}): "
            "name another folder, or give --force to replace what is there"
        ) from error
    if lost := before - _parse(content, cells).results():
        raise UsageError(
            f"{str(folder)!r} holds {len(lost)} results that this store does not: "
            "name another folder, or give --force to replace them"
        )


def read(path: Path) -> Publication:
    """Return the contents of a published folder; a file in it counts as the folder.

    Raises:
        UsageError: if it is none, or a file of it has been edited.
    """
    folder = path if path.is_dir() else path.parent
    files = verified_files(folder)
    if CELLS not in files:
        raise UsageError(f"{str(folder)!r} is no published folder: `posbench publish` writes one")
    return _parse(files[CELLS], folder / CELLS)


def _parse(content: bytes, path: Path) -> Publication:
    try:
        return _from_json(parse_json(content))
    except ValueError as error:
        raise UsageError(f"{str(path)!r} does not hold cells ({error!r}): publish them again") from error


def is_published(path: Path) -> bool:
    """Return whether a path is a published folder, or a table in one."""
    if path.is_dir():
        return bool(list(path.glob(f"{_PROVENANCE}*.json")))
    return any(path.name in manifest["files"] for manifest in _manifests(path.parent).values())


def verified_files(folder: Path) -> dict[str, bytes]:
    """Return the files of a published folder, by name, if they are as they were published.

    Raises:
        UsageError: naming one that has changed.
    """
    manifests = _manifests(folder)
    if not manifests:
        raise UsageError(f"{str(folder)!r} is no published folder: `posbench publish` writes one")
    changed: list[str] = []
    for manifest in manifests.values():
        wrong = [name for name, digest in manifest["files"].items() if _digest(folder / name) != digest]
        if not wrong:
            return {name: (folder / name).read_bytes() for name in manifest["files"]}
        changed += wrong
    raise UsageError(
        f"{str(folder / changed[0])!r} is not what was published, it has been edited or is missing: "
        "restore it, or publish the store again"
    )


def _provenance(files: Mapping[str, bytes]) -> bytes:
    """Return the provenance of files, without times, so that equal files have equal provenance."""
    published = json.loads(files[CELLS])
    results = [*published["cells"], *published["measures"]]
    identities = [result["identity"] for result in results]
    made_with = {canonical({k: v for k, v in run["provenance"].items() if k != "seconds"}) for run in published["runs"]}
    return canonical(
        {
            "format": FORMAT,
            "files": {name: sha256(content).hexdigest() for name, content in files.items()},
            "cells": len(published["cells"]),
            "posbench": sorted({result["posbench_version"] for result in results}),
            "weights": {identity["weights"]["label"]: identity["weights"]["sha256"] for identity in identities},
            "images": {
                identity[role]["label"]: identity[role]["sha256"]
                for identity in identities
                for role in ("images", "test_images")
            },
            "made_with": [json.loads(text) for text in sorted(made_with)],
        }
    ).encode()


def _manifests(folder: Path) -> dict[Path, _Manifest]:
    """Return the provenance files in a folder, after checking their names and format."""
    manifests = {}
    for path in sorted(folder.glob(f"{_PROVENANCE}*.json")):
        if not path.is_file() or path.name != f"{_PROVENANCE}{_digest(path)}.json":
            raise UsageError(f"{str(path)!r} has been edited, it is not what its name says: restore it")
        try:
            manifest = validated(_Manifest, parse_json(path.read_bytes()))
            if manifest["format"] != FORMAT:
                raise ValueError(f"format {manifest['format']}")
        except ValueError as error:
            problem = "is not of a form that this posbench reads"
            raise UsageError(f"{str(path)!r} {problem}: publish the store again") from error
        manifests[path] = manifest
    return manifests


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file; empty if it is none, cannot be read, or is too large to be a published one."""
    try:
        return sha256(read_regular_file(path, LARGEST)).hexdigest()
    except OSError:
        return ""


def canonical(value: object) -> str:
    """Return the JSON text of a value, with sorted keys."""
    return json.dumps(value, sort_keys=True, indent=1, allow_nan=False) + "\n"


#: The published fields of each record.
_RUN, _SCORE, _OUTCOME, _MEASUREMENT = (
    [field.name for field in fields(kind) if field.name not in _UNPUBLISHED]
    for kind in (JobRun, Score, Outcome, Measurement)
)
_RECORD = ("created", "posbench_version")


def to_json(published: Publication) -> dict[str, Any]:
    """Return the contents of `cells.json`."""
    return {
        "format": FORMAT,
        "runs": [vars(run) for run in published.runs],
        "cells": [
            {"run": record.run_id, "scores": [_as_dict(score, _SCORE) for score in record.outcome.scores]}
            | _as_dict(record, _RECORD)
            | _as_dict(record.outcome, _OUTCOME)
            for record in published.records
        ],
        "measures": [
            {"run": record.run_id}
            | _as_dict(record, ("identity", *_RECORD))
            | _as_dict(record.measurement, _MEASUREMENT)
            for record in published.measurements
        ],
    }


def _as_dict(record: object, names: Sequence[str]) -> dict[str, Any]:
    return {name: dict(value) if isinstance(value := getattr(record, name), Mapping) else value for name in names}


def _from_json(content: Any) -> Publication:
    """Return what `to_json` was given; ids are computed again, from the identities."""
    if isinstance(content, dict) and content.get("format") != FORMAT:
        raise ValueError(f"format {content.get('format')!r:.40}")
    entries = validated(_Cells, content)
    published = Publication(
        [validated(JobRun, _picked(run, _RUN)) for run in entries["runs"]],
        [_cell(entry) for entry in entries["cells"]],
        [
            validated(MeasurementRecord, _record(entry, "job_id") | {"measurement": _picked(entry, _MEASUREMENT)})
            for entry in entries["measures"]
        ],
    )
    ids = [run.run_id for run in published.runs], [record.cell_id for record in published.records]
    if any(len(set(keys)) < len(keys) for keys in (*ids, [_key(record) for record in published.measurements])):
        raise ValueError("something twice")
    if lost := without_run(published):
        raise ValueError(f"no run {lost[0]}")
    return published


def _cell(entry: _Cell) -> CellRecord:
    outcome = _picked(entry, _OUTCOME) | {"scores": [_picked(score, _SCORE) for score in entry["scores"]]}
    return validated(CellRecord, _record(entry, "cell_id") | {"outcome": outcome})


def _record(entry: Mapping[str, Any], id_name: str) -> dict[str, Any]:
    picked = _picked(entry, ("run", "identity", *_RECORD))
    return picked | {"run_id": picked["run"], id_name: identify(picked["identity"])}


def _picked(entry: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    if missing := [name for name in names if name not in entry]:
        raise ValueError(f"{missing[0]}: missing")
    return {name: entry[name] for name in names}


def without_run(published: Publication) -> list[int]:
    """Return the numbers of runs that results refer to, but that are not there."""
    used = {record.run_id for record in published.records} | {record.run_id for record in published.measurements}
    return sorted(used - {run.run_id for run in published.runs})
