"""The executors: this machine, and a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterable

from posbench import Executor, Pool, RunOptions, hookimpl


def start_local(options: RunOptions) -> Pool:
    """Compute in this process, or in worker processes."""
    from posbench.runner import local

    return local.start(options)


def start_ray(options: RunOptions) -> Pool:
    """Compute on a Ray cluster."""
    from posbench.runner import ray

    return ray.start(options)


@hookimpl
def posbench_executors() -> Iterable[Executor]:
    return [
        Executor(name="local", summary="this process, or --jobs worker processes", version="1", start=start_local),
        Executor(
            name="ray",
            summary="a Ray cluster, or one started on this machine [extra `ray`]",
            version="1",
            source="Moritz et al., OSDI 2018",
            start=start_ray,
        ),
    ]
