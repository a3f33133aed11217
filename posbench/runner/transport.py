"""Worker processes and the pipes to them.

Imports no torch: only the worker processes do.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from posbench.core.errors import PosbenchError
from posbench.core.malloc import keep_freed_memory, request_huge_pages
from posbench.core.processes import end_with_parent, exit_description
from posbench.plugin.execution import TaskIds
from posbench.plugin.sandbox import STATUS_BYTES, report_component_on

if TYPE_CHECKING:
    from multiprocessing.connection import Connection


#: Seconds that a worker has to exit by itself before it is killed.
EXIT_SECONDS = 5.0


class Message(NamedTuple):
    """A message from a worker.

    Attributes:
        kind: `planning` and `ready` before its first task; of each task `started`, `progress` and `result`; `error`
            ends the run; `idle` says nothing.
        value: the number of images for `progress`, the JobResult for `result`, the PosbenchError for `error`.
    """

    kind: Literal["planning", "ready", "started", "progress", "result", "error", "idle"]
    value: Any = None


class WorkerExited(Exception):  # noqa: N818  the scheduler decides whether it is an error
    """A worker process has ended; the message says how."""


class WorkerConnection(Protocol):
    """A connection to a worker, wherever it runs."""

    @property
    def component(self) -> str:
        """The component that the worker runs or ran last, such as ` in padding 'edge' of …`, or an empty string."""
        ...

    def send(self, tasks: Sequence[TaskIds]) -> None:
        """Send tasks that share features. If the worker has exited, `receive` raises."""
        ...

    def receive(self) -> Message:
        """Return the worker's next message.

        Raises:
            WorkerExited: if it has ended.
        """
        ...

    def close(self, *, force: bool) -> None:
        """End the worker: kill it at once with `force`, else let it exit by itself."""
        ...


class WorkerProcess:
    """A worker process on this machine.

    Args:
        config: the `config` of `RunOptions`.
        threads: the number of threads that torch uses there.
    """

    def __init__(self, config: object, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, worker_end = context.Pipe()
        self._board = context.RawArray("c", STATUS_BYTES)
        arguments = (worker_end, self._board, config, threads)
        self._process = context.Process(target=_run_worker, args=arguments, daemon=True)
        self._process.start()
        worker_end.close()

    @property
    def component(self) -> str:
        title = self._board.value.decode(errors="replace")
        return f" in {title}" if title else ""

    def send(self, tasks: Sequence[TaskIds]) -> None:
        with suppress(OSError):
            self.connection.send(tasks)

    def receive_bytes(self) -> bytes:
        """Return the worker's next message, pickled. Raises as `receive` does."""
        try:
            return self.connection.recv_bytes()
        except (EOFError, OSError):
            self.close(force=False)
            raise WorkerExited(exit_description(self._process)) from None

    def receive(self) -> Message:
        message: Message = pickle.loads(self.receive_bytes())  # noqa: S301  from a process that this one started
        return message

    def close(self, *, force: bool) -> None:
        self.connection.close()
        if not force:
            self._process.join(EXIT_SECONDS)
        if self._process.is_alive():
            self._process.kill()
        self._process.join()


class _PipeObserver:
    """Sends the progress of jobs through a pipe."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def started(self, job_id: str) -> None:
        self._connection.send(Message("started"))

    def progress(self, job_id: str, images: int) -> None:
        self._connection.send(Message("progress", images))


def _run_worker(connection: Connection, board: Any, config: object, threads: int) -> None:
    """Compute the tasks that come through the pipe and send the results back, until the pipe closes."""
    end_with_parent()
    request_huge_pages()
    keep_freed_memory()
    report_component_on(board)
    # Standard output is for tables: what plugins print goes to standard error.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        from posbench.runner.worker import Worker

        connection.send(Message("planning"))
        worker, observer = Worker(config, threads), _PipeObserver(connection)
        connection.send(Message("ready"))
        while True:
            tasks: list[TaskIds] = connection.recv()
            for _, result in worker.results(tasks, observer):
                connection.send(Message("result", result))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent has ended or closed the pipe
    except PosbenchError as error:
        connection.send(Message("error", error))
