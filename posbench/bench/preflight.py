"""Checks before any job runs for errors that would end all of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from posbench.bench.plan import Job
from posbench.core.errors import ComponentError, UsageError
from posbench.data.crops import split_photographs
from posbench.network.build import build, smallest_size
from posbench.network.weights import Weights
from posbench.plugin.components import Backbone
from posbench.plugin.sandbox import call_in_subprocess


def check(jobs: Sequence[Job], limit: float | None = None) -> set[str]:
    """Check the jobs of a run for errors that would end all of them.

    Returns:
        The ids of jobs whose networks ended the process in which they were tried, or took longer than `limit` seconds
        to build and trace: these should run in a process of their own.

    Raises:
        UsageError: if a network cannot take images this small, or photographs are too few or too many cannot be read.
        MissingError: if a checkpoint that a user names does not fit.
    """
    unsafe: set[Backbone] = set()
    for backbone, size in {(job.backbone, job.image_size) for job in jobs}:
        try:
            smallest = call_in_subprocess(backbone, partial(smallest_size, backbone, size), limit)
        except ComponentError:
            unsafe.add(backbone)
            continue
        if smallest is not None and smallest > size:
            hint = f"give --image-size {smallest}"
            raise UsageError(f"image size {size} is too small for backbone {backbone.name!r}: {hint}")
    named = {(job.backbone, job.weights) for job in jobs if job.weights.path and not job.weights.checkpoint}
    for backbone, weights in named:
        if backbone not in unsafe:
            with suppress(ComponentError):  # its jobs will fail with this error
                call_in_subprocess(backbone, partial(_fits, backbone, weights), limit)
    for train, test, n_test in {(job.train, job.test, job.n_test) for job in jobs}:
        halved = (train.halved, test.halved)
        split_photographs(train.images, test.images, n_test, halved, cross_fitted=train.cross_fitted)
    return {job.id for job in jobs if job.backbone in unsafe}


def _fits(backbone: Backbone, weights: Weights) -> None:
    build(backbone, weights)
