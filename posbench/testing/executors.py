"""Whether an executor keeps its contract."""

from __future__ import annotations

from collections.abc import Sequence

from posbench.bench.config import RunConfig
from posbench.bench.engine import JobResult
from posbench.bench.plan import Job, Task
from posbench.bench.resolve import resolve_config
from posbench.plugin.components import Executor
from posbench.plugin.registry import load_registry
from posbench.runner.jobs import Started
from posbench.runner.local import Here
from posbench.testing.assertions import expect

#: How far scores may be from those of this process: threads share out sums in another order.
CLOSE = 1e-4


class _Silent:
    def started(self, job: Job) -> None: ...

    def saw(self, job: Job, images: int) -> None: ...

    def finished(self, job: Job, result: JobResult) -> None: ...


def check_executor(executor: Executor) -> None:
    """Prove on three small jobs that an executor computes what it may, once, and gives the scores of this process.

    It is started twice: one job is refused it the first time, as if another process had it in hand; the second time,
    its results are closed after the first, as when a user stops a run.

    Raises:
        AssertionError: naming what was broken.
        ComponentError: if it raises, or gives what is no result.
    """
    where = executor.name
    config = RunConfig(
        executor=executor.name,
        backbones=("none",),
        images=("leaves", "noise", "black"),
        targets=("H", "G"),
        train_count=8,
        test_count=4,
        image_size=64,
        precision="fp32",
    )
    resolved = resolve_config(config, load_registry(), download=False)
    plan = resolved.plan()
    tasks = list(plan.tasks())
    refused, *granted = (task.job.id for task in tasks)
    expected = {task.job.id: result for task, result in Here(plan, "cpu").results(tasks, _Silent(), list)}

    def claim(group: Sequence[Task]) -> list[Task]:
        return [task for task in group if task.job.id != refused]

    pool = Started.by(executor, config, plan, resolved.device)
    found = [(task.job.id, result) for task, result in pool.results(tasks, _Silent(), claim)]
    expect(refused not in dict(found), where, "it computed a job that it was refused")
    expect(
        sorted(job for job, _ in found) == sorted(granted),
        where,
        "it did not compute each job once that it was granted",
    )
    for job, result in found:
        for one, other in zip(result.outcomes, expected[job].outcomes, strict=True):
            scores, others = ([score.value for score in outcome.scores] for outcome in (one, other))
            expect(one.status == other.status, where, f"a cell is {one.status} ({one.reason}), not {other.status}")
            close = len(scores) == len(others) and all(abs(a - b) <= CLOSE for a, b in zip(scores, others, strict=True))
            expect(close, where, f"its scores are {scores}, those of this process {others}")
    stopped = Started.by(executor, config, plan, resolved.device).results(tasks, _Silent(), list)
    next(stopped)
    stopped.close()
