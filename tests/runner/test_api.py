"""`posbench.run` against the command line: the same rows, defaults and errors, and nothing printed."""

from __future__ import annotations

import csv
import inspect
import io
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import posbench as api
from posbench.bench.config import RunConfig, options
from posbench.cli import run as command
from posbench.core.errors import Interrupted, MissingError, PosbenchError, UsageError
from posbench.network.build import build
from posbench.network.weights import Weights
from posbench.plugin.registry import load_registry
from posbench.report.rows import to_csv
from posbench.runner import session as running
from posbench.runner.results import Results
from tests.command_line import RUN
from tests.conftest import Ran

Posbench = Callable[..., Ran]
SMALL: dict[str, Any] = {
    "images": "leaves",
    "targets": ["H", "V"],
    "image_size": 64,
    "train_count": 12,
    "test_count": 6,
    "precision": "fp32",
    "device": "cpu",
}
MADE_WHEN = ("seconds", "created")


def table(text: str) -> list[dict[str, str]]:
    return [{k: v for k, v in row.items() if k not in MADE_WHEN} for row in csv.DictReader(io.StringIO(text))]


def small() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 6, 3, stride=4, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, stride=2, padding=1))


@pytest.mark.usefixtures("tiny")
def test_its_rows_are_those_of_the_command_line(posbench: Posbench) -> None:
    typed = table(posbench(*RUN, "--csv", "-").out)
    results = api.run(backbones=["tiny"], paddings=["zero", "circular"], **SMALL)
    assert table(to_csv(results.rows)) == typed
    assert len(typed) == 4
    assert list(results.to_frame()["cell_id"]) == [row["cell_id"] for row in typed]


@pytest.mark.usefixtures("tiny")
def test_it_goes_on_from_the_command_lines_store(posbench: Posbench) -> None:
    posbench(*RUN)
    results = api.run(backbones="tiny", paddings="zero,circular,reflect", store="posbench.db", **SMALL)
    assert results.spent is not None
    assert results.spent.states == {"ok": 1}
    assert "1 jobs computed, 2 found in 'posbench.db'" in results.summary()
    again = posbench(*RUN, "--paddings", "zero,circular,reflect")
    assert "computed" not in again.err


def test_its_keywords_are_the_commands() -> None:
    typed = inspect.signature(command.run).parameters.keys()
    python = inspect.signature(api.run).parameters
    # What only says how the command line prints has no keyword.
    assert python.keys() == (typed - {"json", "quiet"}) | {"progress"}
    assert all(parameter.default is None for name, parameter in python.items() if name != "progress")
    assert python.keys() - {"config", "progress"} <= {field.name for field in fields(RunConfig)}
    assert python["image_size"].annotation == int | None


def test_its_documentation_describes_every_option() -> None:
    described = {name: option.help for name, _, option in options() if not option.output_only}
    assert all(f"        {name}: {help_}" in (api.run.__doc__ or "") for name, help_ in described.items())


def test_an_unknown_keyword_is_a_type_error_that_names_the_nearest() -> None:
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'padings': did you mean paddings\?"):
        api.run(padings="zero")
    with pytest.raises(TypeError, match="'quiet'"):
        api.run(quiet=True)


@pytest.mark.usefixtures("tiny", "posbench")
def test_nothing_is_printed_unless_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    results = api.run(backbones="tiny", paddings="zero", **SMALL)
    assert capsys.readouterr() == ("", "")
    assert results.warnings[0].startswith("no trained weights for tiny")
    api.run(backbones="tiny", paddings="zero", progress=True, **SMALL)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "posbench: warning: no trained weights for tiny" in captured.err
    assert "1 jobs computed, 0 found" in captured.err


@pytest.mark.usefixtures("tiny", "posbench")
def test_records_and_names_mix() -> None:
    def pad(x: torch.Tensor, sides: api.Sides) -> torch.Tensor:
        return torch.nn.functional.pad(x, sides, value=1.0)

    ones = api.Padding(name="ones", summary="", version="1", pad=pad)
    mine = api.backbone(small(), ["0", "2"], name="mine")
    pictures = api.images(torch.rand(6, 3, 70, 80), name="noisy")
    own = {**SMALL, "images": [pictures, "leaves"]}
    results = api.run(backbones=["tiny", mine, "none"], paddings=[ones, "zero"], **own)
    assert {row["status"] for row in results.rows} == {"ok"}
    frame = results.to_frame()
    assert set(frame["backbone"]) == {"tiny", "mine", "none"}
    assert set(frame["padding"]) == {"ones", "zero", "none"}
    assert set(frame["images"]) == {pictures.label, "leaves"}
    assert set(frame["weights"]) == {"random:0", "none", f"module:mine@{mine.own_weights[:8]}"}


