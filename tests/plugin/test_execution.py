"""The types that plugin authors see: all of them are public."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import posbench
from posbench.plugin import components, execution
from posbench.plugin.execution import TaskIds, groups

PUBLIC = {name: getattr(posbench, name) for name in posbench.__all__}
RECORDS = [
    record
    for module in (components, execution)
    for record in vars(module).values()
    if inspect.isclass(record) and record.__module__ == module.__name__
]


def types_in(hint: Any) -> Iterator[type]:
    """Yield the classes that a type hint names."""
    arguments = [
        argument for given in typing.get_args(hint) for argument in (given if isinstance(given, list) else [given])
    ]
    for argument in arguments:
        yield from types_in(argument)
    if inspect.isclass(hint) and not arguments:
        yield hint


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_hints_name_only_public_types(record: type) -> None:
    known = PUBLIC | {"np": np, "torch": torch, "NDArray": NDArray, "Path": Path}
    methods = [method for name, method in vars(record).items() if inspect.isfunction(method) and name[0] != "_"]
    for documented in [record, *methods]:
        # A name that is imported for type checkers alone, and is not public, is a NameError.
        for hint in typing.get_type_hints(documented, localns=known).values():
            for named in types_in(hint):
                assert named in PUBLIC.values() or not named.__module__.startswith("posbench."), (documented, named)


def test_tasks_that_share_features_are_a_group() -> None:
    tasks = [TaskIds(job, (), (), features) for job, features in (("a", "x"), ("b", "x"), ("c", "y"), ("d", "x"))]
    assert [[task.job_id for task in group] for group in groups(tasks)] == [["a", "b"], ["c"], ["d"]]
    assert list(groups([])) == []
