"""Plugins that misbehave: their own jobs fail and name them and their distribution; all other jobs finish."""

from __future__ import annotations

import csv
import io
import json
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from posbench.core.errors import ComponentError, Inapplicable
from posbench.plugin.components import Metric, Padding
from posbench.plugin.observation import Observation, Reading
from posbench.plugin.sandbox import isolated_state, naming_errors
from posbench.runner.jobs import JobRunner
from posbench.runner.worker import InProcessPool
from posbench.store.store import Store
from tests.bench.test_engine import plan
from tests.command_line import SMALL, assert_message
from tests.conftest import Ran

Posbench = Callable[..., Ran]
Install = Callable[..., None]

OF = "of posbench-unruly 1.0"

UNRULY = """
import os, random, sys
from posbench import Backbone, Checkpoint, Images, Metric, Padding, Readout, Target, hookimpl


def zeros(x, sides):
    import torch.nn.functional as F
    return F.pad(x, sides)


def raises(*arguments):
    raise ValueError("out of\\norder")


def exits(x, sides):
    sys.exit(3)


def crops(x, sides):
    return x


def halves(x, sides):
    return zeros(x, sides).half()


def elsewhere(x, sides):
    return zeros(x, sides).to("meta")


def nothing(x, sides):
    return None


def hollow(x, sides):
    return zeros(x, sides).index_fill(-1, zeros(x, sides).new_zeros(1).long(), float("nan"))


def boundless(x, sides):
    return zeros(x, sides) + float("inf")


def scribbles(x, sides):
    padded = zeros(x, sides)
    x.mul_(2)
    return padded


def doubles(x, sides):
    return 2 * zeros(x, sides)


def noisy(x, sides):
    import numpy, torch
    print("I am padding")
    os.write(1, b"I am padding below Python\\n")
    torch.manual_seed(9), random.seed(9), numpy.random.seed(9)
    torch.set_grad_enabled(True)
    torch.set_default_dtype(torch.float64)
    return zeros(x, sides)


PADS = [raises, exits, crops, halves, elsewhere, nothing, hollow, boundless, scribbles, doubles, noisy]


def narrow(operation):
    return operation.native()[..., 1:]


@hookimpl
def posbench_paddings():
    every = [Padding(name=pad.__name__, summary="", version="1", pad=pad) for pad in PADS]
    return [*every, Padding(name="narrow", summary="", version="1", operate=narrow)]


def build():
    from posbench_tiny import build
    return build()


def find():
    from pathlib import Path
    return Path(__file__)


@hookimpl
def posbench_backbones():
    broken = Checkpoint(label="imagenet:broken", find=find, read=raises)
    odd = Checkpoint(label="imagenet:odd", find=find, read=lambda path: {"one": 1})
    return [
        Backbone(name="raises", summary="", version="1", build=raises, taps=3),
        Backbone(name="modest", summary="", version="1", build=build, taps=4),
        Backbone(name="number", summary="", version="1", build=lambda: 7, taps=3),
        Backbone(name="broken", summary="", version="1", build=build, taps=3, checkpoints=(broken,)),
        Backbone(name="odd", summary="", version="1", build=build, taps=3, checkpoints=(odd,)),
    ]


@hookimpl
def posbench_targets():
    return [Target(name="raises", summary="", version="1", draw=raises)]


def score(predictions, target):
    import torch
    torch.rand(3)
    return predictions.mean((1, 2))


@hookimpl
def posbench_metrics():
    every = {
        "raises": raises,
        "short": lambda predictions, target: predictions.mean((1, 2))[1:],
        "nan": lambda predictions, target: predictions.mean((1, 2)) * float("nan"),
        "text": lambda predictions, target: "good",
        "meta": lambda predictions, target: predictions.mean((1, 2)).to("meta"),
        "fine": score,
    }
    return [Metric(name=name, summary="", version="1", score=score) for name, score in every.items()]


class Scribble:
    def __init__(self, training):
        for tap in training.features.taps:
            tap[1:] = 0

    def predict(self, features):
        return features.taps[0].new_zeros(len(features), 2, 8, 8)


class Hollow(Scribble):
    def __init__(self, training):
        pass

    def predict(self, features):
        return super().predict(features) + float("nan")


@hookimpl
def posbench_readouts():
    every = {"raises": raises, "scribbles": Scribble, "hollow": Hollow}
    return [Readout(name=name, summary="", version="1", fit=fit, grid=lambda side: side) for name, fit in every.items()]


@hookimpl
def posbench_images():
    return [
        Images(name="raises", summary="", version="1", draw=raises),
        Images(name="lists", summary="", version="1", photographs=raises),
    ]
"""


