"""How processes are stopped: by the user, by the system, and with the one that started them."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import FrameType

from posbench.core.errors import Interrupted

#: The signals that ask a process to stop.
STOPPING = (signal.SIGINT, signal.SIGTERM)
#: `prctl`'s first argument to name a signal that a process gets when its parent ends (linux/prctl.h).
_PR_SET_PDEATHSIG = 1


#: Whether the user has asked to stop; None outside `interruptible`.
_asked: bool | None = None


@contextmanager
def interruptible() -> Iterator[None]:
    """A context in which Ctrl-C and SIGTERM mean the same: KeyboardInterrupt at once, and at the second the end.

    Raised once, it lets whatever runs clean up behind itself. Asked again, nothing more is waited for: workers are
    killed, and the process exits with 130, even while a library computes. Does nothing outside the main thread, where
    Python allows no handlers.
    """
    global _asked
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _asked = False

    def stop(number: int, frame: FrameType | None) -> None:
        global _asked
        _asked = True
        raise KeyboardInterrupt

    # Python runs handlers only between two of its own steps. A thread hears of signals during a long call, too.
    hearing, telling = socket.socketpair()
    telling.setblocking(False)
    threading.Thread(target=_leave_at_the_second, args=(hearing,), daemon=True).start()
    before = {number: signal.signal(number, stop) for number in STOPPING}
    elsewhere = signal.set_wakeup_fd(telling.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        _asked = None
        signal.set_wakeup_fd(elsewhere)
        for number, handler in before.items():
            signal.signal(number, handler)
        telling.close()


def _leave_at_the_second(hearing: socket.socket) -> None:
    """Read the numbers of signals as they come, and end the process at the second that asks it to stop."""
    asked = 0
    with hearing:
        while number := hearing.recv(1):
            asked += number[0] in STOPPING
            if asked > 1:
                for child in multiprocessing.active_children():
                    child.kill()
                os._exit(Interrupted.exit_code)


def interrupt_is_plugins_own() -> bool:
    """Whether a KeyboardInterrupt that was raised can only be a plugin's own."""
    return _asked is False or signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def exit_description(process: BaseProcess) -> str:
    """How a process that is over has ended."""
    code = process.exitcode or 0
    return f"exit {code}" if code >= 0 else signal.Signals(-code).name


def end_with_parent() -> None:
    """Called in a worker: it is not stopped by signals that are meant for all of a terminal, and ends with its parent.

    Linux ends it whatever it does; elsewhere a thread does, as soon as what runs lets go of the interpreter.
    """
    for number in STOPPING:
        # They reach all processes of a terminal or a job; the one that started this decides what they mean.
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    if not parent.is_alive():
        os._exit(1)  # it ended before it could be asked for

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """A context in which what anything writes to the process's standard output goes to standard error.

    That is for tables; neither a plugin that prints nor a library that does so in C is to spoil them.
    """
    sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:  # there is none
        yield
        return
    try:
        os.dup2(2, 1)
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
