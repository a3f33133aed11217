"""Jobs on a Ray cluster: the same table, and if a worker dies or hangs, the other jobs finish."""

from __future__ import annotations

import csv
import io
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray

from posbench.bench.config import load_config
from posbench.bench.resolve import resolve_config
from posbench.core.errors import UsageError
from posbench.plugin.registry import load_registry
from posbench.runner.jobs import JobRunner
from posbench.runner.ray import RayLauncher, count_capacity
from posbench.runner.scheduler import WorkerPool
from posbench.runner.worker_config import WorkerConfig
from posbench.store.store import Store
from tests.command_line import RUN, SMALL
from tests.conftest import TINY, Ran
from tests.runner.test_jobs import UNRULY

Posbench = Callable[..., Ran]

#: A padding that kills its worker the first time, one that raises, and two that wait for each other.
MORE_UNRULY = """
import os, pathlib, time
from posbench import Padding, hookimpl


def once(x, sides):
    import torch.nn.functional as F
    if x.shape[0] > 1 and not pathlib.Path(os.environ["FLAG"]).exists():
        pathlib.Path(os.environ["FLAG"]).touch()
        os._exit(7)
    return F.pad(x, sides)


def raises(x, sides):
    raise RuntimeError("no such luck")


def meets(name):
    def pad(x, sides):
        import torch.nn.functional as F
        flag = pathlib.Path(os.environ["FLAG"])
        flag.with_name(f"{name}-is-here").touch()
        for _ in range(600):
            if len(list(flag.parent.glob("*-is-here"))) == 2:
                return F.pad(x, sides)
            time.sleep(0.1)
        raise RuntimeError("the other one does not run")
    return pad


@hookimpl
def posbench_paddings():
    paddings = [Padding(name=f.__name__, summary="", version="1", pad=f) for f in (once, raises)]
    return paddings + [Padding(name=name, summary="", version="1", pad=meets(name)) for name in ("one", "other")]
"""


def write_distribution(site: Path, distribution: str, source: str) -> None:
    """Write a distribution of one module, as the fixture `install` does."""
    module = distribution.replace("-", "_")
    (site / f"{module}.py").write_text(source, encoding="utf-8")
    info = site / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[posbench]\n{module} = {module}\n")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder of plugins that this process and a cluster find."""
    folder = tmp_path_factory.mktemp("site")
    for distribution, source in (("tiny", TINY), ("unruly", UNRULY), ("more-unruly", MORE_UNRULY)):
        write_distribution(folder, f"posbench-{distribution}", source)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def cluster(site: Path) -> Iterator[Path]:
    """Start a cluster with two processors and a pretended GPU; return the path in `FLAG`, which plugins read."""
    flag = site / "flag"
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patched.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
        patched.setenv("HF_HUB_OFFLINE", "1")
        patched.setenv("FLAG", str(flag))
        handler = signal.getsignal(signal.SIGTERM)
        ray.init("local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
        yield flag
        ray.shutdown()
        signal.signal(signal.SIGTERM, handler)


def rows(ran: Ran) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(ran.out)))


@pytest.mark.long
def test_alone_in_processes_and_on_a_cluster_it_is_the_same_table(posbench: Posbench, cluster: Path) -> None:
    command = (*RUN, "--paddings", "zero,circular,reflect", "--precision", "fp32", "--csv", "-", "--quiet")
    tables = []
    for name, options in (
        ("a", ()),
        ("b", ("--jobs", "2")),
        ("c", ("--executor", "ray")),
        ("d", ("--executor", "ray", "--jobs", "1")),
    ):
        ran = posbench(*command, *options, "--store", f"{name}.db")
        assert ran.code == 0, ran.err
        tables.append(rows(ran))
    for other in tables[1:]:
        assert [row["cell_id"] for row in other] == [row["cell_id"] for row in tables[0]]
        for row, expected in zip(other, tables[0], strict=True):
            for metric in ("spc", "mae", "r2"):
                # Other numbers of threads add in another order.
                assert float(row[metric]) == pytest.approx(float(expected[metric]), abs=1e-4)
    # Stored jobs are not computed again; and a pool that connected to a running cluster does not stop it.
    assert "jobs computed" not in posbench(*RUN, "--precision", "fp32", "--executor", "ray", "--store", "c.db").err
    assert ray.is_initialized()


@pytest.mark.long
def test_what_happens_to_one_worker_stays_with_its_job(posbench: Posbench, cluster: Path) -> None:
    cluster.unlink(missing_ok=True)
    command = ("run", "--backbones", "tiny", "--paddings", "sleeps,leaves,once,raises,talks,zero", *SMALL)
    ran = posbench(*command, "--executor", "ray", "--time-limit", "15", "--csv", "-")
    assert ran.code == 1, ran.err
    cells = {row["padding"]: row for row in rows(ran)}
    assert {name: row["status"] for name, row in cells.items()} == {
        "sleeps": "failed", "leaves": "failed", "raises": "failed", "once": "ok", "talks": "ok", "zero": "ok"
    }  # fmt: skip
    assert cells["sleeps"]["reason"] == (
        "it took longer than --time-limit 15 s, and was ended in padding 'sleeps' of posbench-unruly 1.0"
    )
    assert cells["leaves"]["reason"] == ("its process died 2 times (exit 7) in padding 'leaves' of posbench-unruly 1.0")
    assert cells["raises"]["reason"] == "padding 'raises' of posbench-more-unruly 1.0: RuntimeError: no such luck"
    assert cluster.exists()  # its worker died, and another one computed it
    assert cells["once"]["spc"] == cells["talks"]["spc"] == cells["zero"]["spc"]
    assert "I am padding" not in ran.out


