"""A fork server for the command line: commands in processes of their own, to be interrupted and killed.

Importing torch takes seconds. The server does it once and forks for each command; it runs no command itself.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: The server's program. It reads a request a line, as JSON, and answers with one number.
_SERVER = """
import ctypes, json, os, resource, sys, traceback
import timm, torch
from posbench.bench import engine, resolve
from posbench.report import rows, terminal
from posbench.cli import main


def drop_root_access():
    # Make permissions apply to root as well (capabilities(7): CAP_DAC_OVERRIDE is bit 1).
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    sets[0] &= ~2  # effective
    sets[1] &= ~2  # permitted
    assert libc.capset(header, sets) == 0


for line in sys.stdin:
    request = json.loads(line)
    if "wait" in request:
        _, status = os.waitpid(request["wait"], 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
        continue
    child = os.fork()
    if child:
        print(child, flush=True)
        continue
    os.setsid()
    os.chdir(request["folder"])
    os.environ.update(request["environment"])
    sys.path[:0] = request["path"]
    for descriptor, name in ((0, os.devnull), (1, request["out"]), (2, request["err"])):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666), descriptor)
    sys.stdin = open(0, closefd=False)
    if request["max_file_size"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["max_file_size"],) * 2)
    if request["drop_root"]:
        drop_root_access()
    sys.argv = ["posbench", *request["arguments"]]
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code or 0
    except BaseException:
        traceback.print_exc()
        code = 99
    finally:
        sys.stdout.flush()
        os._exit(code)
"""


@dataclass
class Command:
    """A command that runs or has ended."""

    server: ForkServer
    pid: int
    _out: Path
    _err: Path

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Wait for the end; return the exit code, or minus the number of the signal that ended the process."""
        return self.server.request({"wait": self.pid})

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()


class ForkServer:
    """A process that has imported posbench and forks for each command: `start` one, or `run` it to its end."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._started = 0

    def request(self, message: dict[str, object]) -> int:
        """Send one request and return the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def start(
        self,
        folder: Path,
        *arguments: str,
        site: Path,
        max_file_size: int = 0,
        drop_root: bool = False,
        output_folder: Path | None = None,
        out: Path | None = None,
        **environment: str,
    ) -> Command:
        """Start `posbench` with these arguments in `folder`.

        Args:
            site: a folder of installed packages.
            max_file_size: bytes beyond which no file can grow, unless 0; a longer write fails as on a full disk.
            drop_root: make permissions of files and folders apply even if the user is root.
            output_folder: where standard output and error go, by default `folder`.
            out: a file for standard output, by default one in `output_folder`.
        """
        self._started += 1
        output_folder = output_folder or folder
        out = out or output_folder / f"{self._started}.out"
        err = output_folder / f"{self._started}.err"
        err.touch()
        pid = self.request(
            {
                "arguments": arguments,
                "folder": str(folder),
                "out": str(out),
                "err": str(err),
                "path": [str(site)],
                "max_file_size": max_file_size,
                "drop_root": drop_root,
                "environment": {"HF_HUB_OFFLINE": "1", **environment},
            }
        )
        return Command(self, pid, out, err)

    def run(self, folder: Path, *arguments: str, site: Path, **options: Any) -> tuple[int, str, str]:
        """Run a command to its end; return its exit code, standard output and standard error."""
        command = self.start(folder, *arguments, site=site, **options)
        return command.wait(), command.out, command.err


@contextmanager
def fork_server() -> Iterator[ForkServer]:
    """Start a fork server, and end it on exit."""
    with subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
    ) as process:
        yield ForkServer(process)
