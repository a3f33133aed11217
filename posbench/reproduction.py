"""The commands that would compute a store's results anew, from what identifies the results."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from posbench.boards import CONTROL
from posbench.selection import Selection
from posbench.store import JobRecord, Record

#: The options of one command, each with its values.
Options = dict[str, tuple[str, ...]]
#: What may differ between the cells of one command, as it takes several and crosses them.
_CROSSED = ("targets", "paddings", "backbones", "seeds", "readouts", "images")
#: What the control `none` does not depend on.
_OF_NETWORKS = ("backbones", "paddings", "weights", "seeds", "controls", "taps")
_SETTINGS = {
    "image_size": "image_size",
    "train_count": "n_train",
    "test_count": "n_test",
    "score_at": "score_at",
    "precision": "precision",
}
_FILES = ("file:", "folder:")
_PYTHON = ("module:", "pixels:")


def commands(records: Sequence[Record], readings: Sequence[JobRecord]) -> tuple[list[str], int]:
    """One line for each `posbench run` that it takes; they plan the same cells, by the same ids.

    Files and folders are named as their labels call them, in the directory of the command, since a path would say where
    somebody else had them. The versions of components are those of what is installed.

    Returns:
        The lines, and how many cells no command can give: those of modules and images made in Python.
    """
    checks: dict[str, dict[str, None]] = {}
    for record in records:
        if of := record.outcome.identity.get("control_of"):
            checks.setdefault(str(of), {})[str(record.outcome.identity["control"])] = None
    own = [record for record in records if not record.outcome.identity.get("control")]
    given = [record for record in own if not _made_in_python(record.outcome.identity)]
    metrics = dict.fromkeys(score.metric for record in records for score in record.outcome.scores)
    metrics |= dict.fromkeys(one.reading.metric for one in readings)
    lines = [_options(one.outcome.identity, tuple(checks.get(one.cell_id, ()))) for one in given]
    for name in _CROSSED:
        lines = _joined(lines, name)
    return [_line(one | {"metrics": tuple(metrics)}) for one in _with_none(lines)], len(own) - len(given)


def _made_in_python(identity: Mapping[str, Any]) -> bool:
    return any(identity[part]["label"].startswith(_PYTHON) for part in ("weights", "images", "test_images"))


def _options(identity: Mapping[str, Any], controls: tuple[str, ...]) -> Options:
    backbone, weights = identity["backbone"]["name"], identity["weights"]["label"]
    images, test_images = (_called(identity[part]["label"]) for part in ("images", "test_images"))
    mode, _, drawn = weights.partition(":")
    seed = drawn if mode == "random" else identity["seed"]
    options: Options = {name: (str(identity[key]),) for name, key in _SETTINGS.items()}
    return options | {
        "backbones": (backbone,),
        "paddings": () if backbone == CONTROL else (identity["padding"]["name"],),
        "targets": (identity["target"]["name"],),
        "readouts": (identity["readout"]["name"],),
        "taps": (identity["taps"].replace("+", ","),),
        "images": (images,),
        "test_images": () if test_images == images else (test_images,),
        "weights": {
            "none": (),
            "random": ("random",),
            "file": (f"{backbone}={_called(weights)}",),
        }.get(mode, ("pretrained",)),
        "seeds": () if seed is None else (str(seed),),
        "controls": controls,
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
    for one in fields(Selection):
        values = options.get(one.name, ())
        default = one.default if isinstance(one.default, tuple) else (one.default,)
        if values and values != tuple(map(str, default)):
            words += ["--" + one.name.replace("_", "-"), ",".join(values)]
    return shlex.join(words)
