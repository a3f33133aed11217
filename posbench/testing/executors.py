"""Contract check of executors."""

from __future__ import annotations

from collections.abc import Sequence

from posbench.bench.config import RunConfig
from posbench.bench.engine import JobResult
from posbench.bench.resolve import resolve_config
from posbench.plugin.components import Executor
from posbench.plugin.execution import RunOptions, TaskIds
from posbench.plugin.registry import load_registry
from posbench.runner.jobs import CheckedPool
from posbench.runner.observers import JobObserver
from posbench.runner.worker import InProcessPool
from posbench.runner.worker_config import WorkerConfig
from posbench.testing.assertions import expect

#: The largest difference to the scores of this process: other numbers of threads add in another order.
TOLERANCE = 1e-4
CONFIG = RunConfig(
    backbones=("none",),
    images=("leaves", "noise", "black"),
    targets=("H", "G"),
    train_count=8,
    test_count=4,
    image_size=64,
    precision="fp32",
    device="cpu",
)


def check_executor(executor: Executor) -> None:
    """Raise AssertionError unless an executor computes each of three claimed jobs once, with this process's scores.

    The executor is started twice. The first time, it may not claim one of the jobs, as if another run had locked it.
    The second time, its results are closed after the first one, as when a user stops a run.

    Raises:
        ComponentError: if the executor raises, or yields something else than results.
    """
    where = executor.name
    plan = resolve_config(CONFIG, load_registry(), download=False).plan()
    tasks = [task.ids for task in plan.tasks()]
    locked, *free = (task.job_id for task in tasks)
    expected = dict(InProcessPool(plan, "cpu").results(tasks))
    options = RunOptions(config=WorkerConfig(CONFIG), device="cpu")

    def claim(group: Sequence[TaskIds]) -> list[TaskIds]:
        return [task for task in group if task.job_id != locked]

    results = list(CheckedPool.start(executor, options).results(tasks, JobObserver(), claim))
    job_ids = sorted(job_id for job_id, _ in results)
    expect(locked not in job_ids, where, "it computed a job that it could not claim")
    expect(job_ids == sorted(free), where, "it did not compute each claimed job once")
    for job_id, result in results:
        _compare(result, expected[job_id], where)
    stopped = CheckedPool.start(executor, options).results(tasks, JobObserver(), list)
    next(stopped)
    stopped.close()


def _compare(result: JobResult | Exception, expected: JobResult, where: str) -> None:
    if isinstance(result, Exception):
        raise AssertionError(f"{where}: a job has no result: {result}") from result
    for outcome, reference in zip(result.outcomes, expected.outcomes, strict=True):
        status = f"a cell is {outcome.status} ({outcome.reason}), not {reference.status}"
        expect(outcome.status == reference.status, where, status)
        scores, own = ([score.value for score in cell.scores] for cell in (outcome, reference))
        close = len(scores) == len(own) and all(abs(a - b) <= TOLERANCE for a, b in zip(scores, own, strict=True))
        expect(close, where, f"its scores are {scores}, those of this process {own}")
