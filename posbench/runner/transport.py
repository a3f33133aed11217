"""Worker processes, and how who asks hears of them. Imports no torch: the processes do."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from posbench.bench.plan import TaskIds
from posbench.core.errors import PosbenchError
from posbench.core.malloc import keep_freed_memory
from posbench.core.processes import end_with_parent, exit_description
from posbench.plugin.sandbox import STATUS_BYTES, report_component_on

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from posbench.bench.config import RunConfig

#: Seconds that a worker has to go by itself before it is ended.
GRACE = 5.0

#: What a worker says, and with it:
#: `hired` (it begins to make the plan), `ready` (it has), `refused` (it cannot: an error that ends the run); of each
#: task `started`, `saw` (how many images) and `done` (its result); `alive`, where it says nothing.
Message = tuple[Any, ...]


class Gone(Exception):  # noqa: N818  it is no error of anyone's
    """A worker has ended; says how."""


class Link(Protocol):
    """A worker, wherever it is.

    Attributes:
        visiting: the component that it runs or ran last, ` in padding 'edge' of …`, or nothing.
    """

    @property
    def visiting(self) -> str: ...

    def send(self, asked: Sequence[TaskIds]) -> None:
        """Have it compute tasks that share features. If it has ended, that is heard when it is asked for a message."""
        ...

    def receive(self) -> Message:
        """What it says next.

        Raises:
            Gone: if it has ended.
        """
        ...

    def end(self, *, force: bool) -> None:
        """See it off, at once or as soon as it goes by itself."""
        ...


class LocalLink:
    """A worker process of this machine.

    Args:
        selection: what the plan is made from there.
        threads: of the processor, for torch.
    """

    def __init__(self, config: RunConfig, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._board = context.RawArray("c", STATUS_BYTES)
        self._process = context.Process(target=_work, args=(theirs, self._board, config, threads), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def visiting(self) -> str:
        title = self._board.value.decode(errors="replace")
        return f" in {title}" if title else ""

    def send(self, asked: Sequence[TaskIds]) -> None:
        with suppress(OSError):
            self.connection.send(asked)

    def raw(self) -> bytes:
        """What it says next, pickled. Raises as `receive` does."""
        try:
            return self.connection.recv_bytes()
        except (EOFError, OSError):
            self.end(force=False)
            raise Gone(exit_description(self._process)) from None

    def receive(self) -> Message:
        message: Message = pickle.loads(self.raw())  # noqa: S301  from a process that this one started
        return message

    def end(self, *, force: bool) -> None:
        self.connection.close()
        if not force:
            self._process.join(GRACE)
        if self._process.is_alive():
            self._process.kill()
        self._process.join()


class _Teller:
    """Tells the process that asked how a job goes on."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def started(self, job: Any) -> None:
        self._connection.send(("started",))

    def saw(self, job: Any, images: int) -> None:
        self._connection.send(("saw", images))

    def finished(self, job: Any, result: object) -> None: ...


def _work(connection: Connection, board: Any, config: RunConfig, threads: int) -> None:
    """The life of a worker: groups of tasks come in, what becomes of each goes out."""
    end_with_parent()
    keep_freed_memory()
    report_component_on(board)
    # Standard output is for tables: what a plugin prints goes elsewhere.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        from posbench.runner.worker import Worker

        connection.send(("hired",))
        worker, teller = Worker(config, threads), _Teller(connection)
        connection.send(("ready",))
        while True:
            asked: list[TaskIds] = connection.recv()
            for result in worker.results(asked, teller):
                connection.send(("done", result))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # whoever asked is gone
    except PosbenchError as error:
        connection.send(("refused", error))