def rows(ran: Ran) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(ran.out)))


@pytest.fixture
def _unruly(tiny: str, install: Install) -> None:
    install("posbench-unruly", UNRULY)


RUN = ("run", "--backbones", "tiny", "--paddings", "zero", *SMALL)


@pytest.mark.usefixtures("_unruly")
def test_paddings(posbench: Posbench) -> None:
    names = "raises,exits,crops,halves,elsewhere,nothing,hollow,boundless,scribbles,doubles,narrow,noisy,zero"
    ran = posbench(*RUN, "--paddings", names, "--csv", "-")
    assert ran.code == 1, ran.err
    cells = {row["padding"]: row for row in rows(ran) if row["target"] == "H"}
    results = {name: (row["status"], row["reason"]) for name, row in cells.items()}
    expected = {
        "raises": ": ValueError: out of order",
        "exits": ": SystemExit: 3",
        "crops": " returned torch.float32 (8, 3, 64, 64) on cpu at one; expected torch.float32 (8, 3, 66, 66) on cpu",
        "halves": " returned torch.float16",
        "elsewhere": " on meta at one",
        "nothing": " returned no tensor at one",
        "hollow": " returned values that are not finite at one",
        "boundless": " returned values that are not finite at one",
        "scribbles": " wrote into the map that it was given at one",
        "doubles": " changed the interior of the map at one",
        "narrow": " returned torch.float32",
    }
    for name, reason in expected.items():
        status, why = results[name]
        assert status == "failed", name
        assert why.startswith(f"padding {name!r} {OF}"), why
        assert reason in why
    # Changes of global state are undone: they affect neither their own job nor later ones.
    assert results["zero"] == results["noisy"] == ("ok", "")
    alone = rows(posbench(*RUN, "--store", "alone.db", "--csv", "-"))[0]
    for metric in ("spc", "mae", "r2"):
        assert cells["zero"][metric] == cells["noisy"][metric] == alone[metric]
    with sqlite3.connect("posbench.db") as stored:
        assert dict(stored.execute("SELECT status, count(*) FROM cells GROUP BY status")) == {"failed": 22, "ok": 4}


@pytest.mark.usefixtures("_unruly")
def test_backbones_and_their_weights(posbench: Posbench) -> None:
    ran = posbench(*RUN, "--backbones", "raises,modest,number,broken,odd,tiny", "--csv", "-")
    assert ran.code == 1, ran.err
    results = {row["backbone"]: (row["status"], row["reason"]) for row in rows(ran)}
    assert results["tiny"] == ("ok", "")
    assert results["raises"] == ("failed", f"backbone 'raises' {OF}: ValueError: out of order")
    assert results["modest"][1].startswith(f"backbone 'modest' {OF} must return 4 feature maps")
    assert results["number"][1].startswith(f"backbone 'number' {OF}: TypeError: build returned int")
    assert results["broken"] == ("failed", f"backbone 'broken' {OF}: ValueError: out of order")
    assert results["odd"][1].startswith(f"backbone 'odd' {OF}: TypeError: the reader of weights")


@pytest.mark.usefixtures("_unruly")
def test_targets_metrics_and_readouts(posbench: Posbench) -> None:
    ran = posbench(*RUN, "--targets", "H,raises,V", "--readouts", "raises,hollow,ridge", "--csv", "-")
    assert ran.code == 1, ran.err
    results = {(row["readout"], row["target"]): row["reason"] for row in rows(ran)}
    assert results["ridge", "H"] == results["ridge", "V"] == ""
    assert results["ridge", "raises"] == f"target 'raises' {OF}: ValueError: out of order"
    assert results["raises", "H"] == f"readout 'raises' {OF}: ValueError: out of order"
    assert results["hollow", "H"] == f"readout 'hollow' {OF} predicts values that are not finite"
    ran = posbench(*RUN, "--metrics", "raises,short,nan,text,meta,fine,spc", "--json")
    assert ran.code == 1
    reason, *_ = {row["reason"] for row in json.loads(ran.out)}
    assert reason == "; ".join(
        f"metric {name!r} {OF}{why}"
        for name, why in {
            "raises": ": ValueError: out of order",
            "short": " must return one finite score an image, 6 of them",
            "nan": " must return one finite score an image, 6 of them",
            "text": " must return one finite score an image, 6 of them",
            "meta": " must return one finite score an image, 6 of them",
        }.items()
    )
    # Scores of the other metrics are kept.
    assert all(row["spc"] is not None and row["fine"] is not None for row in json.loads(ran.out))


