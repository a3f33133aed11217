"""Jobs in processes of their own: the same table, and whatever a plugin does, the other jobs finish."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from posbench.bench.config import RunConfig
from posbench.bench.engine import JobResult, Observer
from posbench.bench.plan import Plan, Task
from posbench.core.errors import ComponentError, PosbenchError
from posbench.plugin.components import Executor
from posbench.runner.jobs import Claim, Started, run
from posbench.runner.local import Here
from posbench.runner.worker import Worker
from posbench.store.store import Store
from tests.bench.test_engine import CIRCULAR, ZERO, H, Log, plan
from tests.cli.small_runs import RUN, SMALL
from tests.conftest import Ran

Posbench = Callable[..., Ran]
Install = Callable[..., None]

UNRULY = """
import os, time
from posbench import Padding, hookimpl


def zeros(x, sides):
    import torch.nn.functional as F
    return F.pad(x, sides)


def sleeps(x, sides):
    if x.shape[0] > 1:  # not when it is tried on one image
        time.sleep(600)
    return zeros(x, sides)


def leaves(x, sides):
    if x.shape[0] > 1:
        os._exit(7)
    return zeros(x, sides)


def talks(x, sides):
    print("I am padding")
    return zeros(x, sides)


@hookimpl
def posbench_paddings():
    every = {"sleeps": sleeps, "leaves": leaves, "talks": talks}
    return [Padding(name=name, summary="", version="1", pad=pad) for name, pad in every.items()]
