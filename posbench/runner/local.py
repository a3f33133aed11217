"""The executor `local`: this process, or worker processes on this machine."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait

import torch

from posbench.plugin.execution import Pool, RunOptions
from posbench.runner.scheduler import WorkerPool
from posbench.runner.transport import WorkerProcess
from posbench.runner.worker import Worker


def start(options: RunOptions) -> Pool:
    """Return worker processes if several jobs run at once or have a time limit, else a pool in this process."""
    if (options.jobs or 1) > 1 or options.time_limit is not None:
        return worker_pool(options, options.jobs or 1)
    return Worker(options.config)


def worker_pool(options: RunOptions, count: int) -> WorkerPool:
    """Return worker processes on this machine that share the processor's threads equally."""
    threads = max(1, torch.get_num_threads() // count)
    return WorkerPool(ProcessLauncher(options.config, threads), count, options.time_limit)


@dataclass(frozen=True)
class ProcessLauncher:
    """Starts worker processes on this machine.

    Attributes:
        config: the `config` of `RunOptions`.
        threads: the number of threads of each process.
    """

    config: object
    threads: int

    def start_worker(self) -> WorkerProcess:
        return WorkerProcess(self.config, self.threads)

    def wait(self, workers: Sequence[WorkerProcess], seconds: float | None) -> Collection[WorkerProcess]:
        ready = wait([worker.connection for worker in workers], seconds)
        return [worker for worker in workers if worker.connection in ready]

    def close(self) -> None:
        """Do nothing: the processes hold no shared resources."""