@pytest.mark.usefixtures("_unruly")
def test_features_that_a_readout_wrote_into_are_made_again_for_the_others(posbench: Posbench) -> None:
    alone = rows(posbench(*RUN, "--store", "alone.db", "--csv", "-"))
    # A later job, on black test images, uses the same training features.
    both = rows(posbench(*RUN, "--readouts", "scribbles,ridge", "--test-images", "leaves,black", "--csv", "-"))
    fine = [row for row in both if row["readout"] == "ridge"]
    assert {row["status"] for row in fine} == {"ok"}
    assert [row["spc"] for row in fine if row["test_images"] == "leaves"] == [row["spc"] for row in alone]
    spoilt = {row["reason"] for row in both if row["readout"] == "scribbles"}
    assert spoilt == {f"readout 'scribbles' {OF} wrote into the features that it was given"}


@pytest.mark.usefixtures("_unruly")
def test_images(posbench: Posbench) -> None:
    ran = posbench(*RUN, "--images", "raises,leaves", "--csv", "-")
    assert ran.code == 1
    results = {row["images"]: row["reason"] for row in rows(ran)}
    assert results == {"raises": f"images 'raises' {OF}: ValueError: out of order", "leaves": ""}
    # Without a list of photographs there is no plan.
    ran = posbench(*RUN, "--images", "lists")
    assert_message(ran, 2, f"images 'lists' {OF}: ValueError: out of order")


@pytest.mark.parametrize("name", ["../x", "=1+1", "<script>", "[red]", "a b", "", "-x", "x\n", "\x1b[31m"])
@pytest.mark.parametrize("checked", [True, False])
def test_names_that_files_tables_or_pages_would_obey_are_no_names(
    name: str, checked: bool, posbench: Posbench, install: Install, tiny: str
) -> None:
    quiet = "" if checked else "\n    def __post_init__(self): pass"
    install(
        "posbench-odd",
        f"""
from posbench import Padding, hookimpl

class Own(Padding):
    pass{quiet}

@hookimpl
def posbench_paddings():
    return [Own(name={name!r}, summary="", version="1")]
""",
    )
    ran = posbench(*RUN, "--quiet", "--csv", "-")
    assert ran.code == 0
    assert {row["status"] for row in rows(ran)} == {"ok"}
    assert "plugin posbench-odd 1.0 is left out (ValueError" in ran.err
    assert "is no name for a component" in ran.err
    shown = posbench("plugins")
    assert shown.code == 0
    assert "is no name for a component" in " ".join(shown.out.split())
    assert "\x1b" not in shown.out + shown.err + ran.err


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("raise RuntimeError('no [red]luck')", "RuntimeError: no [red]luck"),
        ("import sys; sys.exit(5)", "SystemExit: 5"),
        ("import posbench_nowhere", "ModuleNotFoundError: No module named 'posbench_nowhere'"),
        ("def broken(:", "SyntaxError"),
        (
            "from posbench import hookimpl\n@hookimpl\ndef posbench_paddings(): print('hm'); raise KeyError('x')",
            "KeyError: 'x'",
        ),
        ("from posbench import hookimpl\n@hookimpl\ndef posbench_targets():\n    yield 1", "TypeError"),
    ],
)
def test_a_plugin_that_cannot_be_loaded_is_left_out(
    source: str, error: str, posbench: Posbench, install: Install, tiny: str
) -> None:
    install("posbench-odd", source)
    ran = posbench(*RUN, "--quiet", "--json")
    assert ran.code == 0
    assert {row["status"] for row in json.loads(ran.out)} == {"ok"}
    assert "posbench: plugin posbench-odd 1.0 is left out" in ran.err
    assert error in ran.err