@pytest.mark.usefixtures("posbench")
def test_other_weights_are_other_cells() -> None:
    def ids(module: nn.Module) -> list[str]:
        record = api.backbone(module, ["2"], name="mine")
        return list(api.run(backbones=record, paddings="zero", dry_run=True, **SMALL).jobs()["job_id"])

    first, other = small(), small()
    assert ids(first) == ids(other)
    with torch.no_grad():
        other[0].bias += 1
    assert not set(ids(first)) & set(ids(other))


@pytest.mark.usefixtures("posbench")
@pytest.mark.parametrize("name", ["tiny", "test_resnet"])
def test_a_network_scores_the_same_as_a_module_of_ones_own(name: str, tiny: str) -> None:
    record = load_registry().get(api.Backbone, name)
    module = build(record, Weights("random:0", seed=0)).train()
    mine = api.backbone(module, name="mine", mean=record.mean, std=record.std)
    own = {**SMALL, "image_size": 96}
    rows = api.run(backbones=[name, mine], paddings="zero,circular", weights="auto", **own).rows
    named, mine_too = ([row["spc"] for row in rows if row["backbone"] == one] for one in (name, "mine"))
    assert len(named) == 4
    assert named == pytest.approx(mine_too, abs=1e-6)


@pytest.mark.usefixtures("posbench")
def test_a_tensor_and_a_dataset_give_the_same_rows() -> None:
    pixels = torch.randint(0, 256, (5, 3, 72, 80), dtype=torch.uint8)
    network = api.backbone(small(), ["2"], name="mine")
    own = {**SMALL, "test_count": 4}
    sources = (api.images(pixels), api.images(torch.utils.data.TensorDataset(pixels / 255, torch.arange(5))))
    rows = [api.run(backbones=network, paddings="zero", **{**own, "images": one}).rows for one in sources]
    assert table(to_csv(rows[0])) == table(to_csv(rows[1]))


@pytest.mark.usefixtures("tiny", "posbench")
def test_controls_of_a_module_of_ones_own() -> None:
    network = api.backbone(small(), ["2"], name="mine")
    results = api.run(backbones=network, paddings="zero", controls=["random-weights", "permuted"], **SMALL)
    found = {(row["control"], row["weights"].partition(":")[0], row["status"]) for row in results.rows}
    assert found == {(None, "module", "ok"), ("random-weights", "random", "ok"), ("permuted", "module", "ok")}


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("keywords", "arguments", "error"),
    [
        ({"paddings": "zeros"}, ("--paddings", "zeros"), UsageError),
        ({"paddings": []}, ("--paddings", ""), UsageError),
        ({"train_count": 0}, ("--train-count", "0"), UsageError),
        ({"taps": "9"}, ("--taps", "9"), UsageError),
        ({"images": "no/such"}, ("--images", "no/such"), UsageError),
        ({"weights": "pretrained"}, ("--weights", "pretrained"), MissingError),
        ({"published": "nothing"}, ("--published", "nothing"), UsageError),
        ({"shard": "3/2"}, ("--shard", "3/2"), UsageError),
        ({"csv": "no/such/file.csv"}, ("--csv", "no/such/file.csv"), UsageError),
        ({"config": "missing.yaml"}, ("missing.yaml",), UsageError),
        ({"image_size": 16}, ("--image-size", "16"), UsageError),
    ],
)
def test_its_errors_are_the_commands(
    keywords: dict[str, Any], arguments: tuple[str, ...], error: type[PosbenchError], posbench: Posbench
) -> None:
    ran = posbench(*RUN, *arguments)
    with pytest.raises(error) as raised:
        api.run(**{"backbones": "tiny", "paddings": "zero,circular", **SMALL, **keywords})
    assert ran.err.splitlines()[-1] == f"posbench: {raised.value}"
    assert ran.code == raised.value.exit_code


