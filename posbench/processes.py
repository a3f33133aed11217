"""How processes are stopped: by the user, by the system, and with the one that started them."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from types import FrameType

from posbench.errors import Interrupted

#: `prctl`'s first argument to name a signal that a process gets when its parent ends (linux/prctl.h).
_PR_SET_PDEATHSIG = 1


@contextmanager
def interruptible() -> Iterator[None]:
    """A context in which Ctrl-C and SIGTERM mean the same: KeyboardInterrupt at once, and at the second the end.

    Raised once, it lets whatever runs clean up behind itself. Asked again, nothing more is waited for: workers are
    killed, and the process exits with 130. Does nothing outside the main thread, where Python allows no handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = 0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            for child in multiprocessing.active_children():
                child.kill()
            os._exit(Interrupted.exit_code)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_with_parent() -> None:
    """Called in a worker: it is not stopped by signals that are meant for all of a terminal, and ends with its parent.

    Linux ends it whatever it does; elsewhere a thread does, as soon as what runs lets go of the interpreter.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
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
def stdout_elsewhere() -> Iterator[None]:
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