@pytest.mark.long
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--cpus-per-job", "3"), "no node of the Ray cluster has what a job takes (3 CPU); they have 2 CPU, 1 GPU"),
        (
            ("--gpus-per-job", "0.5", "--cpus-per-job", "3", "--device", "auto"),
            "no node of the Ray cluster has what a job takes (3 CPU, 0.5 GPU)",
        ),
    ],
)
def test_what_no_node_has_is_told_before_anything_runs(
    options: tuple[str, ...], message: str, posbench: Posbench, cluster: Path
) -> None:
    ran = posbench(*RUN, "--weights", "random", "--executor", "ray", *options)
    assert (ran.code, ran.err.count("\n"), ran.out) == (2, 1, "")
    assert message in ran.err
    with sqlite3.connect("posbench.db") as stored:
        assert stored.execute("SELECT count(*) FROM runs").fetchone() == (0,)


@pytest.mark.long
@pytest.mark.usefixtures("cluster")
def test_two_jobs_share_a_gpu(tmp_path: Path) -> None:
    options = {"images": "leaves", "targets": "H", "image_size": 64, "train_count": 4, "test_count": 2}
    config = load_config(None, {**options, "backbones": "tiny", "paddings": "one,other", "device": "cpu"})
    tasks = resolve_config(config, load_registry(), download=False).plan().tasks()
    resources = {"CPU": 1.0, "GPU": 0.5}
    assert count_capacity([node["Resources"] for node in ray.nodes()], resources) == 2  # type: ignore[no-untyped-call]
    pool = WorkerPool(RayLauncher(WorkerConfig(config), resources, owns_connection=False), 2)
    with Store(tmp_path / "shared.db") as store:
        for _, result in JobRunner(store, pool).run(tasks):
            assert result.status == "ok", result.failures
        assert len(list(store.records())) == 2


@pytest.mark.long
def test_it_starts_a_cluster_of_its_own_and_stops_with_it(site: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-c", "from posbench.cli import main; main()", *RUN, "--executor", "ray"]
    command += ["--weights", "random"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    first = subprocess.Popen([*command, "--paddings", "zero,sleeps"], cwd=tmp_path, env=environment, **streams)  # type: ignore[call-overload]
    # Once one job is stored, the other one hangs.
    for _ in range(600):
        time.sleep(0.2)
        if stored_runs(tmp_path / "posbench.db") == 1:
            break
    first.send_signal(signal.SIGTERM)
    out, err = first.communicate(timeout=60)
    assert (first.returncode, out) == (130, ""), err
    assert "interrupted after 1 of 2 jobs" in err
    again = [*command, "--paddings", "zero", "--quiet"]
    done = subprocess.run(again, cwd=tmp_path, env=environment, check=False, timeout=120, **streams)  # type: ignore[call-overload]
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search("H +│ zero", done.stdout)


@pytest.mark.long
@pytest.mark.usefixtures("cluster")
def test_a_plugin_that_the_cluster_lacks_is_told(posbench: Posbench, install: Callable[..., None]) -> None:
    install("posbench-late", TINY.replace('"tiny"', '"late"'))  # after the cluster was started
    ran = posbench("run", "--backbones", "late", "--weights", "random", *SMALL, "--executor", "ray", "--quiet")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert ran.err.startswith("posbench: on the cluster: unknown backbone 'late'")


def stored_runs(path: Path) -> int:
    """Return the number of job runs in a store, which may not exist yet."""
    if not path.exists():
        return 0
    with sqlite3.connect(path) as stored:
        exists = stored.execute("SELECT count(*) FROM sqlite_master WHERE name = 'runs'").fetchone() == (1,)
        return int(stored.execute("SELECT count(*) FROM runs").fetchone()[0]) if exists else 0


def test_without_ray_it_names_the_extra(posbench: Posbench, tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    ran = posbench(*RUN, "--weights", "random", "--executor", "ray")
    assert (ran.code, ran.err) == (4, "posbench: --executor ray needs Ray: pip install 'position-bench[ray]'\n")


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9"])
def test_no_cluster_at_an_address_is_one_line(
    address: str, posbench: Posbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    ran = posbench(*RUN, "--weights", "random", "--executor", "ray", "--ray-address", address)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert f"no Ray cluster answers at '{address}'" in ran.err
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert posbench(*RUN, "--weights", "random", "--executor", "ray").err == ran.err


def test_room_is_counted_node_by_node() -> None:
    nodes = [{"CPU": 8.0, "GPU": 1.0, "memory": 1e9}, {"CPU": 3.0, "GPU": 4.0}, {"CPU": 64.0}]
    assert count_capacity(nodes, {"CPU": 2.0, "GPU": 0.0}) == 4 + 1 + 32
    assert count_capacity(nodes, {"CPU": 2.0, "GPU": 0.5}) == 2 + 1
    assert count_capacity(nodes, {"CPU": 1.0, "GPU": 2.0}) == 2
    with pytest.raises(UsageError, match=r"\(4 CPU, 2 GPU\); they have 8 CPU, 1 GPU; 3 CPU, 4 GPU; 64 CPU, 0 GPU"):
        count_capacity(nodes, {"CPU": 4.0, "GPU": 2.0})
