"""The executor `ray`: jobs on a Ray cluster, which posbench asks for room and tells what to compute.

An actor of Ray is a worker process somewhere in the cluster, with the processors and GPUs that a job is declared to
take. Results come back to the process that asked, which alone writes the store.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections import Counter, deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import floor
from pathlib import Path
from time import monotonic
from typing import Any

from posbench.engine import JobResult, Observer, struck
from posbench.errors import MissingError, PosbenchError, UsageError, one_line
from posbench.executors import Claim, Pool
from posbench.plan import Plan, Task, TaskIds, groups
from posbench.selection import LOCAL, Selection
from posbench.working import Worker

#: How often a job is given to another worker when its own has died, which may have been no fault of the job's.
RETRIES = 1
#: Seconds that a cluster has to answer at its address.
PATIENCE = 5.0


def start_ray(selection: Selection, plan: Plan, device: str) -> Pool:
    """Workers on a Ray cluster: that of `--ray-address` or `RAY_ADDRESS`, else one that is started on this machine.

    Raises:
        MissingError: without Ray.
        UsageError: if there is no cluster at the address, or no node of it has what a job is declared to take.
    """
    # Ray would report how it is used; it is to stay out of a benchmark's output, too.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise MissingError("--executor ray needs Ray: pip install 'posbench[ray]'") from error
    ours = not ray.is_initialized()
    if ours:
        _join(selection.ray_address or os.environ.get("RAY_ADDRESS") or "local")
    needs = {"CPU": float(selection.cpus_per_job or 1), "GPU": selection.gpus_per_job or 0.0}
    try:
        room = _room([node["Resources"] for node in ray.nodes() if node["Alive"]], needs)  # type: ignore[no-untyped-call]
    except UsageError:
        if ours:
            ray.shutdown()
        raise
    # What the driver found of its own machine does not hold for others: they are told.
    told = replace(
        selection,
        device=device,
        precision=plan.cells[0].job.precision,
        executor=LOCAL,
        cpus_per_job=None,
        gpus_per_job=None,
        ray_address=None,
    )
    return RayWorkers(told, needs, min(room, selection.jobs or room), selection.time_limit, ours)


def _join(address: str) -> None:
    """Connect to a cluster.

    Raises:
        UsageError: if none answers.
    """
    import ray

    # Ray would go on asking for minutes, and complain at length.
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if host and port.isdecimal():
            socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()
        # It also takes SIGTERM for itself, which here means the same as Ctrl-C.
        before = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        said = f"no Ray cluster answers at {address!r} ({one_line(error)}): check --ray-address and RAY_ADDRESS"
        raise UsageError(said) from error


def _room(nodes: Sequence[dict[str, float]], needs: dict[str, float]) -> int:
    """How many jobs these nodes can run at once.

    Raises:
        UsageError: if it is none.
    """
    asked = {name: much for name, much in needs.items() if much}
    room = sum(min(floor(node.get(name, 0.0) / much) for name, much in asked.items()) for node in nodes)
    if not room:
        has = "; ".join(", ".join(f"{node.get(name, 0.0):g} {name}" for name in needs) for node in nodes)
        takes = ", ".join(f"{much:g} {name}" for name, much in asked.items())
        raise UsageError(
            f"no node of the Ray cluster has what a job takes ({takes}); they have {has or 'nothing'}: "
            "give less with --cpus-per-job and --gpus-per-job"
        )
    return room


class Actor:
    """What runs as an actor: a `posbench.Worker`, one task after the other, in the folder of whoever asks."""

    def __init__(self, selection: Selection, threads: int, folder: str) -> None:
        self._selection, self._threads, self._folder = selection, threads, folder
        self._worker: Worker | None = None
        self._results: Iterator[JobResult] = iter(())
        self._images = 0

    def begin(self, asked: Sequence[TaskIds]) -> None:
        """Take on a group of tasks; the first time, make the plan."""
        if self._worker is None:
            if Path(self._folder).is_dir():
                os.chdir(self._folder)  # where relative paths of the selection stand, if the nodes share a disk
            self._worker = Worker(self._selection, self._threads)
        self._results = self._worker.results(asked, self)

    def compute(self) -> tuple[int, JobResult]:
        """The next task of the group: how many images went through the network, and what became of it."""
        self._images = 0
        result = next(self._results)
        return self._images, result

    def started(self, job: Any) -> None: ...

    def saw(self, job: Any, images: int) -> None:
        self._images += images

    def finished(self, job: Any, result: object) -> None: ...


@dataclass
class _Slot:
    """An actor, the tasks that it was given and has not finished, and what it was last asked for."""

    actor: Any
    tasks: deque[Task] = field(default_factory=deque)
    awaited: Any = None
    begun: bool = False
    deadline: float = float("inf")


@dataclass(frozen=True)
class RayWorkers:
    """Runs tasks on a Ray cluster; jobs that share features go to one worker, one after the other.

    Attributes:
        selection: what the plan is made from there.
        needs: the processors and GPUs that a job takes.
        count: how many jobs run at once.
        time_limit: seconds that a job may take, or None.
        ours: the connection to the cluster ends with the pool.
    """

    selection: Selection
    needs: dict[str, float]
    count: int
    time_limit: float | None
    ours: bool

    def results(self, tasks: Sequence[Task], observer: Observer, claim: Claim) -> Generator[tuple[Task, JobResult]]:
        import ray

        waiting = deque(deque(group) for group in groups(tasks))
        slots: list[_Slot] = []
        deaths: Counter[str] = Counter()
        try:
            while waiting or any(slot.tasks for slot in slots):
                idle = [slot for slot in slots if not slot.tasks]
                while waiting and (idle or len(slots) < self.count):
                    if not (group := claim(waiting.popleft())):
                        continue
                    if not idle:
                        slots.append(_Slot(self._actor()))
                    slot = idle.pop() if idle else slots[-1]
                    slot.tasks, slot.begun = deque(group), False
                    slot.awaited = slot.actor.begin.remote([task.ids for task in group])
                if any(slot.tasks for slot in slots):
                    yield from self._heard(slots, waiting, deaths, observer)
        finally:
            for slot in slots:
                ray.kill(slot.actor)
            if self.ours:
                ray.shutdown()

    def _actor(self) -> Any:
        import ray

        options = {"num_cpus": self.needs["CPU"], "num_gpus": self.needs["GPU"], "max_restarts": 0}
        made: Any = ray.remote(Actor).options(**options)
        return made.remote(self.selection, floor(self.needs["CPU"]), str(Path.cwd()))

    def _heard(
        self, slots: list[_Slot], waiting: deque[deque[Task]], deaths: Counter[str], observer: Observer
    ) -> Iterator[tuple[Task, JobResult]]:
        """Wait until a worker answers, dies or is late, and see to it."""
        import ray

        busy = [slot for slot in slots if slot.tasks]
        first = min(slot.deadline for slot in busy)
        patience = None if first == float("inf") else max(0.0, first - monotonic())
        answered, _ = ray.wait([slot.awaited for slot in busy], timeout=patience)
        for slot in busy:
            task = slot.tasks[0]
            if slot.awaited in answered:
                try:
                    answer = ray.get(slot.awaited)
                except ray.exceptions.RayTaskError as error:
                    # Whatever a job does wrong is in its result: this is something that the user has to mend.
                    cause = getattr(error, "cause", error)
                    kind = type(cause) if isinstance(cause, PosbenchError) else PosbenchError
                    raise kind(f"on the cluster: {one_line(cause)}") from error
                except ray.exceptions.RayError as error:
                    slots.remove(slot)
                    deaths[task.job.id] += 1
                    if deaths[task.job.id] > RETRIES and not slot.begun:
                        said = f"workers do not start on the cluster ({one_line(error)})"
                        raise PosbenchError(
                            f"{said}: posbench and its plugins must be installed on every node"
                        ) from error
                    if deaths[task.job.id] > RETRIES:
                        slot.tasks.popleft()
                        died = f"its worker on the cluster died {deaths[task.job.id]} times ({one_line(error)})"
                        yield task, struck(task, PosbenchError(died))
                    if slot.tasks:
                        waiting.appendleft(slot.tasks)
                    continue
                if slot.begun:
                    images, result = answer
                    observer.saw(task.job, images)
                    slot.tasks.popleft()
                    slot.deadline = float("inf")
                    yield task, result
                if slot.tasks:
                    self._next(slot, observer)
            elif slot.deadline <= monotonic():
                slots.remove(slot)
                ray.kill(slot.actor)
                slot.tasks.popleft()
                if slot.tasks:
                    waiting.appendleft(slot.tasks)
                late = f"it took longer than --time-limit {self.time_limit:g} s, and was ended"
                yield task, struck(task, PosbenchError(late))

    def _next(self, slot: _Slot, observer: Observer) -> None:
        """Have a worker that is ready compute the next of its tasks."""
        slot.begun = True
        observer.started(slot.tasks[0].job)
        slot.awaited = slot.actor.compute.remote()
        slot.deadline = monotonic() + (self.time_limit or float("inf"))
