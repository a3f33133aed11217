"""Calls of plugin code: errors name the component, and global state is restored.

No component's numbers depend on the state that another one leaves, and code that may hang or die is tried in a process
of its own.
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
from posbench.core.processes import STOP_SIGNALS, end_with_parent, exit_description, is_plugin_interrupt
from posbench.plugin.components import Component

T = TypeVar("T")


class PluginCode(Protocol):
    """The owner of code that is called: a component or a plugin."""

    @property
    def title(self) -> str: ...

    @property
    def foreign(self) -> bool: ...


class StatusBoard(Protocol):
    """Shared memory to which a worker writes the component that it runs."""

    value: bytes


#: The size of a status board in bytes.
STATUS_BYTES = 512
_board: StatusBoard | None = None


def report_component_on(board: StatusBoard) -> None:
    """Write the title of the running component to this board from now on, for the process that finds this one dead."""
    global _board
    _board = board


@contextmanager
def running_component(title: str) -> Iterator[None]:
    """Run plugin code in this context; the status board, if there is one, shows the title meanwhile."""
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
    """Call a component in this context; re-raise any error as ComponentError that names it.

    Raises:
        ComponentError: for any exception, `SystemExit` included. Inapplicable, errors of the types `passing`, errors
            that already name another component, and posbench's errors from its own components are not changed.
    """
    try:
        with running_component(component.title):
            yield
    except BaseException as error:
        own = isinstance(error, PosbenchError) and not component.foreign
        attributed = isinstance(error, ComponentError) and error.attributed
        stopped = isinstance(error, KeyboardInterrupt) and not is_plugin_interrupt()
        if own or attributed or stopped or isinstance(error, (Inapplicable, *passing)):
            raise
        raise attributed_error(f"{component.title}: {describe_error(error)}") from error


@contextmanager
def trusted_callback() -> Iterator[None]:
    """Run posbench's own code, called by plugin code, in this context; `naming_errors` further out keeps its errors."""
    try:
        yield
    except ComponentError as error:
        error.attributed = True
        raise


def attributed_error(message: str) -> ComponentError:
    """Return a ComponentError whose message names the component at fault."""
    error = ComponentError(message)
    error.attributed = True
    return error


def describe_error(error: BaseException) -> str:
    """Return the message of an exception on one line, after its type unless it is posbench's own."""
    return one_line(error) if isinstance(error, PosbenchError) else f"{type(error).__name__}: {one_line(error)}"


def call_in_subprocess(owner: PluginCode, function: Callable[[], T], limit: float | None = None) -> T:
    """Call a function that runs plugin code, in a process of its own if the code is a third party's.

    It is meant for small answers that are needed before any job runs. Workers, which are such processes already, and
    systems other than Linux call the function directly.

    Raises:
        ComponentError: if the process dies or takes longer than `limit` seconds.
        Exception: any error of the function.
    """
    if not owner.foreign or _board is not None or sys.platform != "linux":
        return function()
    # Only `fork` can call closures of plugins, which cannot be pickled, and only it keeps torch and all plugins
    # imported, which takes seconds. The child uses no threads of its parent: it computes with one of its own.
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_result, args=(function, sender), daemon=True)
    # Until the child ignores signals, its handler would write to the parent's wakeup descriptor: one Ctrl-C, which
    # reaches both, would count as two.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    sender.close()
    try:
        if not receiver.poll(limit):
            raise attributed_error(f"{owner.title}: it took longer than --time-limit {limit:g} s, and was ended")
        failed, result = receiver.recv()
    except EOFError:
        process.join()
        raise attributed_error(f"{owner.title}: its process died ({exit_description(process)})") from None
    finally:
        process.kill()
        process.join()
        receiver.close()
    if failed:
        raise result
    return result  # type: ignore[no-any-return]


def _send_result(function: Callable[[], object], connection: Connection) -> None:
    end_with_parent()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)  # torch's other threads do not exist in a forked child
    try:
        answer = False, function()
    except Exception as error:
        answer = True, error if isinstance(error, PosbenchError) else ComponentError(describe_error(error))
    connection.send(answer)


def write_count(tensor: Any) -> int:
    """Return how often a tensor has been written to; 0 in inference mode, where torch does not count."""
    return 0 if tensor.is_inference() else tensor._version


@contextmanager
def isolated_state(seed: str = "") -> Iterator[None]:
    """Seed all random states in this context, and restore all global state at its end.

    The state is that of Python's, NumPy's and torch's generators, torch's gradient mode and its default dtype. Modules
    that are not imported yet have no state. The same seed gives the same random states.
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
            after.callback(torch.set_default_dtype, torch.get_default_dtype())
            after.callback(torch.set_grad_enabled, torch.is_grad_enabled())
            devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
            after.enter_context(torch.random.fork_rng(devices=devices))
            torch.manual_seed(number)
        yield


@contextmanager
def sandboxed(component: Component, seed: str = "") -> Iterator[None]:
    """Call a component in this context: both `naming_errors` and `isolated_state`."""
    with isolated_state(seed), naming_errors(component):
        yield
