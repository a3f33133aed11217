"""Scheduling of tasks, with workers that follow a script."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence

import pytest

from posbench.bench.engine import failed_result
from posbench.core.errors import PosbenchError
from posbench.plugin.execution import TaskIds
from posbench.runner.observers import JobObserver
from posbench.runner.scheduler import Result, WorkerPool
from posbench.runner.transport import Message, WorkerExited
from tests.bench.test_engine import CIRCULAR, ZERO, H, plan

TASKS = plan(paddings=[ZERO, CIRCULAR], targets=[H]).tasks()
RESULT = failed_result(TASKS[0], PosbenchError("scripted"))
PLANNING, READY, STARTED = Message("planning"), Message("ready"), Message("started")
START = [PLANNING, READY]
DONE = [STARTED, Message("progress", 3), Message("result", RESULT)]
EXITS = None


class ScriptedWorker:
    """A worker that sends the messages of a script; `EXITS` is its end."""

    component = " in padding 'edge'"

    def __init__(self, script: Sequence[Message | None]) -> None:
        self.script, self.sent, self.closed = deque(script), list[int](), list[bool]()

    def send(self, tasks: Sequence[TaskIds]) -> None:
        self.sent.append(len(tasks))

    def receive(self) -> Message:
        message = self.script.popleft()
        if message is EXITS:
            raise WorkerExited("exit 7")
        return message

    def close(self, *, force: bool) -> None:
        self.closed.append(force)


class Launcher:
    """Starts workers with one script after the other."""

    def __init__(self, *scripts: Sequence[Message | None]) -> None:
        self.scripts, self.started, self.closed = deque(scripts), list[ScriptedWorker](), 0

    def start_worker(self) -> ScriptedWorker:
        self.started.append(ScriptedWorker(self.scripts.popleft()))
        return self.started[-1]

    def wait(self, workers: Sequence[ScriptedWorker], seconds: float | None) -> Collection[ScriptedWorker]:
        ready = [worker for worker in workers if worker.script]
        assert ready or seconds is not None  # else it would wait for ever
        return ready

    def close(self) -> None:
        self.closed += 1


def failures(launcher: Launcher, limit: float | None = None) -> list[str]:
    """Return the message of each job's error, or of its result, all of which are failures."""
    tasks = [task.ids for task in TASKS]
    results: list[Result] = list(WorkerPool(launcher, 1, limit).results(tasks, JobObserver(), list))
    assert [job_id for job_id, _ in results] == [task.job_id for task in tasks]
    assert launcher.closed == 1
    return [str(result) if isinstance(result, PosbenchError) else result.failures[0] for _, result in results]


def test_one_worker_is_given_one_group_after_the_other() -> None:
    launcher = Launcher([*START, *DONE, *DONE])
    assert failures(launcher) == ["scripted"] * 2
    assert launcher.started[0].sent == [1, 1]
    assert launcher.started[0].closed == [False]


def test_a_job_whose_worker_dies_is_given_to_another_once() -> None:
    assert failures(Launcher([*START, STARTED, EXITS], [*START, *DONE, *DONE])) == ["scripted"] * 2
    launcher = Launcher([*START, STARTED, EXITS], [*START, STARTED, EXITS], [*START, *DONE])
    assert failures(launcher) == ["its process died 2 times (exit 7) in padding 'edge'", "scripted"]


def test_a_worker_that_is_late_is_ended_and_what_it_said_in_time_counts() -> None:
    # All messages are there at once, long after these deadlines.
    assert failures(Launcher([*START, *DONE, *DONE]), 1e-9) == ["scripted"] * 2
    launcher = Launcher([*START, STARTED], [*START, *DONE])
    late = "it took longer than --time-limit 0.1 s, and was ended in padding 'edge'"
    assert failures(launcher, 0.1) == [late, "scripted"]
    assert launcher.started[0].closed == [True]


def test_workers_that_die_before_they_have_a_plan_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert failures(Launcher([PLANNING, EXITS], [*START, *DONE, *DONE])) == ["scripted"] * 2
    with pytest.raises(PosbenchError, match=r"^workers do not start \(exit 7 in padding 'edge'\): "):
        failures(Launcher([PLANNING, EXITS], [EXITS]))
    monkeypatch.setattr("posbench.runner.scheduler.PLANNING_SECONDS", 0.1)
    with pytest.raises(PosbenchError, match=r"^workers do not start \(their plan takes longer than 0\.1 s in padding"):
        failures(Launcher([PLANNING], [PLANNING]), 0.01)
    with pytest.raises(PosbenchError, match=r"^workers do not start"):
        failures(Launcher([PLANNING], [PLANNING, EXITS]), 0.01)
    launcher = Launcher([PLANNING], [*START, *DONE, *DONE])
    assert failures(launcher, 0.01) == ["scripted"] * 2
    assert launcher.started[0].closed == [True]


def test_what_a_worker_refuses_ends_the_run() -> None:
    with pytest.raises(PosbenchError, match=r"^unknown$"):
        failures(Launcher([PLANNING, Message("error", PosbenchError("unknown"))]))
