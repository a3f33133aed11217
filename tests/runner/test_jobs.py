"""Jobs in worker processes: the same table, and whatever a plugin does, the other jobs finish."""

from __future__ import annotations

import csv
import io
import json
import pickle
import sqlite3
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from posbench.bench.config import RunConfig
from posbench.bench.engine import JobResult
from posbench.bench.plan import Plan
from posbench.core.errors import ComponentError, PosbenchError
from posbench.plugin.components import Executor
from posbench.plugin.execution import Claim, Observer, RunOptions, TaskIds
from posbench.runner.jobs import CheckedPool, JobRunner
from posbench.runner.worker import InProcessPool, Worker
from posbench.runner.worker_config import WorkerConfig
from posbench.store.store import Store
from tests.bench.test_engine import CIRCULAR, ZERO, H, plan
from tests.command_line import RUN, SMALL
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
    jobs = [each.cells[0].job for each in (first, second)]

    def compute(planned: Plan) -> list[str]:
        with Store(tmp_path / "store.db") as store:
            tasks = planned.tasks(store.finished(planned.metrics))
            return [job.id for job, _ in JobRunner(store, InProcessPool(planned, "cpu")).run(tasks)]

    claims.write_text("".join(f"+{job.id}\n" for job in jobs))
    assert compute(first) == [jobs[0].id]
    assert claims.read_text().endswith(f"-{jobs[0].id}\n")  # the other job, not in this plan, is kept
    claims.write_text("".join(f"+{job.id}\n" for job in jobs))  # a process died after it stored the first job
    assert compute(second) == [jobs[1].id]
    assert not claims.exists()


@pytest.mark.long
@pytest.mark.usefixtures("tiny")
def test_workers_give_the_same_table(posbench: Posbench) -> None:
    command = (*RUN, "--paddings", "zero,circular,reflect", "--csv", "-", "--quiet")
    serial = rows(posbench(*command))
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        ran = posbench(*command, "--jobs", "2", "--store", "two.db")
    finally:
        torch.set_num_threads(threads)
    assert ran.code == 0, ran.err
    with sqlite3.connect("two.db") as store:
        shares = store.execute("SELECT json_extract(provenance, '$.threads') FROM runs").fetchall()
    assert shares == [(2,)] * 3  # half of four
    parallel = rows(ran)
    assert [row["cell_id"] for row in parallel] == [row["cell_id"] for row in serial]
    for row, expected in zip(parallel, serial, strict=True):
        for metric in ("spc", "mae", "r2"):
            # Other numbers of threads add in another order.
            assert float(row[metric]) == pytest.approx(float(expected[metric]), abs=1e-4)
    # Stored jobs are not computed again.
    assert "jobs computed" not in posbench(*RUN, "--jobs", "2", "--store", "two.db").err


@pytest.mark.long
@pytest.mark.usefixtures("tiny")
def test_a_job_that_hangs_or_takes_its_process_down_fails_alone(posbench: Posbench, install: Install) -> None:
    install("posbench-unruly", UNRULY)
    command = ("run", "--backbones", "tiny", "--paddings", "sleeps,leaves,talks,zero", *SMALL)
    ran = posbench(*command, "--jobs", "2", "--time-limit", "12", "--csv", "-")
    assert ran.code == 1, ran.err
    cells = {row["padding"]: row for row in rows(ran)}
    assert cells["talks"]["status"] == cells["zero"]["status"] == "ok"
    assert cells["sleeps"]["reason"] == (
        "it took longer than --time-limit 12 s, and was ended in padding 'sleeps' of posbench-unruly 1.0"
    )
    assert cells["leaves"]["reason"] == "its process died 2 times (exit 7) in padding 'leaves' of posbench-unruly 1.0"
    assert cells["talks"]["spc"] == cells["zero"]["spc"]


@pytest.mark.usefixtures("tiny")
def test_what_a_plugin_prints_does_not_spoil_what_is_printed(posbench: Posbench, install: Install) -> None:
    install("posbench-unruly", UNRULY)
    ran = posbench("run", "--backbones", "tiny", "--paddings", "talks", *SMALL, "--json")
    assert ran.code == 0
    assert {row["status"] for row in json.loads(ran.out)} == {"ok"}
    assert "I am padding" in ran.err


#: The results of a pool, by job id.
Items = list[tuple[str, Any]]


