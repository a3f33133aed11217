"""Calls of components, which are other people's code.

What one raises is told with its name and that of its distribution; what it leaves behind of its process's random
states and of torch's modes is put right, so that no component's numbers depend on what another did before. What is
asked before there are jobs is tried in a process apart, which may hang or end.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import random
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from typing import Any, Protocol, TypeVar

from posbench.core.errors import ComponentError, Inapplicable, PosbenchError, one_line
from posbench.core.processes import STOPPING, end_with_parent, exit_description, interrupt_is_plugins_own
from posbench.plugin.components import Component

T = TypeVar("T")


class PluginCode(Protocol):
    """Whose code runs: a component or a plugin."""

    @property
    def title(self) -> str: ...

    @property
    def foreign(self) -> bool: ...


class StatusBoard(Protocol):
    """Where a worker writes which component it is in, for whoever finds it dead."""

    value: bytes


#: Bytes that a board has room for.
STATUS_BYTES = 512
_board: StatusBoard | None = None


def report_component_on(board: StatusBoard) -> None:
    """From now on, write on this board which component runs."""
    global _board
    _board = board


@contextmanager
def running_component(title: str) -> Iterator[None]:
    """A context in which other people's code runs, which the board names if there is one."""
    if _board is None:
        yield
        return
    before, _board.value = _board.value, title.encode()[: STATUS_BYTES - 1]
    try:
        yield
    finally:
        _board.value = before


@contextmanager
def naming_errors(component: PluginCode, *passing: type[PosbenchError]) -> Iterator[None]:
    """A context in which a component is called: what it raises is told with its name.

    Args:
        component: whose code runs.
        passing: errors besides Inapplicable that it may raise as they are.

    Raises:
        ComponentError: for anything that it raises, calls of `sys.exit` included, but for Inapplicable and what
            posbench's own components say in errors of posbench's own.
    """
    try:
        with running_component(component.title):
            yield
    except BaseException as error:
        if isinstance(error, (Inapplicable, *passing)) or (isinstance(error, PosbenchError) and not component.foreign):
            raise
        if isinstance(error, ComponentError | GeneratorExit) and _is_ours(error):
            raise  # of a component within this one; or a generator that is closed
        if isinstance(error, KeyboardInterrupt) and not interrupt_is_plugins_own():
            raise
        raise ComponentError(f"{component.title}: {describe_error(error)}") from error


def describe_error(error: BaseException) -> str:
    """What an exception says, with its type unless it is posbench's own."""
    return one_line(error) if isinstance(error, PosbenchError) else f"{type(error).__name__}: {one_line(error)}"


def _is_ours(error: BaseException) -> bool:
    """Whether posbench itself raised it."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__")).partition(".")[0] == "posbench"


def call_in_subprocess(guest: PluginCode, function: Callable[[], T], limit: float | None = None) -> T:
    """What a function that runs a plugin's code returns, from a process apart if that code is a third party's.

    For what is asked before there are jobs: its answer is small. In a worker, which is such a process, and on systems
    other than Linux, where copies of a process may not do all that the process may, the function is just called.

    Args:
        guest: whose code runs.
        function: what is to be tried.
        limit: seconds that it may take, or None.

    Raises:
        ComponentError: if the process ends or takes too long.
        Exception: what the function raises.
    """
    if not guest.foreign or _board is not None or sys.platform != "linux":
        return function()
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_try, args=(function, theirs), daemon=True)
    # A copy that is not deaf yet would pass on what it hears, and this process be asked to stop twice by one Ctrl-C.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    try:
        if not ours.poll(limit):
            raise ComponentError(f"{guest.title}: it took longer than --time-limit {limit:g} s, and was ended")
        raised, answer = ours.recv()
    except EOFError:
        process.join()
        raise ComponentError(f"{guest.title}: its process died ({exit_description(process)})") from None
    finally:
        process.kill()
        process.join()
        ours.close()
    if raised:
        raise answer
    return answer  # type: ignore[no-any-return]


def _try(function: Callable[[], object], connection: Connection) -> None:
    end_with_parent()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)  # the threads that it had are not in a copy of its process
    try:
        said = False, function()
    except Exception as error:
        said = True, error if isinstance(error, PosbenchError) else ComponentError(describe_error(error))
    connection.send(said)


def write_count(tensor: Any) -> int:
    """How often a tensor has been written to; torch does not count for those made in inference mode."""
    return 0 if tensor.is_inference() else tensor._version


@contextmanager
def isolated_state(seed: str = "") -> Iterator[None]:
    """A context that begins with random states of its own, and ends with everything as it was before.

    These are the states of Python, NumPy and torch, whether torch follows gradients, and its default dtype. What is not
    imported yet has no state to keep.

    Args:
        seed: a text; the same one begins with the same states.
    """
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4], "big")
    torch, numpy = (sys.modules.get(name) for name in ("torch", "numpy"))
    with ExitStack() as after:
        after.callback(random.setstate, random.getstate())
        random.seed(number)
        if numpy is not None:
            after.callback(numpy.random.set_state, numpy.random.get_state())
            numpy.random.seed(number)
        if torch is not None:
            _settle_torch(torch, number, after)
        yield


def _settle_torch(torch: Any, number: int, after: ExitStack) -> None:
    after.callback(torch.set_default_dtype, torch.get_default_dtype())
    after.callback(torch.set_grad_enabled, torch.is_grad_enabled())
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    after.enter_context(torch.random.fork_rng(devices=devices))
    torch.manual_seed(number)


@contextmanager
def sandboxed(component: Component, seed: str = "") -> Iterator[None]:
    """A context that is both `told` and `isolated_state`."""
    with isolated_state(seed), naming_errors(component):
        yield
