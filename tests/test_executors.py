"""Jobs in processes of their own: the same table, and whatever a plugin does, the other jobs finish."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from posbench.executors import Here, run
from posbench.plan import Plan
from posbench.store import Store
from tests.conftest import Ran
from tests.test_cli import RUN, SMALL
from tests.test_engine import CIRCULAR, ZERO, H, Log, plan

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
    ran = posbench(*wanted, "--jobs", "2", "--store", "two.db")
    assert ran.code == 0, ran.err
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
    ran = posbench(*wanted, "--jobs", "2", "--time-limit", "20", "--csv", "-")
    assert ran.code == 1, ran.err
    found = {row["padding"]: row for row in rows(ran)}
    assert found["talks"]["status"] == found["zero"]["status"] == "ok"
    assert found["sleeps"]["reason"] == (
        "it took longer than --time-limit 20 s, and was ended in padding 'sleeps' of posbench-unruly 1.0"
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
