"""The executor `ray`: jobs on a Ray cluster, which posbench asks for room and tells what to compute.

An actor of Ray is a process somewhere in the cluster, with the processors and GPUs that a job is declared to take; it
has a worker beside it. Results come back to the process that asked, which alone writes the store.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import socket
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from math import floor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posbench.bench.config import LOCAL, RunConfig
from posbench.bench.plan import Plan, TaskIds
from posbench.core.errors import MissingError, UsageError, one_line
from posbench.runner.transport import Gone, LocalLink, Message

if TYPE_CHECKING:
    from posbench.runner.jobs import Pool

#: Seconds that a cluster has to answer at its address.
PATIENCE = 5.0
#: Seconds after which an actor says which component its worker is in, if that has nothing else to say.
SILENCE = 1.0


def start_ray(config: RunConfig, plan: Plan, device: str) -> Pool:
    """Workers on a Ray cluster: that of `--ray-address` or `RAY_ADDRESS`, else one that is started on this machine.

    Raises:
        MissingError: without Ray.
        UsageError: if there is no cluster at the address, or no node of it has what a job is declared to take.
    """
    from posbench.runner.scheduler import Workers  # not above: actors, which import this module, need no torch

    # Ray would report how it is used; it is to stay out of a benchmark's output, too.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise MissingError("--executor ray needs Ray: pip install 'position-bench[ray]'") from error
    ours = not ray.is_initialized()
    if ours:
        _join(config.ray_address or os.environ.get("RAY_ADDRESS") or "local")
    needs = {"CPU": float(config.cpus_per_job or 1), "GPU": config.gpus_per_job or 0.0}
    try:
        room = _room([node["Resources"] for node in ray.nodes() if node["Alive"]], needs)  # type: ignore[no-untyped-call]
    except UsageError:
        if ours:
            ray.shutdown()
        raise
    # What the driver found of its own machine does not hold for others: they are told.
    told = replace(
        config,
        device=device,
        precision=plan.cells[0].job.precision,
        executor=LOCAL,
        cpus_per_job=None,
        gpus_per_job=None,
        ray_address=None,
    )
    return Workers(RayCrew(told, needs, ours), min(room, config.jobs or room), config.time_limit)


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
    """What runs as an actor: a worker process beside it, in the folder of whoever asks, and what that says.

    So a worker that dies or hangs leaves somebody who knows in which component it was.
    """

    def __init__(self, config: RunConfig, threads: int, folder: str) -> None:
        if Path(folder).is_dir():
            os.chdir(folder)  # where relative paths of the selection stand, if the nodes share a disk
        self._link = LocalLink(config, threads)

    def send(self, asked: Sequence[TaskIds]) -> None:
        self._link.send(asked)

    def next(self) -> tuple[str, bytes]:
        """Which component runs, and what the worker says next, pickled; at times nothing but that."""
        message = pickle.dumps(("alive",))
        try:
            if self._link.connection.poll(SILENCE):
                message = self._link.raw()
        except Gone as gone:
            message = pickle.dumps(("gone", str(gone)))
        return self._link.visiting, message


class RayLink:
    """An actor, and what it was last asked for."""

    def __init__(self, actor: Any) -> None:
        self.visiting = ""
        self._actor = actor
        self._awaited: Any = None

    @property
    def awaited(self) -> Any:
        """What it says next."""
        self._awaited = self._awaited or self._actor.next.remote()
        return self._awaited

    def send(self, asked: Sequence[TaskIds]) -> None:
        self._actor.send.remote(asked)

    def receive(self) -> Message:
        import ray

        try:
            self.visiting, raw = ray.get(self.awaited)
        except ray.exceptions.RayError as error:
            raise Gone(one_line(error)) from error
        self._awaited = None
        message: Message = pickle.loads(raw)  # noqa: S301  nodes of the cluster are trusted (SECURITY.md)
        kind, *rest = message
        if kind == "gone":
            raise Gone(*rest)
        if kind == "refused":
            raise type(rest[0])(f"on the cluster: {one_line(rest[0])}")
        return message

    def end(self, *, force: bool) -> None:
        import ray

        ray.kill(self._actor)


@dataclass(frozen=True)
class RayCrew:
    """Workers on a Ray cluster.

    Attributes:
        selection: what the plan is made from there.
        needs: the processors and GPUs that a job takes.
        ours: the connection to the cluster ends with the workers.
    """

    config: RunConfig
    needs: dict[str, float]
    ours: bool

    def hire(self) -> RayLink:
        import ray

        options = {"num_cpus": self.needs["CPU"], "num_gpus": self.needs["GPU"], "max_restarts": 0}
        made: Any = ray.remote(Actor).options(**options)
        return RayLink(made.remote(self.config, floor(self.needs["CPU"]), str(Path.cwd())))

    def wait(self, links: Sequence[RayLink], seconds: float | None) -> Collection[RayLink]:
        import ray

        answered, _ = ray.wait([link.awaited for link in links], timeout=seconds)
        return [link for link in links if link.awaited in answered]

    def close(self) -> None:
        import ray

        if self.ours:
            ray.shutdown()
