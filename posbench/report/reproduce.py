"""The `posbench run` commands that compute a store's results again, from the identities of the results."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from posbench.bench.config import RunConfig
from posbench.bench.plan import identify
from posbench.bench.records import CellRecord, MeasurementRecord
from posbench.plugin.control import ALL_CONTROLS, ControlCatalogue
from posbench.report.labels import CONTROL

#: The values of each option of one command. The key `crossed` is no option: it marks cells of shared image sources,
#: which must agree within a command.
Options = dict[str, tuple[str, ...]]
#: The options that take several values and cross them, so that cells of one command may differ in them.
_CROSSED = ("targets", "paddings", "backbones", "seeds", "readouts", "test_images", "images")
#: The options on which the control `none` does not depend.
_OF_NETWORKS = ("backbones", "paddings", "weights", "seeds", "controls", "taps")
#: The options that hold one number or word, and their keys in an identity.
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
#: The training source as a test source, until the sources with which it is crossed are known.
_ITSELF = ""


@dataclass(frozen=True)
class Commands:
    """The commands that compute a store's results again.

    Attributes:
        lines: one for each `posbench run`.
        paths: placeholders in the lines for files and folders, each with the label of its content.
        nameless: the number of cells that no command can name: those of modules and images made in Python.
    """

    lines: list[str]
    paths: Mapping[str, str]
    nameless: int


def commands(
    records: Sequence[CellRecord], measurements: Sequence[MeasurementRecord], controls: ControlCatalogue
) -> Commands:
    """Return commands that plan the same cells, by the same ids, and request no more than was computed.

    Files and folders are named by their labels, in the directory of the command: the original path would reveal where
    somebody else keeps them. The versions of components are those that are installed.
    """
    checks: dict[str, list[CellRecord]] = {}
    for record in records:
        checks.setdefault(str(record.outcome.identity.get("control_of") or ""), []).append(record)
    metrics_of: dict[str, set[str]] = {}
    for measurement in measurements:
        metrics_of.setdefault(measurement.job_id, set()).add(measurement.measurement.metric)
    own = checks.pop("", [])
    named = [record for record in own if not _made_in_python(record.outcome.identity)]
    lines = [
        _options(record.outcome.identity)
        | _weight_seeds(record, checks.get(record.cell_id, ()), controls)
        | {"metrics": _in_order(metrics), "controls": tuple(names)}
        for record in named
        for metrics, names in _names_by_metrics(record, checks.get(record.cell_id, ()), metrics_of, controls).items()
    ]
    with_cells = {_job_id(record) for record in records}
    lines += [
        _options(dict(measurement.identity)) | {"metrics": _in_order(metrics_of[measurement.job_id])}
        for measurement in measurements
        if measurement.job_id not in with_cells and not _made_in_python(measurement.identity)
    ]
    lines = _with_metrics(lines)
    for name in _CROSSED:
        lines = _joined(lines, name)
        if name == "test_images":
            lines = [_with_test_images(line) for line in lines]
    labels = {
        record.outcome.identity[part]["label"] for record in named for part in ("weights", "images", "test_images")
    }
    paths = {_option_value(label): label for label in sorted(labels) if label.startswith(_FILES)}
    return Commands([_line(line, controls) for line in _with_none(lines)], paths, len(own) - len(named))


def _job_id(record: CellRecord) -> str:
    return identify({key: value for key, value in record.outcome.identity.items() if key not in _OF_CELLS})


def _names_by_metrics(
    record: CellRecord, checks: Iterable[CellRecord], metrics_of: Mapping[str, set[str]], controls: ControlCatalogue
) -> dict[frozenset[str], list[str]]:
    """Return the controls of a cell by the metrics that they were scored by; the first metrics are the cell's own.

    A control that was scored by fewer metrics needs a command of its own, which would otherwise find it incomplete.

    Args:
        metrics_of: the metrics that each job was measured by.
    """
    whole = frozenset(metrics_of.get(_job_id(record), ()))
    own = frozenset(score.metric for score in record.outcome.scores) | whole
    by_control: dict[str, frozenset[str]] = {}
    for check in checks:
        control = controls.of_check(check.outcome.identity["control"])
        scored = frozenset(score.metric for score in check.outcome.scores) or own
        if control and control.measured:
            scored |= metrics_of.get(_job_id(check), set())
        elif scored >= own - whole:
            scored = own
        if control:
            by_control[control.name] = by_control.get(control.name, own) & scored
    by_metrics: dict[frozenset[str], list[str]] = {own: []}
    for control in controls:
        if control.name in by_control:
            by_metrics.setdefault(by_control[control.name], []).append(control.name)
    return by_metrics


def _weight_seeds(record: CellRecord, checks: Iterable[CellRecord], controls: ControlCatalogue) -> Options:
    """Return the seeds of untrained weights that a trained network is compared with, unless they are the default."""
    default_seeds: set[str] = set()
    labels: list[str] = []
    for check in checks:
        control = controls.of_check(check.outcome.identity["control"])
        if control and control.default_seeds:
            default_seeds.update(map(str, control.default_seeds))
            labels.append(check.outcome.identity["weights"]["label"])
    seeds = tuple(dict.fromkeys(label.removeprefix("random:") for label in labels))
    named = record.outcome.identity["seed"] is None and {*seeds} - default_seeds
    return {"seeds": seeds} if named else {}


def _in_order(metrics: Iterable[str]) -> tuple[str, ...]:
    """Return metrics in their default order, others after them."""
    default = RunConfig.metrics
    return tuple(sorted(metrics, key=lambda name: (default.index(name) if name in default else len(default), name)))


def _with_metrics(lines: Sequence[Options]) -> list[Options]:
    """Give lines of cells without scores the metrics of other lines with the same settings."""
    apart = {"metrics", *_CROSSED}

    def settings(line: Options) -> list[tuple[str, tuple[str, ...]]]:
        return [(name, values) for name, values in line.items() if name not in apart]

    scored = [line for line in lines if line["metrics"]]
    return [
        line
        if line["metrics"]
        else line | {"metrics": next((other["metrics"] for other in scored if settings(other) == settings(line)), ())}
        for line in lines
    ]


def _with_test_images(line: Options) -> Options:
    """Name a line's test sources where that is needed: where there are more than the training source itself."""
    sources = line["test_images"]
    if line["crossed"] and _ITSELF not in sources:
        # A source is split between training and testing only where one run uses it in both roles.
        sources = (_ITSELF, *sources)
    named = () if sources == (_ITSELF,) else tuple(source or line["images"][0] for source in sources)
    return line | {"test_images": named}


