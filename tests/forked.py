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

_PARENT = """
import json, os, sys, traceback
import timm, torch
from posbench import engine, ingredients, leaderboard, render
from posbench.cli import main

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
    folder: Path

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Its exit code; minus a signal's number, if that ended it."""
        return self.forks.ask({"wait": self.pid})

    @property
    def out(self) -> str:
        return (self.folder / f"{self.pid}.out").read_text()

    @property
    def err(self) -> str:
        return (self.folder / f"{self.pid}.err").read_text()


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

    def start(self, folder: Path, *arguments: str, site: Path, **environment: str) -> Command:
        self._started += 1
        out, err = (folder / f"{self._started}.{kind}" for kind in ("out", "err"))
        asked = {"arguments": arguments, "folder": str(folder), "out": str(out), "err": str(err), "path": [str(site)]}
        pid = self.ask({**asked, "environment": {"HF_HUB_OFFLINE": "1", **environment}})
        for path in (out, err):
            path.touch()
            (folder / f"{pid}{path.suffix}").unlink(missing_ok=True)
            (folder / f"{pid}{path.suffix}").symlink_to(path)
        return Command(self, pid, folder)

    def run(self, folder: Path, *arguments: str, site: Path, **environment: str) -> tuple[int, str, str]:
        command = self.start(folder, *arguments, site=site, **environment)
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
