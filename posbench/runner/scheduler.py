"""Hands tasks out to workers, wherever they are, and sees to those that die or are late."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Protocol, TypeVar

from posbench.bench.engine import JobResult, Observer, failed_result
from posbench.bench.plan import Task, groups
from posbench.core.errors import PosbenchError
from posbench.runner.jobs import Claim
from posbench.runner.transport import Gone, Link, Message

#: How often a job is given to another worker when its own has died, which may have been no fault of the job's.
RETRIES = 1
#: Seconds that a worker has to make its plan where there is a time limit, if that is less.
PLANNING = 60.0
FOR_EVER = float("inf")

L = TypeVar("L", bound=Link)


class Crew(Protocol[L]):
    """Where workers come from."""

    def hire(self) -> L:
        """Start a worker."""
        ...

    def wait(self, links: Sequence[L], seconds: float | None) -> Collection[L]:
        """Those of some workers that have something to say, or have ended, as soon as there are any."""
        ...

    def close(self) -> None:
        """Told when all of them are gone."""
        ...


@dataclass(frozen=True)
class Workers:
    """Runs tasks in processes of their own.

    Jobs that share features go to one worker, one after the other. A worker that dies is replaced, and the job that it
    had in hand is given to another once. One that takes too long is ended, and its job has failed.

    Attributes:
        crew: where workers come from.
        count: how many there are at once.
        time_limit: seconds that a job may take, or None.
    """

    crew: Crew[Any]
    count: int
    time_limit: float | None = None

    def results(self, tasks: Sequence[Task], observer: Observer, claim: Claim) -> Generator[tuple[Task, JobResult]]:
        """As `Pool.results`.

        Raises:
            UsageError, ComponentError, MissingError: if a worker cannot make the plan.
            PosbenchError: if workers die or take too long before they have.
        """
        shift = _Shift(self, observer, claim, deque(deque(group) for group in groups(tasks)))
        try:
            while shift.goes_on():
                yield from shift.heard()
        finally:
            for slot in shift.slots:
                slot.link.end(force=bool(slot.tasks))
            self.crew.close()


@dataclass
class _Slot:
    """A worker, the tasks that it was given and has not finished, and by when it must say that it is done."""

    link: Link
    tasks: deque[Task] = field(default_factory=deque)
    ready: bool = False
    deadline: float = FOR_EVER


@dataclass
class _Shift:
    """What `Workers.results` keeps."""

    workers: Workers
    observer: Observer
    claim: Claim
    waiting: deque[deque[Task]]
    slots: list[_Slot] = field(default_factory=list)
    deaths: Counter[str] = field(default_factory=Counter)
    false_starts: int = 0

    def goes_on(self) -> bool:
        """Hand out what can be; whether there is anything to wait for."""
        idle = [slot for slot in self.slots if not slot.tasks]
        while self.waiting and (idle or len(self.slots) < self.workers.count):
            if not (group := self.claim(self.waiting.popleft())):
                continue
            if not idle:
                self.slots.append(_Slot(self.workers.crew.hire()))
            slot = idle.pop() if idle else self.slots[-1]
            slot.tasks = deque(group)
            slot.link.send([task.ids for task in group])
            if slot.ready:
                self._allow(slot)
        return any(slot.tasks for slot in self.slots)

    def heard(self) -> Iterator[tuple[Task, JobResult]]:
        """Wait until a worker says something, dies or is late, and see to it."""
        busy = [slot for slot in self.slots if slot.tasks]
        first = min(slot.deadline for slot in busy)
        patience = None if first == FOR_EVER else max(0.0, first - monotonic())
        speaking = self.workers.crew.wait([slot.link for slot in busy], patience)
        for slot in busy:
            if slot.link in speaking:
                try:
                    yield from self._told(slot, slot.link.receive())
                except Gone as gone:
                    yield from self._lost(slot, gone)
                    continue
            # What it has said in time may not have been heard yet, since results take time to store.
            if slot.deadline <= monotonic() and not self.workers.crew.wait([slot.link], 0):
                yield from self._late(slot)

    def _allow(self, slot: _Slot, least: float = 0.0) -> None:
        """From now on, the time limit counts."""
        limit = self.workers.time_limit
        slot.deadline = FOR_EVER if limit is None else monotonic() + max(limit, least)

    def _told(self, slot: _Slot, message: Message) -> Iterator[tuple[Task, JobResult]]:
        kind, *rest = message
        task = slot.tasks[0]
        if kind == "hired":
            self._allow(slot, PLANNING)
        elif kind == "ready":
            slot.ready, self.false_starts = True, 0
            self._allow(slot)
        elif kind == "started":
            self.observer.started(task.job)
            self._allow(slot)
        elif kind == "saw":
            self.observer.saw(task.job, *rest)
        elif kind == "refused":
            raise rest[0]
        elif kind == "done":
            slot.tasks.popleft()
            slot.deadline = FOR_EVER
            if slot.tasks:
                self._allow(slot)
            yield task, rest[0]

    def _lost(self, slot: _Slot, gone: Gone) -> Iterator[tuple[Task, JobResult]]:
        """A worker has ended: its job goes to another, or has failed."""
        job = slot.tasks[0].job.id
        if slot.ready:
            self.deaths[job] += 1
            reason = f"its process died {self.deaths[job]} times ({gone}){slot.link.visiting}"
            yield from self._dismissed(slot, reason if self.deaths[job] > RETRIES else None)
        else:
            yield from self._not_started(slot, f"{gone}")

    def _late(self, slot: _Slot) -> Iterator[tuple[Task, JobResult]]:
        limit = self.workers.time_limit or 0.0
        if slot.ready:
            reason = f"it took longer than --time-limit {limit:g} s, and was ended{slot.link.visiting}"
            yield from self._dismissed(slot, reason)
        else:
            yield from self._not_started(slot, f"their plan takes longer than {max(limit, PLANNING):g} s")

    def _not_started(self, slot: _Slot, how: str) -> Iterator[tuple[Task, JobResult]]:
        """A worker has no plan: another may, unless that has happened before."""
        self.false_starts += 1
        if self.false_starts > RETRIES:
            raise PosbenchError(
                f"workers do not start ({how}{slot.link.visiting}): posbench and its plugins must work in a process of "
                "their own, and on a cluster be installed on every node"
            )
        yield from self._dismissed(slot, None)

    def _dismissed(self, slot: _Slot, reason: str | None) -> Iterator[tuple[Task, JobResult]]:
        """End a worker; if there is a reason, its first task has failed. The others wait for another worker."""
        self.slots.remove(slot)
        slot.link.end(force=True)
        if reason:
            task = slot.tasks.popleft()
            yield task, failed_result(task, PosbenchError(reason))
        if slot.tasks:
            self.waiting.appendleft(slot.tasks)