"""


def rows(ran: Ran) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(ran.out)))


def test_the_word_of_a_death_is_kept_until_its_job_is_computed(tmp_path: Path) -> None:
    first, second = (plan(paddings=[padding], targets=[H]) for padding in (ZERO, CIRCULAR))
    claims = tmp_path / "store.db-claims"
    jobs = [made.cells[0].job for made in (first, second)]

    def computed(made: Plan) -> list[str]:
        with Store(tmp_path / "store.db") as store:
            tasks = made.tasks(store.finished(made.metrics))
            return [job.id for job, _ in run(tasks, store, Here(made, "cpu"), fail_fast=False, observer=Log())]

    claims.write_text("".join(f"+{job.id}\n" for job in jobs))
    assert computed(first) == [jobs[0].id]
    assert claims.read_text().endswith(f"-{jobs[0].id}\n")  # the other's is kept, which is not of this plan
    claims.write_text("".join(f"+{job.id}\n" for job in jobs))  # the first one's process died once it was stored
    assert computed(second) == [jobs[1].id]
    assert not claims.exists()


@pytest.mark.long
@pytest.mark.usefixtures("tiny")
def test_workers_give_the_same_table(posbench: Posbench) -> None:
    wanted = (*RUN, "--paddings", "zero,circular,reflect", "--csv", "-", "--quiet")
    alone = rows(posbench(*wanted))
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        ran = posbench(*wanted, "--jobs", "2", "--store", "two.db")
    finally:
        torch.set_num_threads(threads)
    assert ran.code == 0, ran.err
    with sqlite3.connect("two.db") as store:
        shares = store.execute("SELECT json_extract(provenance, '$.threads') FROM runs").fetchall()
    assert shares == [(2,)] * 3  # half of four each
    together = rows(ran)
    assert [row["cell_id"] for row in together] == [row["cell_id"] for row in alone]
    for one, other in zip(alone, together, strict=True):
        for metric in ("spc", "mae", "r2"):
            # Threads share out sums in another order.
            assert float(other[metric]) == pytest.approx(float(one[metric]), abs=1e-4)
    # What is there is not computed again, by whomever.
    assert "jobs computed" not in posbench(*RUN, "--jobs", "2", "--store", "two.db").err


@pytest.mark.long
@pytest.mark.usefixtures("tiny")
def test_a_job_that_hangs_or_takes_its_process_down_fails_alone(posbench: Posbench, install: Install) -> None:
    install("posbench-unruly", UNRULY)
    wanted = ("run", "--backbones", "tiny", "--paddings", "sleeps,leaves,talks,zero", *SMALL)
    ran = posbench(*wanted, "--jobs", "2", "--time-limit", "12", "--csv", "-")
    assert ran.code == 1, ran.err
    found = {row["padding"]: row for row in rows(ran)}
    assert found["talks"]["status"] == found["zero"]["status"] == "ok"
    assert found["sleeps"]["reason"] == (
        "it took longer than --time-limit 12 s, and was ended in padding 'sleeps' of posbench-unruly 1.0"
    )
    assert found["leaves"]["reason"] == "its process died 2 times (exit 7) in padding 'leaves' of posbench-unruly 1.0"
    assert found["talks"]["spc"] == found["zero"]["spc"]


@pytest.mark.usefixtures("tiny")
def test_what_a_plugin_prints_does_not_spoil_what_is_printed(posbench: Posbench, install: Install) -> None:
    install("posbench-unruly", UNRULY)
    ran = posbench("run", "--backbones", "tiny", "--paddings", "talks", *SMALL, "--json")
    assert ran.code == 0
    assert {row["status"] for row in json.loads(ran.out)} == {"ok"}
    assert "I am padding" in ran.err


class Odd:
    """A pool that does something with every task and its result, before it gives them."""

    def __init__(self, made: Plan, does: Callable[[list[Any]], Iterable[Any]]) -> None:
        self.here, self.does = Here(made, "cpu"), does

    def results(self, tasks: Sequence[Task], observer: Observer, claim: Claim) -> Generator[tuple[Task, JobResult]]:
        yield from self.does(list(self.here.results(tasks, observer, claim)))


def broken(found: list[Any]) -> Iterable[Any]:
    yield found[0]
    raise KeyError("lost")


@pytest.mark.parametrize(
    ("does", "message"),
    [
        (lambda found: [*found, found[0]], "gave a result that was not due"),
        (lambda found: [(found[0][0], found[1][0])], "gave something else than a result"),
        (
            lambda found: [(task, replace(result, outcomes=[])) for task, result in found],
            "something else than a result",
        ),
        (broken, "executor 'odd': KeyError: 'lost'"),
    ],
)
def test_an_executor_that_breaks_its_promise_is_named(
    does: Callable[[list[Any]], Iterable[Any]], message: str, tmp_path: Path
) -> None:
    made = plan(paddings=[ZERO, CIRCULAR], targets=[H])
    odd = Executor(name="odd", summary="", version="1", start=lambda *asked: Odd(made, does))
    pool = Started.by(odd, RunConfig(), made, "cpu")
    with Store(tmp_path / "a.db") as store, pytest.raises(ComponentError, match=message):
        list(run(list(made.tasks()), store, pool, fail_fast=False, observer=Log()))


def test_what_an_executor_loses_has_failed(tmp_path: Path) -> None:
    made = plan(paddings=[ZERO, CIRCULAR], targets=[H])
    odd = Executor(name="odd", summary="", version="1", start=lambda *asked: Odd(made, lambda found: found[:1]))
    with Store(tmp_path / "a.db") as store:
        list(run(list(made.tasks()), store, Started.by(odd, RunConfig(), made, "cpu"), fail_fast=False, observer=Log()))
        outcomes = [record.outcome for record in store.records()]
    assert [outcome.status for outcome in outcomes] == ["ok", "failed"]
    assert outcomes[1].reason == "executor 'odd' ended without a result of it"


def test_an_executor_that_cannot_start_is_named() -> None:
    def start(*asked: object) -> Any:
        raise OSError("no room")

    with pytest.raises(ComponentError, match="executor 'odd': OSError: no room"):
        Started.by(Executor(name="odd", summary="", version="1", start=start), RunConfig(), plan(), "cpu")


def test_a_worker_knows_what_is_not_in_its_plan(posbench: Posbench) -> None:
    worker = Worker(RunConfig(backbones=("none",), images=("leaves",)))
    with pytest.raises(PosbenchError, match="a worker does not find job 000000000000 in the plan"):
        next(worker.results([("0" * 64, (), ())], Log()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--gpus-per-job", "1"), "--gpus-per-job is for jobs that run on a cluster: add --executor ray"),
        (("--cpus-per-job", "2"), "--cpus-per-job is for jobs that run on a cluster: add --executor ray"),
        (("--ray-address", "auto"), "--ray-address is for jobs that run on a cluster: add --executor ray"),
        (
            ("--executor", "ray", "--gpus-per-job", "1.5"),
            "--gpus-per-job 1.5: give a share of one, such as 0.5",
        ),
        (("--executor", "ray", "--gpus-per-job", "0"), "--gpus-per-job 0: give a share"),
        (("--executor", "ray", "--gpus-per-job", "nan"), "--gpus-per-job: expected a number, such as 0.5, not 'nan'"),
        (("--executor", "ray", "--cpus-per-job", "0"), "--cpus-per-job is 0: give 1 to 1024"),
        (
            ("--executor", "ray", "--device", "cuda"),
            "--device cuda is not what jobs are given of a cluster: add --gpus",
        ),
        (("--executor", "ray", "--gpus-per-job", ".5", "--device", "cpu"), "cluster: leave out --gpus-per-job"),
        (("--executor", "rya"), "unknown executor 'rya': did you mean ray?"),
    ],
)
def test_what_does_not_fit_is_one_line(options: tuple[str, ...], message: str, posbench: Posbench, tiny: str) -> None:
    ran = posbench(*RUN, *options)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert message in ran.err
