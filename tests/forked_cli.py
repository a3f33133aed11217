"""The command line in processes of its own, to be interrupted and killed.

Importing torch takes seconds. One process does it once, and forks for each command; it never runs anything itself.
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

_PARENT = """
import ctypes, json, os, resource, sys, traceback
import timm, torch
from posbench.bench import engine
from posbench.bench import resolve as ingredients
from posbench.report import rows as leaderboard
from posbench.report import terminal as render
from posbench.cli import main


def give_up_overriding_rights():
    # To be bound by the rights of files and folders, as root is not (capabilities(7): CAP_DAC_OVERRIDE is bit 1).
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    sets[0] &= ~2  # effective
    sets[1] &= ~2  # permitted
    assert libc.capset(header, sets) == 0


for line in sys.stdin:
    asked = json.loads(line)
    if "wait" in asked:
        _, status = os.waitpid(asked["wait"], 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
        continue
    child = os.fork()
    if child:
        print(child, flush=True)
        continue
    os.setsid()
    os.chdir(asked["folder"])
    os.environ.update(asked["environment"])
    sys.path[:0] = asked["path"]
    for number, name in ((0, os.devnull), (1, asked["out"]), (2, asked["err"])):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666), number)
    sys.stdin = open(0, closefd=False)
    if asked["room"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (asked["room"],) * 2)
    if asked["bound"]:
        give_up_overriding_rights()
    sys.argv = ["posbench", *asked["arguments"]]
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
    """A command that runs, or has run."""

    forks: Forks
    pid: int
    _out: Path
    _err: Path

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Its exit code; minus a signal's number, if that ended it."""
        return self.forks.ask({"wait": self.pid})

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()


class Forks:
    """Where commands come from: `start` one, or `run` it to its end."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._started = 0

    def ask(self, question: dict[str, object]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def start(
        self,
        folder: Path,
        *arguments: str,
        site: Path,
        room: int = 0,
        bound: bool = False,
        said: Path | None = None,
        out: Path | None = None,
        **environment: str,
    ) -> Command:
        """Start a command.

        Args:
            site: a folder of installed packages.
            room: bytes beyond which no file can grow, if not 0: what it writes beyond fails as on a full disk.
            bound: whether it is bound by the rights of folders, even if root runs it.
            said: a folder for what it says, if not its own.
            out: a file for its standard output, if not one there.
        """
        self._started += 1
        said = said or folder
        out = out or said / f"{self._started}.out"
        err = said / f"{self._started}.err"
        err.touch()
        asked: dict[str, object] = {"arguments": arguments, "folder": str(folder), "out": str(out), "err": str(err)}
        asked |= {"path": [str(site)], "room": room, "bound": bound}
        pid = self.ask({**asked, "environment": {"HF_HUB_OFFLINE": "1", **environment}})
        return Command(self, pid, out, err)

    def run(self, folder: Path, *arguments: str, site: Path, **more: Any) -> tuple[int, str, str]:
        """Its exit code, standard output and standard error."""
        command = self.start(folder, *arguments, site=site, **more)
        return command.wait(), command.out, command.err


@contextmanager
def forks() -> Iterator[Forks]:
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
    ) as process:
        yield Forks(process)