@pytest.mark.parametrize(
    ("record", "error"),
    [
        ("Padding(name='odd', summary=['a list'], version='1')", "summary and source must be strings"),
        ("Padding(name='odd', summary='', version='1', pad=Unhashable())", "unhashable"),
        ("Backbone(name='odd', summary='', version='1', build=print, taps='3')", "taps must be a whole number"),
        ("Backbone(name='odd', summary='', version='1', build=print, taps=0)", "taps must be a whole number"),
        ("Target(name='odd', summary='', version=1, draw=print)", "the version must be a non-empty string"),
    ],
)
def test_records_that_no_plan_could_use_are_left_out(
    record: str, error: str, posbench: Posbench, install: Install, tiny: str
) -> None:
    kind = {"Padding": "paddings", "Backbone": "backbones", "Target": "targets"}[record.partition("(")[0]]
    install(
        "posbench-odd",
        f"""
from posbench import Backbone, Padding, Target, hookimpl

class Unhashable(list):
    def __call__(self, x, sides):
        return x

@hookimpl
def posbench_{kind}():
    return [{record}]
""",
    )
    ran = posbench(*RUN, "--quiet", "--dry-run")
    assert ran.code == 0
    assert "plugin posbench-odd 1.0 is left out" in ran.err
    assert error in ran.err


def test_texts_of_plugins_are_shown_as_they_are(posbench: Posbench, install: Install) -> None:
    install(
        "posbench-odd",
        """
from posbench import Padding, hookimpl

@hookimpl
def posbench_paddings():
    return [Padding(name="odd", summary="[red]=1+1 <script> \\x1b[31m", version="[1]", source="[link]")]
""",
    )
    for arguments in (("list", "paddings"), ("list",)):
        ran = posbench(*arguments)
        assert ran.code == 0
        assert "[red]=1+1 <script>" in " ".join(ran.out.split())
        assert "\x1b" not in ran.out


@pytest.mark.usefixtures("_unruly")
@pytest.mark.parametrize(("name", "reason"), [("raises", "ValueError: out of order"), ("number", "TypeError: build")])
def test_an_audit_of_a_broken_backbone_is_one_line(name: str, reason: str, posbench: Posbench) -> None:
    assert_message(posbench("audit", name), 2, reason)


def test_features_that_a_metric_wrote_into_are_made_again_for_the_others(tmp_path: Path) -> None:
    def scribbles(observation: Observation) -> list[Reading]:
        observation.test.taps[0].zero_()
        raise ValueError("and then that")

    def reads(observation: Observation) -> list[Reading]:
        return [Reading({}, value=float(observation.test.taps[0].abs().sum()))]

    metrics = {
        name: Metric(name=name, summary="", version="1", of_job=function)
        for name, function in {"scribbles": scribbles, "reads": reads}.items()
    }
    measurements = []
    for names in (["reads"], ["scribbles", "reads"]):
        with Store(tmp_path / f"{len(names)}.db") as store:
            small_plan = plan(metrics=[metrics[name] for name in names])
            assert list(JobRunner(store, InProcessPool(small_plan, "cpu")).run(small_plan.tasks()))
            measurements.append({record.measurement.metric: record.measurement for record in store.measurements()})
    assert measurements[0]["reads"].value == measurements[1]["reads"].value
    assert measurements[1]["scribbles"].reason == "metric 'scribbles' wrote into the features that it was given"


def test_states_are_as_before_and_begin_alike() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), np.random.rand(), float(torch.rand(1, dtype=torch.float64))  # noqa: NPY002, S311

    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    expected = draw(), draw()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    first = draw()
    with isolated_state("a"):
        inside = draw()
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
    with isolated_state("a"):
        assert draw() == inside
    with isolated_state("b"):
        assert draw() != inside
    assert (first, draw()) == expected
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float32


def test_what_is_raised_is_told_once_and_posbenchs_own_errors_as_they_are() -> None:
    def fail(error: BaseException) -> None:
        edge = Padding(name="edge", summary="", version="1", pad=lambda x, sides: x)
        with naming_errors(edge), naming_errors(Padding(name="inner", summary="", version="1")):
            raise error

    with pytest.raises(ComponentError, match=r"^padding 'inner': OSError: gone$"):
        fail(OSError("gone"))
    with pytest.raises(Inapplicable, match=r"^too small$"):
        fail(Inapplicable("too small"))
    with pytest.raises(KeyboardInterrupt):
        fail(KeyboardInterrupt())
