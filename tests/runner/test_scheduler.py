"""How workers are handed tasks and seen to, with workers that say what a test has written down."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence

import pytest

from posbench.bench.engine import JobResult, failed_result
from posbench.bench.plan import Task, TaskIds
from posbench.core.errors import PosbenchError
from posbench.runner.scheduler import Workers
from posbench.runner.transport import Gone, Message
from tests.bench.test_engine import CIRCULAR, ZERO, H, Log, plan

TASKS = plan(paddings=[ZERO, CIRCULAR], targets=[H]).tasks()
START: list[Message] = [("hired",), ("ready",)]
DONE: list[Message] = [("started",), ("saw", 3), ("done", failed_result(TASKS[0], PosbenchError("as told")))]
DIES: Message = ("dies",)


class Scripted:
    """A worker that says what it is given to say; `dies` is its end."""

    visiting = " in padding 'edge'"

    def __init__(self, says: Sequence[Message]) -> None:
        self.says, self.sent, self.forced = deque(says), list[int](), list[bool]()

    def send(self, asked: Sequence[TaskIds]) -> None:
        self.sent.append(len(asked))

    def receive(self) -> Message:
        message = self.says.popleft()
        if message == DIES:
            raise Gone("exit 7")
        return message

    def end(self, *, force: bool) -> None:
        self.forced.append(force)


class Crew:
    """Workers that say what is written down for each in turn."""

    def __init__(self, *scripts: Sequence[Message]) -> None:
        self.scripts, self.hired, self.closed = deque(scripts), list[Scripted](), 0

    def hire(self) -> Scripted:
        self.hired.append(Scripted(self.scripts.popleft()))
        return self.hired[-1]

    def wait(self, links: Sequence[Scripted], seconds: float | None) -> Collection[Scripted]:
        speaking = [link for link in links if link.says]
        assert speaking or seconds is not None  # it would wait for ever
        return speaking

    def close(self) -> None:
        self.closed += 1


def reasons(crew: Crew, limit: float | None = None, tasks: Sequence[Task] = TASKS) -> list[list[str]]:
    found: list[tuple[Task, JobResult]] = list(Workers(crew, 1, limit).results(tasks, Log(), list))
    assert [task.job.id for task, _ in found] == [task.job.id for task in tasks]
    assert crew.closed == 1
    return [result.failures for _, result in found]


def test_one_worker_is_given_one_group_after_the_other() -> None:
    crew = Crew([*START, *DONE, *DONE])
    assert reasons(crew) == [["as told"]] * 2
    assert crew.hired[0].sent == [1, 1]
    assert crew.hired[0].forced == [False]


def test_a_job_whose_worker_dies_is_given_to_another_once() -> None:
    assert reasons(Crew([*START, ("started",), DIES], [*START, *DONE, *DONE])) == [["as told"]] * 2
    crew = Crew([*START, ("started",), DIES], [*START, ("started",), DIES], [*START, *DONE])
    assert reasons(crew) == [["its process died 2 times (exit 7) in padding 'edge'"], ["as told"]]


def test_a_worker_that_is_late_is_ended_and_what_it_said_in_time_counts() -> None:
    # All that it says is there at once, long after these deadlines.
    assert reasons(Crew([*START, *DONE, *DONE]), 1e-9) == [["as told"]] * 2
    crew = Crew([*START, ("started",)], [*START, *DONE])
    late = "it took longer than --time-limit 0.1 s, and was ended in padding 'edge'"
    assert reasons(crew, 0.1) == [[late], ["as told"]]
    assert crew.hired[0].forced == [True]


def test_workers_that_die_before_they_have_a_plan_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reasons(Crew([("hired",), DIES], [*START, *DONE, *DONE])) == [["as told"]] * 2
    with pytest.raises(PosbenchError, match=r"^workers do not start \(exit 7 in padding 'edge'\): "):
        reasons(Crew([("hired",), DIES], [DIES]))
    monkeypatch.setattr("posbench.runner.scheduler.PLANNING", 0.1)
    with pytest.raises(PosbenchError, match=r"^workers do not start \(their plan takes longer than 0\.1 s in padding"):
        reasons(Crew([("hired",)], [("hired",)]), 0.01)
    with pytest.raises(PosbenchError, match=r"^workers do not start"):
        reasons(Crew([("hired",)], [("hired",), DIES]), 0.01)
    crew = Crew([("hired",)], [*START, *DONE, *DONE])
    assert reasons(crew, 0.01) == [["as told"]] * 2
    assert crew.hired[0].forced == [True]


def test_what_a_worker_refuses_ends_the_run() -> None:
    with pytest.raises(PosbenchError, match=r"^unknown$"):
        reasons(Crew([("hired",), ("refused", PosbenchError("unknown"))]))
