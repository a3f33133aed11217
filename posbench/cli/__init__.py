"""The command line: reads options, calls the packages below, and prints.

Computes nothing itself. Imports no torch until something is computed.
"""

import os
import sys
import threading

from posbench.core.errors import Interrupted
from posbench.core.malloc import keep_freed_memory
from posbench.core.processes import interruptible


def script() -> None:
    """Run the command `posbench`, and exit even if a plugin has left a thread running.

    The process belongs to posbench, so it keeps freed memory; `main` leaves that setting alone.
    """
    keep_freed_memory()
    try:
        main()
    except SystemExit as stop:
        if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(stop.code if isinstance(stop.code, int) else 0)
        raise


def main() -> None:
    """Run the command line; Ctrl-C is handled from before its imports, which take a while."""
    with interruptible():
        try:
            from posbench.cli.app import call
        except KeyboardInterrupt:
            sys.stderr.write("posbench: interrupted\n")
            sys.exit(Interrupted.exit_code)
        call()