@pytest.mark.usefixtures("tiny", "posbench")
@pytest.mark.parametrize(
    ("keywords", "told"),
    [
        ({"backbones": [small()]}, "wrap it by posbench.backbone"),
        ({"images": torch.rand(4, 3, 99, 99)}, r"not a Tensor: wrap it by posbench.images\(tensor_or_dataset\)"),
        ({"paddings": [api.Target(name="T", summary="", version="1", draw=np.zeros)]}, "expected names or Padding"),
        (
            {"paddings": [api.Padding(name="zero", summary="", version="2")]},
            "position-bench .* offers one of this name",
        ),
        ({"csv": "-"}, "for the command line"),
        ({"jobs": 2, "backbones": api.backbone(small(), ["0"], name="mine")}, "'mine' is known to this process alone"),
        ({"time_limit": 9, "paddings": api.Padding(name="p", summary="", version="1")}, "'p' is known to this"),
        ({"seeds": ["x"]}, "whole number"),
        ({"targets": 7}, "not a int"),
    ],
)
def test_mistakes_of_python_are_told(keywords: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        api.run(**{"backbones": "tiny", "paddings": "zero", **SMALL, **keywords})


def test_the_command_and_the_function_are_one_run(
    posbench: Callable[..., Ran], tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def run(config: RunConfig, *others: object, **more: object) -> Results:
        asked.append(config)
        return whole(config, *others, **more)  # type: ignore[arg-type]

    whole = running.run
    monkeypatch.setattr(running, "run", run)
    api.run(backbones=[tiny], paddings="zero", targets=["H", "G"], seeds=[1, 2], store="a.db", dry_run=True)
    options = ("--backbones", tiny, "--paddings", "zero", "--targets", "H,G", "--seeds", "1,2", "--store", "a.db")
    assert posbench("run", *options, "--dry-run").code == 0
    assert asked[0] == asked[1]


@pytest.mark.usefixtures("tiny", "posbench")
def test_a_job_that_fails_is_in_the_results() -> None:
    def pad(x: torch.Tensor, sides: api.Sides) -> torch.Tensor:
        raise RuntimeError("no padding today")

    bad = api.Padding(name="bad", summary="", version="1", pad=pad)
    results = api.run(backbones="tiny", paddings=[bad, "zero"], **SMALL)
    assert results.failed
    assert [row["status"] for row in results.rows] == ["failed"] * 2 + ["ok"] * 2
    assert "no padding today" in results.rows[0]["reason"]


@pytest.mark.usefixtures("tiny", "posbench")
def test_a_file_of_options_and_keywords_over_it() -> None:
    Path("mine.yaml").write_text("backbones: [tiny]\nstore: kept.db\npaddings: [zero, circular]\n", encoding="utf-8")
    results = api.run("mine.yaml", paddings="reflect", csv="rows.csv", **SMALL)
    assert results.store == Path("kept.db")
    assert results.store.exists()
    assert {row["padding"] for row in results.rows} == {"reflect"}
    assert Path("rows.csv").read_text(encoding="utf-8") == to_csv(results.rows)


@pytest.mark.usefixtures("tiny", "posbench")
def test_a_dry_run_computes_nothing() -> None:
    results = api.run(backbones="tiny", paddings="zero,circular", dry_run=True, store="kept.db", **SMALL)
    assert not Path("kept.db").exists()
    assert results.rows == ()
    assert list(results.jobs()["to_do"]) == [True, True]
    api.run(backbones="tiny", paddings="zero", store="kept.db", **SMALL)
    again = api.run(backbones="tiny", paddings="zero,circular", dry_run=True, store="kept.db", **SMALL)
    assert list(again.jobs()["to_do"]) == [False, True]


@pytest.mark.usefixtures("tiny", "posbench")
def test_an_interrupted_run_says_what_is_kept() -> None:
    def draw(size: int) -> np.ndarray[Any, Any]:
        raise KeyboardInterrupt

    stops = {**SMALL, "targets": api.Target(name="stops", summary="", version="1", draw=draw)}
    with pytest.raises(Interrupted, match="name one to go on from"):
        api.run(backbones="tiny", paddings="zero", **stops)
    with pytest.raises(Interrupted, match=r"they are stored in 'kept\.db'"):
        api.run(backbones="tiny", paddings="zero", store="kept.db", **stops)


@pytest.mark.usefixtures("posbench")
def test_a_plugin_that_is_left_out_is_told(install: Callable[..., None]) -> None:
    install("posbench-broken", "raise RuntimeError('broken')")
    results = api.run(backbones="none", dry_run=True, **SMALL)
    assert "posbench-broken" in results.warnings[0]


@pytest.mark.usefixtures("tiny", "posbench")
def test_images_that_cannot_be_read_are_told() -> None:
    Path("mine").mkdir()
    for i in range(20):
        Image.fromarray(np.full((70, 70, 3), i, np.uint8)).save(f"mine/{i}.png")
    Path("mine/bad.png").write_text("no image", encoding="utf-8")
    results = api.run(backbones="tiny", paddings="zero", **{**SMALL, "images": Path("mine"), "weights": "random"})
    assert [warning.partition(" (")[0].partition(": bad@")[0] for warning in results.warnings] == [
        f"1 images of {results.rows[0]['images']} cannot be read and are left out"
    ]
