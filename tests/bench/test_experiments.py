"""The experiments that ship: each is a valid configuration, and each cell of its table finds its published number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from posbench.bench import experiments
from posbench.bench.config import RunConfig, load_config
from posbench.bench.plan import make_plan
from posbench.bench.row import Row
from posbench.core.errors import UsageError
from posbench.plugin.registry import load_registry
from posbench.report.literature import published
from tests.conftest import Ran
from tests.rows import make_row

NAMES = ["islam2020-table1", "islam2020-table2a", "islam2020-table2b", "islam2020-table3", "islam2020-table4"]


def test_these_ship() -> None:
    assert experiments.names() == NAMES
    assert all(experiments.summary(name).startswith("Islam, Jia & Bruce (ICLR 2020), Table") for name in NAMES)


def test_an_unknown_one_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"experiment 'islam2020-table5'.*islam2020-table"):
        experiments.path("islam2020-table5")
    with pytest.raises(UsageError, match="unknown experiment"):
        experiments.path("../experiments/islam2020-table1")


def crossed(name: str) -> list[Row]:
    """Return the rows of an experiment, from its plan."""
    from posbench.bench.resolve import resolve_config

    config = load_config(None, {"experiment": name, "weights": ["random"], "device": "cpu", "precision": "fp32"})
    plan = make_plan(resolve_config(config, load_registry(), download=False).plan_inputs)
    return [
        make_row(
            backbone=cell.job.backbone.name,
            padding=cell.job.padding.name if cell.job.padding else "none",
            test_images=cell.job.test.label,
            target=cell.target.name,
            readout=cell.readout.name,
            taps=cell.taps,
        )
        for cell in plan.cells
    ]


@pytest.mark.parametrize("name", NAMES)
def test_every_published_number_of_the_table_is_beside_a_measurement(name: str) -> None:
    table = published(name)
    measured = [tuple(sorted(numbers.items())) for row in crossed(name) if (numbers := table.find(row))]
    # Each entry of the table once for `sgd`, and again for `ridge` where that exists in the same shape.
    printed = [tuple(sorted(numbers.items())) for numbers in table.numbers.values()]
    assert set(measured) == set(printed)


def test_the_command_line_is_over_yaml_is_over_the_experiment(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("experiment: islam2020-table3\ntargets: [V]\ntrain-count: 10\n")
    chosen = load_config(path, {"train_count": 20})
    assert chosen == RunConfig(
        experiment="islam2020-table3",
        backbones=("vgg16",),
        paddings=("zero",),
        targets=("V",),
        readouts=("sgd", "ridge"),
        taps="each,all",
        metrics=("spc", "mae"),
        score_at="image",
        published="islam2020-table3",
        train_count=20,
    )


def test_a_printed_experiment_is_the_experiment(posbench: Callable[..., Ran]) -> None:
    printed = posbench("experiment", "islam2020-table2b")
    assert printed.code == 0
    Path("copy.yaml").write_text(printed.out, encoding="utf-8")
    by_name = load_config(None, {"experiment": "islam2020-table2b"})
    copy = load_config(Path("copy.yaml"), {})
    assert copy == RunConfig(**{**vars(by_name), "experiment": None})


def test_they_are_listed(posbench: Callable[..., Ran]) -> None:
    listed = posbench("list", "experiments")
    assert listed.code == 0
    assert all(name in listed.out for name in NAMES)
