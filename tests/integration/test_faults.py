"""Runs that are killed, interrupted or beside each other: nothing is lost, computed twice or left behind."""

from __future__ import annotations

import csv
import io
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.command_line import SMALL
from tests.forked_cli import Command, ForkServer, fork_server

Install = Callable[..., None]

#: Paddings that block in the process whose variable `HOLD` names a folder, and leave a file called by its id there.
HOLDING = """
import os, re, time
from pathlib import Path
from posbench import Padding, hookimpl


def zeros(x, sides):
    import torch.nn.functional as F
    return F.pad(x, sides)


def blocks(x):
    hold = os.environ.get("HOLD")
    if not hold or x.shape[0] == 1:  # nor where posbench tries it on one image
        return False
    Path(hold, str(os.getpid())).touch()
    return True


def holds(x, sides):
    if blocks(x):
        time.sleep(600)
    return zeros(x, sides)


def grips(x, sides):
    if blocks(x):
        re.match("(a+)+$", "a" * 60 + "b")  # without end, and Python runs nothing else meanwhile
    return zeros(x, sides)


def stays(x, sides):
    while blocks(x):
        try:
            time.sleep(600)
        except KeyboardInterrupt:
            Path(os.environ["HOLD"], "asked").touch()
    return zeros(x, sides)


def computes(x, sides):
    import torch
    large = torch.randn(6000, 6000, dtype=torch.float64) if x.shape[0] > 1 else None
    if blocks(x):
        large.svd()  # minutes, in which Python handles no signal
    return zeros(x, sides)


def leaves(x, sides):
    if x.shape[0] > 1:
        os._exit(7)
    return zeros(x, sides)


def talks(x, sides):
    os.write(1, b"I am padding, below Python\\n")
    return zeros(x, sides)


@hookimpl
def posbench_paddings():
    pads = (holds, grips, stays, computes, leaves, talks)
    return [Padding(name=pad.__name__, summary="", version="1", pad=pad) for pad in pads]
"""

RUN = ("run", "--backbones", "tiny", "--paddings", "zero,circular,reflect,replicate", *SMALL, "--csv", "-", "--quiet")


@pytest.fixture(scope="module")
def started() -> Iterator[ForkServer]:
    with fork_server() as server:
        yield server


@pytest.fixture
def site(tiny: str, install: Install, tmp_path: Path) -> Path:
    install("posbench-holding", HOLDING)
    (tmp_path / "hold").mkdir()
    return tmp_path / "site"


def table(text: str) -> list[dict[str, str]]:
    """Return the rows of a CSV without the columns that differ from run to run."""
    rows = csv.DictReader(io.StringIO(text))
    return [{key: value for key, value in row.items() if key not in ("seconds", "created")} for row in rows]


def computed(store: Path) -> Counter[str]:
    """Count how often each job was computed."""
    if not store.exists() or not store.stat().st_size:
        return Counter()
    with sqlite3.connect(store) as connection:
        return Counter(job for (job,) in connection.execute("SELECT job_id FROM runs"))


