"""The commands that would compute a store's results anew, from what identifies the results."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

from posbench.bench.config import RunConfig
from posbench.bench.plan import identify
from posbench.bench.records import CellRecord, MeasurementRecord
from posbench.plugin.control import ALL_CONTROLS, Control, ControlCatalogue
from posbench.plugin.registry import load_registry
from posbench.report.labels import CONTROL

#: The options of one command, each with its values; `crossed` is none, but what cells of one command agree in.
Options = dict[str, tuple[str, ...]]
#: What may differ between the cells of one command, as it takes several and crosses them.
_CROSSED = ("targets", "paddings", "backbones", "seeds", "readouts", "test_images", "images")
#: What the control `none` does not depend on.
_OF_NETWORKS = ("backbones", "paddings", "weights", "seeds", "controls", "taps")
_SETTINGS = {
    "image_size": "image_size",
    "train_count": "n_train",
    "test_count": "n_test",
    "score_at": "score_at",
    "precision": "precision",
}
#: What a cell's identity has beyond that of its job.
_OF_CELLS = ("target", "readout", "taps", "seed", "score_at", "control", "control_of", "control_version")
_FILES = ("file:", "folder:")
_PYTHON = ("module:", "pixels:")
#: Stands for the source that was trained on, among those to test on, until it is known with what it is crossed.
_ITSELF = ""


@dataclass(frozen=True)
class Commands:
    """How to compute a store's results anew.

    Attributes:
        lines: one for each `posbench run` that it takes.
        paths: those in the lines that stand for files and folders of whoever made them, each with its label.
        nameless: how many cells no command can give: those of modules and images made in Python.
    """

    lines: list[str]
    paths: Mapping[str, str]
    nameless: int


def commands(records: Sequence[CellRecord], readings: Sequence[MeasurementRecord]) -> Commands:
    """Commands that plan the same cells, by the same ids, and ask for no more than was computed.

    Files and folders are named as their labels call them, in the directory of the command, since a path would say where
    somebody else had them. The versions of components are those of what is installed.
    """
    checks: dict[str, list[CellRecord]] = {}
    for record in records:
        checks.setdefault(str(record.outcome.identity.get("control_of") or ""), []).append(record)
    of_jobs: dict[str, set[str]] = {}
    for one in readings:
        of_jobs.setdefault(one.job_id, set()).add(one.reading.metric)
    own = checks.pop("", [])
    given = [record for record in own if not _made_in_python(record.outcome.identity)]
    lines = [
        _options(record.outcome.identity)
        | _drawn(record, checks.get(record.cell_id, ()))
        | {"metrics": _in_order(metrics), "controls": tuple(controls)}
        for record in given
        for metrics, controls in _asked(record, checks.get(record.cell_id, ()), of_jobs).items()
    ]
    measured = {_job_id(record) for record in records}
    lines += [
        _options(dict(one.identity)) | {"metrics": _in_order(of_jobs[one.job_id])}
        for one in readings
        if one.job_id not in measured and not _made_in_python(one.identity)
    ]
    lines = _unscored(lines)
    for name in _CROSSED:
        lines = _joined(lines, name)
        if name == "test_images":
            lines = [_tested(line) for line in lines]
    labels = {
        record.outcome.identity[part]["label"] for record in given for part in ("weights", "images", "test_images")
    }
    paths = {_called(label): label for label in sorted(labels) if label.startswith(_FILES)}
    return Commands([_line(one) for one in _with_none(lines)], paths, len(own) - len(given))


def _job_id(record: CellRecord) -> str:
    return identify({key: value for key, value in record.outcome.identity.items() if key not in _OF_CELLS})


def _asked(
    record: CellRecord, checks: Iterable[CellRecord], of_jobs: Mapping[str, set[str]]
) -> dict[frozenset[str], list[str]]:
    """The metrics that a cell was scored by, and those of its job, with the controls that were, too.

    A control that was run for fewer of them is asked for by itself: else the command would find it incomplete.
    """
    whole = frozenset(of_jobs.get(_job_id(record), ()))
    own = frozenset(score.metric for score in record.outcome.scores) | whole
    found: dict[frozenset[str], list[str]] = {own: []}
    by_control: dict[str, frozenset[str]] = {}
    for check in checks:
        control = _installed_controls().of_check(check.outcome.identity["control"])
        scored = frozenset(score.metric for score in check.outcome.scores) or own
        # Of controls, only the null is a network of which there is something to measure as a whole.
        if control and control.measured:
            scored |= of_jobs.get(_job_id(check), set())
        elif scored >= own - whole:
            scored = own
        if control:
            by_control[control.name] = by_control.get(control.name, own) & scored
    for control in _installed_controls():
        if control.name in by_control:
            found.setdefault(by_control[control.name], []).append(control.name)
    return found


@cache
def _installed_controls() -> ControlCatalogue:
    return ControlCatalogue(load_registry().every(Control))


def _drawn(record: CellRecord, checks: Iterable[CellRecord]) -> Options:
    """The seeds that a trained network was held against, where it took naming them."""
    default_seeds: set[str] = set()
    labels: list[str] = []
    for check in checks:
        control = _installed_controls().of_check(check.outcome.identity["control"])
        if control and control.default_seeds:
            default_seeds.update(map(str, control.default_seeds))
            labels.append(check.outcome.identity["weights"]["label"])
    seeds = tuple(dict.fromkeys(label.removeprefix("random:") for label in labels))
    named = record.outcome.identity["seed"] is None and {*seeds} - default_seeds
    return {"seeds": seeds} if named else {}


def _in_order(metrics: Iterable[str]) -> tuple[str, ...]:
    """As they are by default, others after them."""
    usual = RunConfig.metrics
    return tuple(sorted(metrics, key=lambda name: (usual.index(name) if name in usual else len(usual), name)))


def _unscored(lines: Sequence[Options]) -> list[Options]:
    """What has no score tells not by what it was to be: it is asked for by what the rest of its kind was."""
    apart = {"metrics", *_CROSSED}

    def kind(line: Options) -> list[tuple[str, tuple[str, ...]]]:
        return [(name, values) for name, values in line.items() if name not in apart]

    scored = [line for line in lines if line["metrics"]]
    return [
        line
        if line["metrics"]
        else line | {"metrics": next((one["metrics"] for one in scored if kind(one) == kind(line)), ())}
        for line in lines
    ]


def _tested(line: Options) -> Options:
    """A line whose sources to test on are named, if it takes naming, as it is with more than the one trained on."""
    tested = line["test_images"]
    if line["crossed"] and _ITSELF not in tested:
        # A source is shared out between training and testing only where one run has it in both roles.
        tested = (_ITSELF, *tested)
    named = () if tested == (_ITSELF,) else tuple(one or line["images"][0] for one in tested)
    return line | {"test_images": named}


def _made_in_python(identity: Mapping[str, Any]) -> bool:
    return any(identity[part]["label"].startswith(_PYTHON) for part in ("weights", "images", "test_images"))


def _options(identity: Mapping[str, Any]) -> Options:
    """Of a cell, or of a job that has none."""
    backbone, weights = identity["backbone"]["name"], identity["weights"]["label"]
    images, test_images = (_called(identity[part]["label"]) for part in ("images", "test_images"))
    mode, _, drawn = weights.partition(":")
    seed = drawn if mode == "random" else identity.get("seed")
    options: Options = {name: (str(identity[key]),) for name, key in _SETTINGS.items() if key in identity}
    return options | {
        "backbones": (backbone,),
        "paddings": () if backbone == CONTROL else (identity["padding"]["name"],),
        "targets": (identity["target"]["name"],) if "target" in identity else (),
        "readouts": (identity["readout"]["name"],) if "readout" in identity else (),
        "taps": (identity["taps"].replace("+", ","),) if "taps" in identity else (),
        "images": (images,),
        "test_images": (_ITSELF if test_images == images else test_images,),
        "crossed": tuple(mark for mark in ("halved", "crossed") if identity["images"].get(mark)),
        "weights": {
            "none": (),
            "random": ("random",),
            "file": (f"{backbone}={_called(weights)}",),
        }.get(mode, ("pretrained",)),
        "seeds": () if seed is None else (str(seed),),
        "controls": (),
    }


def _called(label: str) -> str:
    """A source of images as an option names it, or a file or folder without its hash."""
    return f"./{label.partition(':')[2].rpartition('@')[0]}" if label.startswith(_FILES) else label


def _joined(lines: Iterable[Options], name: str) -> list[Options]:
    """One for all that differ in nothing but this option."""
    groups: dict[tuple[tuple[str, tuple[str, ...]], ...], dict[str, None]] = {}
    for line in lines:
        rest = tuple((key, values) for key, values in line.items() if key != name)
        groups.setdefault(rest, {}).update(dict.fromkeys(line[name]))
    return [{name: tuple(values), **dict(rest)} for rest, values in groups.items()]


def _with_none(lines: Sequence[Options]) -> list[Options]:
    """The control's cells beside those of networks that were asked for with it, or on a line of their own."""
    found = [line for line in lines if line["backbones"] != (CONTROL,)]
    for line in (line for line in lines if line["backbones"] == (CONTROL,)):
        for beside in found:
            if _without_network(beside) == _without_network(line):
                beside["backbones"] += (CONTROL,)
                break
        else:
            found.append(line)
    return found


def _without_network(line: Options) -> Options:
    return {name: values for name, values in line.items() if name not in _OF_NETWORKS}


def _line(options: Options) -> str:
    """As it is typed, without what is the default."""
    words = ["posbench", "run"]
    for one in fields(RunConfig):
        values = options.get(one.name, ())
        if one.name == "controls" and len(values) == len(_installed_controls()):
            values = (ALL_CONTROLS,)
        default = one.default if isinstance(one.default, tuple) else (one.default,)
        if values and values != tuple(map(str, default)):
            words += ["--" + one.name.replace("_", "-"), ",".join(values)]
    return shlex.join(words)
