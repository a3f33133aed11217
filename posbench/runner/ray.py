"""The executor `ray`: jobs on a Ray cluster.

An actor reserves the processors and GPUs of a job somewhere in the cluster, and runs a worker process beside it. That
process may die or hang; the actor outlives it and reports the component that it was in, which Ray cannot.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import socket
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import floor
from pathlib import Path
from typing import Any

from posbench.core.errors import MissingError, UsageError, one_line
from posbench.plugin.execution import Pool, RunOptions, TaskIds
from posbench.runner.scheduler import WorkerPool
from posbench.runner.transport import Message, WorkerExited, WorkerProcess

#: Seconds that a cluster has to answer at its address.
CONNECT_SECONDS = 5.0
#: Seconds after which an actor reports the running component, even if the worker has sent no message.
HEARTBEAT_SECONDS = 1.0


def start(options: RunOptions) -> Pool:
    """Return workers on a Ray cluster: that of `ray_address` or `RAY_ADDRESS`, else one started on this machine.

    Raises:
        MissingError: without Ray.
        UsageError: if no cluster answers at the address, or none of its nodes has the resources of one job.
    """
    # Ray reports its use to its makers unless told otherwise; it reads the variable on import.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise MissingError("--executor ray needs Ray: pip install 'position-bench[ray]'") from error
    owns_connection = not ray.is_initialized()
    if owns_connection:
        _connect(options.ray_address or os.environ.get("RAY_ADDRESS") or "local")
    resources = {"CPU": float(options.cpus_per_job or 1), "GPU": options.gpus_per_job or 0.0}
    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        capacity = count_capacity(nodes, resources)
    except UsageError:
        if owns_connection:
            ray.shutdown()
        raise
    launcher = RayLauncher(options.config, resources, owns_connection)
    return WorkerPool(launcher, min(capacity, options.jobs or capacity), options.time_limit)


def _connect(address: str) -> None:
    """Connect to a cluster.

    Raises:
        UsageError: if none answers.
    """
    import ray

    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if host and port.isdecimal():
            # Ray itself would retry for minutes.
            socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
        # Ray installs a handler for SIGTERM, which here means the same as Ctrl-C.
        handler = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, handler)
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        raise UsageError(
            f"no Ray cluster answers at {address!r} ({one_line(error)}): check --ray-address and RAY_ADDRESS"
        ) from error


def count_capacity(nodes: Sequence[dict[str, float]], resources: dict[str, float]) -> int:
    """Return the number of jobs that fit on these nodes at once; a job runs on one node.

    Args:
        nodes: the resources of each node, by name.
        resources: the resources that a job takes, by name.

    Raises:
        UsageError: if no job fits.
    """
    needed = {name: amount for name, amount in resources.items() if amount}
    capacity = sum(min(floor(node.get(name, 0.0) / amount) for name, amount in needed.items()) for node in nodes)
    if not capacity:
        available = "; ".join(", ".join(f"{node.get(name, 0.0):g} {name}" for name in resources) for node in nodes)
        takes = ", ".join(f"{amount:g} {name}" for name, amount in needed.items())
        raise UsageError(
            f"no node of the Ray cluster has what a job takes ({takes}); they have {available or 'nothing'}: "
            "give less with --cpus-per-job and --gpus-per-job"
        )
    return capacity


class WorkerActor:
    """The Ray actor beside a worker process, which passes its messages on.

    Args:
        config: the `config` of `RunOptions`.
        threads: the number of threads of the worker.
        folder: the working directory of the run, for relative paths of images and weights.
    """

    def __init__(self, config: object, threads: int, folder: str) -> None:
        if Path(folder).is_dir():  # else the nodes share no disk
            os.chdir(folder)
        self._worker = WorkerProcess(config, threads)

    def send(self, tasks: Sequence[TaskIds]) -> None:
        self._worker.send(tasks)

    def next_message(self) -> tuple[str, bytes | None, str]:
        """Return the running component, the next message if there is one by now, and how the worker ended if it did.

        The message stays pickled, since unpickling would import torch into the actor's process.
        """
        message, exited = None, ""
        try:
            if self._worker.connection.poll(HEARTBEAT_SECONDS):
                message = self._worker.receive_bytes()
        except WorkerExited as error:
            exited = str(error)
        return self._worker.component, message, exited


class RayConnection:
    """The connection to the worker of an actor."""

    def __init__(self, actor: Any) -> None:
        self.component = ""
        self._actor = actor
        self._reply: Any = None

    @property
    def reply(self) -> Any:
        """The reference to the actor's next reply."""
        self._reply = self._reply or self._actor.next_message.remote()
        return self._reply

    def send(self, tasks: Sequence[TaskIds]) -> None:
        self._actor.send.remote(tasks)

    def receive(self) -> Message:
        import ray

        try:
            self.component, content, exited = ray.get(self.reply)
        except ray.exceptions.RayError as error:
            raise WorkerExited(one_line(error)) from error
        self._reply = None
        if exited:
            raise WorkerExited(exited)
        if content is None:
            return Message("idle")
        message: Message = pickle.loads(content)  # noqa: S301  nodes of the cluster are trusted (SECURITY.md)
        if message.kind == "error":
            raise type(message.value)(f"on the cluster: {one_line(message.value)}")
        return message

    def close(self, *, force: bool) -> None:
        import ray

        ray.kill(self._actor)


@dataclass(frozen=True)
class RayLauncher:
    """Starts workers on a Ray cluster.

    Attributes:
        config: the `config` of `RunOptions`.
        resources: the processors and GPUs that a job takes, by Ray's names `CPU` and `GPU`.
        owns_connection: close the connection to the cluster with the last worker.
    """

    config: object
    resources: dict[str, float]
    owns_connection: bool

    def start_worker(self) -> RayConnection:
        import ray

        options = {"num_cpus": self.resources["CPU"], "num_gpus": self.resources["GPU"], "max_restarts": 0}
        actor: Any = ray.remote(WorkerActor).options(**options)
        return RayConnection(actor.remote(self.config, floor(self.resources["CPU"]), str(Path.cwd())))

    def wait(self, workers: Sequence[RayConnection], seconds: float | None) -> Collection[RayConnection]:
        import ray

        ready, _ = ray.wait([worker.reply for worker in workers], timeout=seconds)
        return [worker for worker in workers if worker.reply in ready]

    def close(self) -> None:
        import ray

        if self.owns_connection:
            ray.shutdown()