class AlteredPool:
    """A pool that alters its list of results before it yields them."""

    def __init__(self, planned: Plan, alter: Callable[[Items], Iterable[Any]]) -> None:
        self.pool, self.alter = InProcessPool(planned, "cpu"), alter

    def results(self, tasks: Sequence[TaskIds], observer: Observer, claim: Claim) -> Generator[tuple[str, object]]:
        yield from self.alter(list(self.pool.results(tasks, observer, claim)))


def broken(items: Items) -> Iterable[Any]:
    yield items[0]
    raise KeyError("lost")


def with_results(items: Items, change: Callable[[JobResult], object]) -> Items:
    return [(job_id, change(result)) for job_id, result in items]


def altered(alter: Callable[[Items], Iterable[Any]], store: Store) -> tuple[JobRunner, Plan]:
    """Return a runner with the pool of the executor `odd`, and a plan of two jobs."""
    planned = plan(paddings=[ZERO, CIRCULAR], targets=[H])
    odd = Executor(name="odd", summary="", version="1", start=lambda options: AlteredPool(planned, alter))
    return JobRunner(store, CheckedPool.start(odd, RunOptions(config=None, device="cpu"))), planned


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (lambda items: [*items, items[0]], "gave a result that was not due"),
        (lambda items: with_results(items, lambda result: 3), "gave something else than a result"),
        (
            lambda items: with_results(items, lambda result: replace(result, outcomes=[])),
            "something else than a result",
        ),
        (lambda items: [3], "executor 'odd': TypeError: "),
        (broken, "executor 'odd': KeyError: 'lost'"),
    ],
)
def test_an_executor_that_breaks_its_promise_is_named(
    alter: Callable[[Items], Iterable[Any]], message: str, tmp_path: Path
) -> None:
    with Store(tmp_path / "a.db") as store:
        runner, planned = altered(alter, store)
        with pytest.raises(ComponentError, match=message):
            list(runner.run(planned.tasks()))


@pytest.mark.parametrize(
    ("alter", "reason"),
    [
        (lambda items: items[:1], "executor 'odd' ended without a result of it"),
        (lambda items: [items[0], (items[1][0], OSError("node lost"))], "OSError: node lost"),
    ],
)
def test_what_an_executor_loses_has_failed(
    alter: Callable[[Items], Iterable[Any]], reason: str, tmp_path: Path
) -> None:
    with Store(tmp_path / "a.db") as store:
        runner, planned = altered(alter, store)
        list(runner.run(planned.tasks()))
        outcomes = [record.outcome for record in store.records()]
    assert [outcome.status for outcome in outcomes] == ["ok", "failed"]
    assert outcomes[1].reason == reason


def test_an_error_of_the_caller_is_not_the_executors(tmp_path: Path) -> None:
    with Store(tmp_path / "a.db") as store:
        runner, planned = altered(iter, store)
        results = runner.run(planned.tasks())
        next(results)
        with pytest.raises(KeyError, match="of the caller"):
            results.throw(KeyError("of the caller"))


def test_an_executor_that_cannot_start_is_named() -> None:
    def start(options: RunOptions) -> Any:
        raise OSError("no room")

    with pytest.raises(ComponentError, match="executor 'odd': OSError: no room"):
        CheckedPool.start(
            Executor(name="odd", summary="", version="1", start=start), RunOptions(config=None, device="cpu")
        )


CONFIG = RunConfig(backbones=("none",), images=("leaves",))


@pytest.mark.usefixtures("posbench")
def test_a_worker_knows_what_is_not_in_its_plan() -> None:
    worker = Worker(WorkerConfig(CONFIG))
    with pytest.raises(PosbenchError, match="a worker does not find job 000000000000 in the plan"):
        next(worker.results([TaskIds("0" * 64, (), (), "")]))
    with pytest.raises(TypeError, match=r"a worker takes the config of posbench\.RunOptions, not a RunConfig"):
        Worker(CONFIG)


def test_a_plan_stays_in_its_process() -> None:
    planned = plan(paddings=[ZERO], targets=[H])
    config = WorkerConfig(CONFIG, (planned, "cpu"))
    assert config.plan() == (planned, "cpu")
    copy = pickle.loads(pickle.dumps(config))  # noqa: S301
    assert copy == config
    assert copy.planned is None


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
