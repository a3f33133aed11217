"""The executor that comes with every installation: this process, or worker processes of this machine."""

from __future__ import annotations

from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import TYPE_CHECKING

import torch

from posbench.bench.engine import Engine, JobResult, Observer
from posbench.bench.plan import Plan, Task
from posbench.core.device import configure_torch
from posbench.runner.jobs import Claim, Pool
from posbench.runner.scheduler import Workers
from posbench.runner.transport import LocalLink

if TYPE_CHECKING:
    from posbench.bench.config import RunConfig


def start_local(config: RunConfig, plan: Plan, device: str) -> Pool:
    """This process, or worker processes where several jobs are to run at once or any may have to be ended."""
    if (config.jobs or 1) > 1 or config.time_limit is not None:
        return local_workers(config, config.jobs or 1)
    configure_torch(device)
    return Here(plan, device)


def local_workers(config: RunConfig, count: int) -> Workers:
    """Worker processes of this machine, which share out the processor's threads."""
    threads = max(1, torch.get_num_threads() // count)
    return Workers(LocalCrew(config, threads), count, config.time_limit)


@dataclass(frozen=True)
class Here:
    """Runs tasks in this process, one after the other.

    Attributes:
        plan: what the tasks are of.
        device: `cpu` or `cuda`.
    """

    plan: Plan
    device: str

    def results(self, tasks: Sequence[Task], observer: Observer, claim: Claim) -> Generator[tuple[Task, JobResult]]:
        engine = Engine(self.device)
        engine.expect([task.job for task in tasks])
        for task in (mine for one in tasks for mine in claim([one])):
            observer.started(task.job)
            yield task, engine.compute(task, self.plan.metrics, observer)


@dataclass(frozen=True)
class LocalCrew:
    """Processes of this machine.

    Attributes:
        selection: what the plan is made from there.
        threads: of the processor, for each.
    """

    config: RunConfig
    threads: int

    def hire(self) -> LocalLink:
        return LocalLink(self.config, self.threads)

    def wait(self, links: Sequence[LocalLink], seconds: float | None) -> Collection[LocalLink]:
        ready = wait([link.connection for link in links], seconds)
        return [link for link in links if link.connection in ready]

    def close(self) -> None: ...
