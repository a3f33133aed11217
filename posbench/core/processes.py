"""Processes: signals, ending with the parent process, and redirection of standard output."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import FrameType

from posbench.core.errors import Interrupted

#: The signals that ask a process to stop.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: The `prctl` option that sets the signal a process gets when its parent ends (linux/prctl.h).
_PR_SET_PDEATHSIG = 1

#: True once a signal asked the process to stop; None outside `interruptible`.
_stop_requested: bool | None = None


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt in this context on Ctrl-C and SIGTERM alike; a second signal ends the process.

    The first signal lets running code clean up. The second kills child processes and exits with 130 at once, even while
    a library computes. Does nothing outside the main thread, where Python allows no signal handlers.
    """
    global _stop_requested
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _stop_requested = False

    def stop(number: int, frame: FrameType | None) -> None:
        global _stop_requested
        _stop_requested = True
        raise KeyboardInterrupt

    # Python runs signal handlers between bytecodes only. A thread that reads the wakeup descriptor notices signals
    # during long calls into C, too.
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    threading.Thread(target=_exit_on_second_signal, args=(receiver,), daemon=True).start()
    handlers = {number: signal.signal(number, stop) for number in STOP_SIGNALS}
    wakeup = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        _stop_requested = None
        signal.set_wakeup_fd(wakeup)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        sender.close()


def _exit_on_second_signal(receiver: socket.socket) -> None:
    """Read signal numbers as they come; end the process at the second one that asks it to stop."""
    requests = 0
    with receiver:
        while number := receiver.recv(1):
            requests += number[0] in STOP_SIGNALS
            if requests > 1:
                for child in multiprocessing.active_children():
                    child.kill()
                os._exit(Interrupted.exit_code)


def is_plugin_interrupt() -> bool:
    """Return True if a KeyboardInterrupt can only have been raised by plugin code: no signal asked to stop."""
    return _stop_requested is False or signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def exit_description(process: BaseProcess) -> str:
    """Return how a finished process ended: its exit code or the name of the signal that killed it."""
    code = process.exitcode or 0
    return f"exit {code}" if code >= 0 else signal.Signals(-code).name


def end_with_parent() -> None:
    """Make this worker process ignore the terminal's signals and end with its parent.

    On Linux the kernel kills it whatever it does. Elsewhere a thread ends it, once running code releases the GIL.
    """
    for number in STOP_SIGNALS:
        # They reach all processes of a terminal or a job; the parent decides what they mean.
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    if not parent.is_alive():
        os._exit(1)  # the parent ended before the signal was set

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send what is written to standard output in this context to standard error.

    Standard output is for tables. The redirection holds for Python code and for libraries in C.
    """
    sys.stdout.flush()
    try:
        saved = os.dup(1)
    except OSError:  # the process has no standard output
        saved = None
    try:
        if saved is not None:
            os.dup2(2, 1)
        with redirect_stdout(sys.stderr):
            yield
    finally:
        if saved is not None:
            sys.stdout.flush()
            os.dup2(saved, 1)
            os.close(saved)
