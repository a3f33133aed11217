"""Where jobs are computed: here, or on a cluster."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from posbench import Executor, hookimpl


def local(*asked: Any) -> Any:
    """See `posbench.start_local`."""
    from posbench import start_local

    return start_local(*asked)


def ray(*asked: Any) -> Any:
    """See `posbench.start_ray`."""
    from posbench import start_ray

    return start_ray(*asked)


@hookimpl
def posbench_executors() -> Iterable[Executor]:
    return [
        Executor(name="local", summary="this process, or --jobs worker processes", version="1", start=local),
        Executor(
            name="ray",
            summary="a Ray cluster, or one started on this machine [extra `ray`]",
            version="1",
            source="Moritz et al., OSDI 2018",
            start=ray,
        ),
    ]