def _made_in_python(identity: Mapping[str, Any]) -> bool:
    return any(identity[part]["label"].startswith(_PYTHON) for part in ("weights", "images", "test_images"))


def _options(identity: Mapping[str, Any]) -> Options:
    """Return the options of a cell, or of a job without cells, from its identity."""
    backbone, weights = identity["backbone"]["name"], identity["weights"]["label"]
    images, test_images = (_option_value(identity[part]["label"]) for part in ("images", "test_images"))
    mode, _, weight_seed = weights.partition(":")
    seed = weight_seed if mode == "random" else identity.get("seed")
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
            "file": (f"{backbone}={_option_value(weights)}",),
        }.get(mode, ("pretrained",)),
        "seeds": () if seed is None else (str(seed),),
        "controls": (),
    }


def _option_value(label: str) -> str:
    """Return a label as an option takes it: a file or folder without its hash, as a placeholder path."""
    return f"./{label.partition(':')[2].rpartition('@')[0]}" if label.startswith(_FILES) else label


def _joined(lines: Iterable[Options], name: str) -> list[Options]:
    """Join lines that differ only in this option."""
    groups: dict[tuple[tuple[str, tuple[str, ...]], ...], dict[str, None]] = {}
    for line in lines:
        rest = tuple((key, values) for key, values in line.items() if key != name)
        groups.setdefault(rest, {}).update(dict.fromkeys(line[name]))
    return [{name: tuple(values), **dict(rest)} for rest, values in groups.items()]


def _with_none(lines: Sequence[Options]) -> list[Options]:
    """Add the control `none` to lines of networks with the same settings; it keeps a line of its own otherwise."""
    joined = [line for line in lines if line["backbones"] != (CONTROL,)]
    for line in (line for line in lines if line["backbones"] == (CONTROL,)):
        for other in joined:
            if _without_network(other) == _without_network(line):
                other["backbones"] += (CONTROL,)
                break
        else:
            joined.append(line)
    return joined


def _without_network(line: Options) -> Options:
    return {name: values for name, values in line.items() if name not in _OF_NETWORKS}


def _line(options: Options, controls: ControlCatalogue) -> str:
    """Return a command as it is typed, without options that have their default."""
    words = ["posbench", "run"]
    for option in fields(RunConfig):
        values = options.get(option.name, ())
        if option.name == "controls" and len(values) == len(controls):
            values = (ALL_CONTROLS,)
        default = option.default if isinstance(option.default, tuple) else (option.default,)
        if values and values != tuple(map(str, default)):
            words += ["--" + option.name.replace("_", "-"), ",".join(values)]
    return shlex.join(words)