def wait_until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds; fail after a minute."""
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("the condition does not hold after a minute")


def blocked(folder: Path) -> list[int]:
    """Return the ids of the processes that a padding blocks."""
    return [int(path.name) for path in (folder / "hold").iterdir() if path.name.isdigit()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def leftovers(folder: Path) -> list[str]:
    """Return the files that a run has left, its results included."""
    return sorted(path.name for path in folder.iterdir() if path.name.startswith(("posbench", "one", ".")))


@pytest.mark.long
def test_killed_at_any_moment_it_goes_on(started: ForkServer, site: Path, tmp_path: Path) -> None:
    rng = random.Random(0)  # noqa: S311
    arguments = (*RUN, "--images", "leaves,noise", "--targets", "H,V,G")
    folders = [tmp_path / str(number) for number in range(60)]
    for folder in folders:
        folder.mkdir()
    expected, length = "", 0.0
    for _ in range(2):  # the second reads less from disk
        start = time.monotonic()
        code, expected, err = started.run(folder := folders.pop(), *arguments, site=site)
        length = time.monotonic() - start
        assert code == 0, err
    deaths = 0
    while deaths < 25:
        folder, done = folders.pop(), Counter[str]()
        code = -signal.SIGKILL
        while code == -signal.SIGKILL and deaths < 25:
            command = started.start(folder, *arguments, site=site)
            time.sleep(rng.uniform(0, length))
            command.kill()
            code = command.wait()
            deaths += code == -signal.SIGKILL
            now = computed(folder / "posbench.db")
            assert set(now.values()) <= {1}  # what was committed is not computed again
            assert done <= now  # nor lost
            done = now
        # The last one was not killed, or ended first.
        code, out, err = started.run(folder, *arguments, site=site)
        assert code == 0, err
        assert table(out) == table(expected)
        assert set(computed(folder / "posbench.db").values()) == {1}
        assert leftovers(folder) == ["posbench.db"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_goes_on(number: int, started: ForkServer, site: Path, tmp_path: Path) -> None:
    arguments = (*RUN, "--paddings", "zero,holds,circular")
    command = started.start(tmp_path, *arguments, site=site, HOLD=str(tmp_path / "hold"))
    wait_until(lambda: blocked(tmp_path))
    command.kill(number)
    assert command.wait() == 130
    assert command.out == ""
    assert command.err.splitlines()[-1] == (
        "posbench: interrupted after 1 of 3 jobs; they are stored in 'posbench.db', "
        "and the same command goes on from there"
    )
    assert "Traceback" not in command.err
    assert leftovers(tmp_path) == ["posbench.db"]
    assert len(computed(tmp_path / "posbench.db")) == 1
    code, out, err = started.run(tmp_path, *arguments, site=site)
    assert code == 0, err
    assert [row["status"] for row in table(out)] == ["ok"] * 6
    assert sorted(computed(tmp_path / "posbench.db").values()) == [1, 1, 1]


def test_asked_twice_it_is_out_at_once(started: ForkServer, site: Path, tmp_path: Path) -> None:
    command = started.start(tmp_path, *RUN, "--paddings", "zero,stays", site=site, HOLD=str(tmp_path / "hold"))
    wait_until(lambda: blocked(tmp_path))
    command.kill(signal.SIGINT)
    wait_until((tmp_path / "hold" / "asked").exists)  # the plugin ignores the interrupt
    assert alive(command.pid)
    command.kill(signal.SIGINT)
    assert command.wait() == 130
    assert len(computed(tmp_path / "posbench.db")) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_twice_it_is_out_while_a_library_computes(
    number: int, started: ForkServer, site: Path, tmp_path: Path
) -> None:
    command = started.start(tmp_path, *RUN, "--paddings", "zero,computes", site=site, HOLD=str(tmp_path / "hold"))
    wait_until(lambda: blocked(tmp_path))
    time.sleep(0.5)
    command.kill(number)
    time.sleep(0.5)
    assert alive(command.pid)
    command.kill(number)
    start = time.monotonic()
    assert command.wait() == 130
    assert time.monotonic() - start < 10
    assert len(computed(tmp_path / "posbench.db")) == 1


@pytest.mark.long
def test_killed_with_workers_it_goes_on(started: ForkServer, site: Path, tmp_path: Path) -> None:
    rng = random.Random(1)  # noqa: S311
    arguments, done, deaths = (*RUN, "--jobs", "2"), Counter[str](), 0
    (alone := tmp_path / "alone").mkdir()
    start = time.monotonic()
    code, expected, err = started.run(alone, *arguments, site=site)
    length = time.monotonic() - start
    assert code == 0, err
    assert len(computed(alone / "posbench.db")) == 4
    for _ in range(3):
        command = started.start(tmp_path, *arguments, site=site)
        time.sleep(rng.uniform(0.3 * length, 0.9 * length))
        command.kill()
        deaths += command.wait() == -signal.SIGKILL
        now = computed(tmp_path / "posbench.db")
        assert set(now.values()) <= {1}
        assert done <= now
        done = now
    assert deaths
    code, out, err = started.run(tmp_path, *RUN, site=site)
    assert code == 0, err
    numbers = ("spc", "mae", "r2")
    for row, other in zip(table(out), table(expected), strict=True):
        assert row["cell_id"] == other["cell_id"]
        assert [float(row[name]) for name in numbers] == pytest.approx(
            [float(other[name]) for name in numbers], abs=1e-4
        )
    assert sorted(computed(tmp_path / "posbench.db").values()) == [1] * 4
    assert leftovers(tmp_path) == ["posbench.db"]


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_its_parent(number: int, started: ForkServer, site: Path, tmp_path: Path) -> None:
    arguments = (*RUN, "--paddings", "zero,holds,grips")
    command = started.start(tmp_path, *arguments, "--jobs", "2", site=site, HOLD=str(tmp_path / "hold"))
    wait_until(lambda: len(blocked(tmp_path)) == 2)
    workers = blocked(tmp_path)
    assert command.pid not in workers
    command.kill(number)
    assert command.wait() == (-number if number == signal.SIGKILL else 130)
    wait_until(lambda: not any(alive(worker) for worker in workers))
    assert len(computed(tmp_path / "posbench.db")) == 1
    if number != signal.SIGKILL:
        assert leftovers(tmp_path) == ["posbench.db"]
    code, out, err = started.run(tmp_path, *arguments, site=site)
    assert code == 0, err
    assert [row["status"] for row in table(out)] == ["ok"] * 6
    assert leftovers(tmp_path) == ["posbench.db"]


@pytest.mark.long
def test_a_whole_terminal_that_is_interrupted(started: ForkServer, site: Path, tmp_path: Path) -> None:
    arguments = (*RUN, "--paddings", "zero,holds", "--jobs", "2")
    command = started.start(tmp_path, *arguments, site=site, HOLD=str(tmp_path / "hold"))
    wait_until(lambda: blocked(tmp_path))
    os.killpg(command.pid, signal.SIGINT)
    assert command.wait() == 130
    assert "Traceback" not in command.err
    wait_until(lambda: not any(alive(worker) for worker in blocked(tmp_path)))


def test_several_processes_compute_everything_once(started: ForkServer, site: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    _, expected, _ = started.run(alone, *RUN, site=site)
    orders = (
        "zero,circular,reflect,replicate",
        "replicate,reflect,circular,zero",
        "zero,circular,reflect",
        "reflect,zero",
    )
    commands = [started.start(tmp_path, *RUN, "--paddings", order, site=site) for order in orders]
    for command in commands:
        assert command.wait() == 0, command.err
        assert "lock" not in command.err
    assert sorted(computed(tmp_path / "posbench.db").values()) == [1] * 4
    cells = {row["cell_id"]: row for row in table(expected)}
    for command, order in zip(commands, orders, strict=True):
        shown = table(command.out)
        assert len(shown) == 2 * len(order.split(","))  # its own cells, whichever process computed them
        for row in shown:
            assert row == cells[row["cell_id"]]
    assert leftovers(tmp_path) == ["posbench.db"]


def test_what_one_has_in_hand_when_it_dies_another_takes_over(started: ForkServer, site: Path, tmp_path: Path) -> None:
    arguments = (*RUN, "--paddings", "holds,zero,circular")
    first = started.start(tmp_path, *arguments, site=site, HOLD=str(tmp_path / "hold"))
    wait_until(lambda: blocked(tmp_path))
    second = started.start(tmp_path, *arguments, site=site)
    wait_until(lambda: len(computed(tmp_path / "posbench.db")) == 2)  # all but the job that the first run holds
    time.sleep(0.5)
    assert alive(second.pid)
    assert second.out == ""
    first.kill()
    assert first.wait() == -signal.SIGKILL
    assert second.wait() == 0, second.err
    assert [row["status"] for row in table(second.out)] == ["ok"] * 6
    assert sorted(computed(tmp_path / "posbench.db").values()) == [1, 1, 1]
    assert leftovers(tmp_path) == ["posbench.db"]


@pytest.mark.long
def test_a_job_that_takes_a_run_down_is_a_result_the_next_time(started: ForkServer, site: Path, tmp_path: Path) -> None:
    arguments = (*RUN, "--paddings", "zero,leaves,circular")
    code, out, _ = started.run(tmp_path, *arguments, site=site)
    assert (code, out) == (7, "")
    assert len(computed(tmp_path / "posbench.db")) == 1
    code, out, err = started.run(tmp_path, *arguments, site=site)
    assert code == 1
    reason = "its process died 2 times (exit 7) in padding 'leaves' of posbench-holding 1.0"
    assert {row["padding"]: (row["status"], row["reason"]) for row in table(out)} == {
        "zero": ("ok", ""),
        "circular": ("ok", ""),
        "leaves": ("failed", reason),
    }
    assert reason in err
    assert leftovers(tmp_path) == ["posbench.db"]


def test_what_is_printed_below_python_does_not_spoil_what_is_printed(
    started: ForkServer, site: Path, tmp_path: Path
) -> None:
    code, out, err = started.run(tmp_path, *RUN, "--paddings", "talks", site=site)
    assert code == 0
    assert [row["status"] for row in table(out)] == ["ok"] * 2
    assert "I am padding, below Python" in err
    assert "I am padding" not in out


def test_interrupted_before_and_after_it_computes(started: ForkServer, site: Path, tmp_path: Path) -> None:
    slow = tmp_path / "site" / "posbench_holding.py"
    slow.write_text("import os, time\nopen(os.environ['HOLD'] + '/begun', 'w').close()\ntime.sleep(600)\n")
    command: Command = started.start(tmp_path, *RUN, site=site, HOLD=str(tmp_path / "hold"))
    wait_until((tmp_path / "hold" / "begun").exists)
    command.kill(signal.SIGINT)
    assert command.wait() == 130
    assert command.err == "posbench: interrupted while plugin posbench-holding 1.0 was loaded\n"
