"""Jobs as they run: one pass each, failures kept to themselves, and what is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from posbench.bench import controls, scoring
from posbench.bench.cache import JobCache, Stopwatch
from posbench.bench.engine import JobResult
from posbench.bench.plan import Plan, PlanInputs, Source, make_plan
from posbench.bench.records import CellRecord
from posbench.bench.targets import pattern
from posbench.builtin import targets
from posbench.builtin.metrics import scores as metrics
from posbench.builtin.readouts.hooks import ridge
from posbench.core.errors import Inapplicable, MissingError, UsageError
from posbench.core.statistics import interval
from posbench.data.crops import TEST, Crops, folds
from posbench.data.folder import folder_images
from posbench.network.weights import NONE, Weights
from posbench.plugin.components import Backbone, Images, Metric, Padding, Readout, Target
from posbench.plugin.observation import Observation, Reading
from posbench.plugin.operation import Sides
from posbench.plugin.registry import load_registry
from posbench.plugin.resampling import resize
from posbench.plugin.training import Training
from posbench.report.rows import row
from posbench.runner.jobs import JobRunner
from posbench.runner.observers import JobObserver
from posbench.runner.worker import InProcessPool
from posbench.store.store import Store

#: The images of every forward pass of the network below since the test began.
passes: list[int] = []


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 6, 3, stride=4, padding=1)
        self.two = nn.Conv2d(6, 8, 3, stride=4, padding=1)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        if x.device.type != "meta":  # where only shapes are followed
            passes.append(len(x))
        first = self.one(x).relu()
        return [first, self.two(first).relu()]


def speckle(rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    return rng.integers(0, 256, (size, size, 3), dtype=np.uint8)


NET = Backbone(name="net", summary="", version="1", build=Network, taps=2)
ZERO = Padding(name="zero", summary="", version="1", pad=None)
CIRCULAR = load_registry().get(Padding, "circular")
REFLECT = load_registry().get(Padding, "reflect")
H, V, G = (
    Target(name=name, summary="", version="1", draw=function)
    for name, function in (("H", targets.horizontal), ("V", targets.vertical), ("G", targets.gaussian))
)
RIDGE = Readout(name="ridge", summary="", version="1", fit=ridge, grid=lambda side: side - 2)
SPC = Metric(name="spc", summary="", version="1", score=metrics.spc, rank_correlation=True)
MAE = Metric(name="mae", summary="", version="1", score=metrics.mae, higher_is_better=False)
SPECKLE = Source(Images(name="speckle", summary="", version="1", draw=speckle))


def failing(*arguments: object) -> Any:
    raise ValueError("out of order\nfor good")


def inapplicable(*arguments: object) -> Any:
    raise Inapplicable("cannot exist")


def plan(**changes: Any) -> Plan:
    defaults: dict[str, Any] = {
        "networks": [(NET, [Weights("random:0", seed=0)])],
        "paddings": [ZERO],
        "targets": [H, V],
        "readouts": [RIDGE],
        "metrics": [SPC],
        "sources": [(SPECKLE, SPECKLE)],
        "seeds": [0],
        "taps": ["all"],
        "n_train": 10,
        "n_test": 6,
        "image_size": 64,
        "precision": "fp32",
    }
    return make_plan(PlanInputs(**(defaults | changes)))


@dataclass
class Log(JobObserver):
    """An observer that records its events."""

    events: list[tuple[str, object]] = field(default_factory=list)

    def started(self, job_id: str) -> None:
        self.events.append(("started", job_id))

    def progress(self, job_id: str, images: int) -> None:
        self.events.append(("saw", images))

    def finished(self, job_id: str, result: JobResult) -> None:
        self.events.append(("finished", result.status))

    @property
    def images(self) -> int:
        return sum(count for what, count in self.events if what == "saw" and isinstance(count, int))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "posbench.db") as opened:
        yield opened


@pytest.fixture(autouse=True)
def _fresh() -> None:
    passes.clear()


def go(wanted: Plan, store: Store, *, fail_fast: bool = False, log: Log | None = None) -> list[CellRecord]:
    """Compute what the store lacks; the records of the whole plan."""
    tasks = wanted.tasks(store.finished(wanted.metrics), store.measured())
    observer = log or Log()
    list(JobRunner(store, InProcessPool(wanted, "cpu"), observer, fail_fast=fail_fast).run(tasks))
    return store.records(cell.id for cell in wanted.cells)


def value(record: CellRecord, metric: str = "spc") -> float:
    return next(score.value for score in record.outcome.scores if score.metric == metric)


@pytest.mark.parametrize("padding", [ZERO, CIRCULAR])
def test_a_job_is_one_pass_whatever_is_read_from_it(padding: Padding, store: Store) -> None:
    least = plan(paddings=[padding], targets=[H])
    log = Log()
    go(least, store, log=log)
    once = list(passes)
    # Each image once; one more of them tells whether the strategy reaches every operation.
    assert sorted(once, reverse=True)[:3] == [8, 6, 2]
    assert sum(once) <= 10 + 6 + 1
    assert log.images == 16
    assert [what for what, _ in log.events] == ["started", "saw", "saw", "saw", "finished"]
    passes.clear()
    seeded = replace(RIDGE, name="seeded", stochastic=True)
    most = plan(
        networks=[(NET, [Weights("imagenet:net@1")])],  # a random network's seed would be its readouts' too
        paddings=[padding],
        targets=[H, V, G],
        readouts=[RIDGE, seeded],
        seeds=[0, 1],
        metrics=[SPC, MAE],
        taps=["all", "1", "2"],
    )
    assert len(most.cells) == 3 * 3 * 3
    records = go(most, store)
    assert passes == once
    assert [record.outcome.status for record in records] == ["ok"] * 27


def test_many_images_pass_once_too(store: Store) -> None:
    go(plan(n_train=70, n_test=40), store)
    assert sum(passes) == 110


def test_jobs_that_share_a_network_build_it_once(store: Store) -> None:
    built: list[int] = []

    def build() -> nn.Module:
        network = Network()
        if network.one.weight.device.type != "meta":
            built.append(1)
        return network

    counted = replace(NET, build=build)
    weights = [Weights("random:0", seed=0), Weights("random:1", seed=1)]
    go(plan(networks=[(counted, weights)], paddings=[ZERO, CIRCULAR, REFLECT]), store)
    assert len(built) == 2


def test_different_seeds_are_different_networks(store: Store) -> None:
    weights = [Weights("random:0", seed=0), Weights("random:1", seed=1)]
    first, second = go(plan(networks=[(NET, weights)], targets=[H]), store)
    assert value(first) != value(second)


def test_targets_are_scored_as_each_alone(tmp_path: Path) -> None:
    with Store(tmp_path / "together.db") as store:
        together = go(plan(targets=[H, V, G]), store)
    for target, record in zip((H, V, G), together, strict=True):
        with Store(tmp_path / f"{target.name}.db") as store:
            (alone,) = go(plan(targets=[target]), store)
        assert alone.cell_id == record.cell_id
        assert value(alone) == pytest.approx(value(record), abs=0.005)


def test_position_is_found_at_the_border_and_lost_without_one(store: Store) -> None:
    bordered, circular = go(plan(paddings=[ZERO, CIRCULAR], targets=[G], n_train=60, n_test=60), store)
    assert value(bordered) > 0.3
    assert abs(value(circular)) < 0.15


@pytest.mark.parametrize("components", ["padding", "target", "readout", "metric", "images", "backbone"])
def test_what_raises_fails_its_own_jobs_and_the_others_finish(components: str, store: Store) -> None:
    bad: dict[str, Any] = {
        "padding": {"paddings": [Padding(name="bad", summary="", version="1", pad=failing), ZERO]},
        "target": {"targets": [Target(name="bad", summary="", version="1", draw=failing)]},
        "readout": {"readouts": [replace(RIDGE, fit=failing)]},
        "metric": {"metrics": [replace(SPC, score=failing)]},
        "images": {
            "sources": [
                (s := Source(Images(name="bad", summary="", version="1", draw=failing)), s),
                (SPECKLE, SPECKLE),
            ]
        },
        "backbone": {
            "networks": [
                (Backbone(name="bad", summary="", version="1", build=failing, taps=2), [Weights("random:0", seed=0)]),
                (NET, [Weights("random:0", seed=0)]),
            ]
        },
    }[components]
    log = Log()
    records = go(plan(**bad), store, log=log)
    failed = [record for record in records if record.outcome.status == "failed"]
    assert len(failed) == {"target": 1}.get(components, 2)
    name = {"readout": "ridge", "metric": "spc"}.get(components, "bad")
    assert {record.outcome.reason for record in failed} == {f"{components} {name!r}: ValueError: out of order for good"}
    assert all(not record.outcome.scores for record in failed)
    if len(records) > len(failed):
        assert [record.outcome.status for record in records] == ["failed", "failed", "ok", "ok"]
        assert [state for what, state in log.events if what == "finished"] == ["failed", "ok"]


def test_what_cannot_exist_is_skipped_for_good(store: Store) -> None:
    narrow = Padding(name="narrow", summary="", version="1", pad=inapplicable)
    wanted = plan(paddings=[narrow, ZERO])
    records = go(wanted, store)
    assert [record.outcome.status for record in records] == ["skipped", "skipped", "ok", "ok"]
    assert records[0].outcome.reason.endswith(": cannot exist")
    passes.clear()
    assert go(wanted, store) == records
    assert not passes


def test_what_failed_is_tried_again(store: Store) -> None:
    broken = [True]

    def pad(x: torch.Tensor, sides: Sides) -> torch.Tensor:
        if broken:
            raise OSError("busy")
        return nn.functional.pad(x, sides)

    wanted = plan(paddings=[Padding(name="moody", summary="", version="1", pad=pad)])
    assert {record.outcome.status for record in go(wanted, store)} == {"failed"}
    broken.clear()
    assert {record.outcome.status for record in go(wanted, store)} == {"ok"}


def test_fail_fast_stops_at_the_first_failure(store: Store) -> None:
    bad = Padding(name="bad", summary="", version="1", pad=failing)
    wanted = plan(paddings=[ZERO, bad, CIRCULAR])
    records = go(wanted, store, fail_fast=True)
    assert [record.outcome.status for record in records] == ["ok", "ok", "failed", "failed"]


def test_fail_fast_goes_past_what_cannot_exist(store: Store) -> None:
    narrow = Padding(name="narrow", summary="", version="1", pad=inapplicable)
    records = go(plan(paddings=[narrow, ZERO]), store, fail_fast=True)
    assert [record.outcome.status for record in records] == ["skipped", "skipped", "ok", "ok"]


def test_a_checkpoint_that_does_not_fit_stops_the_run(store: Store, tmp_path: Path) -> None:
    torch.save({"other": torch.zeros(1)}, tmp_path / "weights.pt")
    weights = Weights("file:weights.pt", "", tmp_path / "weights.pt")
    with pytest.raises(MissingError, match=r"they lack one\.bias, one\.weight"):
        go(plan(networks=[(NET, [weights])]), store)
    # It is found before another network has run.
    with pytest.raises(MissingError, match="they lack one"):
        go(plan(networks=[(NET, [Weights("random:0", seed=0)]), (replace(NET, name="other"), [weights])]), store)
    assert not passes or max(passes) == 1  # one image, to see what the taps depend on
    assert not store.records()


def test_what_a_readout_remarks_stands_beside_its_scores(store: Store) -> None:
    def remarking(training: Training) -> Any:
        fitted = ridge(training)

        class Remarking:
            remarks = ("", "too few")

            def predict(self, features: Any) -> torch.Tensor:
                return fitted.predict(features)

        return Remarking()

    records = go(plan(readouts=[replace(RIDGE, fit=remarking)]), store)
    assert [(record.outcome.status, record.outcome.reason) for record in records] == [("ok", ""), ("ok", "too few")]


class Wrong:
    """A readout whose maps have another shape, or are not finite."""

    def __init__(self, shape: Sequence[int], fill: float) -> None:
        self.shape, self.fill = shape, fill

    def predict(self, features: object) -> torch.Tensor:
        return torch.full(tuple(self.shape), self.fill)


@pytest.mark.parametrize(
    ("shape", "fill", "reason"),
    [
        ((6, 2, 5, 5), 0.0, r"readout 'ridge' must predict maps of shape (6, 2, 6, 6) on cpu"),
        ((6, 2, 6, 6), torch.nan, "readout 'ridge' predicts values that are not finite"),
    ],
)
def test_a_readout_that_breaks_its_promise_is_told(
    shape: Sequence[int], fill: float, reason: str, store: Store
) -> None:
    records = go(plan(readouts=[replace(RIDGE, fit=lambda *_: Wrong(shape, fill))]), store)
    assert {(record.outcome.status, record.outcome.reason) for record in records} == {("failed", reason)}


@pytest.mark.parametrize(
    "draw",
    [lambda size: np.zeros((size, size + 1)), lambda size: np.full((size, size), np.nan), lambda size: np.zeros(size)],
)
def test_a_target_that_breaks_its_promise_is_named(draw: Callable[[int], Any], store: Store) -> None:
    (record,) = go(plan(targets=[Target(name="odd", summary="", version="1", draw=draw)]), store)
    assert record.outcome.reason == "target 'odd' must draw a finite array of shape (256, 256)"


def test_constant_predictions_are_counted(store: Store) -> None:
    flat = replace(RIDGE, fit=lambda *_: Wrong((6, 2, 6, 6), 0.25))
    for record in go(plan(readouts=[flat], metrics=[SPC, MAE]), store):
        assert record.outcome.status == "ok"
        assert record.outcome.degenerate == 1
        assert value(record) == 0
        assert value(record, "mae") > 0


def test_the_mean_map_and_each_photograph_are_stored(store: Store) -> None:
    rising = torch.arange(36.0).view(1, 1, 6, 6).expand(6, 2, 6, 6) * torch.arange(6.0).view(6, 1, 1, 1)

    class Rising:
        def predict(self, features: object) -> torch.Tensor:
            return rising

    records = go(plan(readouts=[replace(RIDGE, fit=lambda *_: Rising())], metrics=[SPC, MAE]), store)
    drawn = resize(pattern(H), 6).double()
    for record, target in zip(records, (drawn, drawn.T), strict=True):
        assert record.outcome.mean_map is not None
        assert np.frombuffer(record.outcome.mean_map, "<f4").tolist() == pytest.approx((2.5 * np.arange(36)).tolist())
        (mae,) = (score for score in record.outcome.scores if score.metric == "mae")
        expected = [float((rising[i, 0].double() - target).abs().mean()) for i in range(6)]
        assert list(mae.by_photograph.values()) == pytest.approx(expected)
        assert mae.value == pytest.approx(np.mean(expected))
        assert mae.lo is not None
        assert mae.lo < mae.value
        assert record.outcome.n_test_photos == 6
    kept = store.examples()
    assert set(kept) == {record.cell_id for record in records}
    for of_cell in kept.values():
        assert [example.photograph for example in of_cell] == list(mae.by_photograph)[:3]
        maps = [np.frombuffer(example.drawn, "<f2").astype(float).reshape(6, 6) for example in of_cell]
        np.testing.assert_array_equal(maps, rising[:3, 0].numpy())
        assert len(of_cell[0].thumbnail) == 3 * records[0].outcome.identity["image_size"] ** 2


def test_provenance_names_versions_photographs_and_stages(store: Store) -> None:
    photos = load_registry().get(Images, "photos")
    source = Source(photos, "0" * 64, 15)
    (record, *_) = go(plan(sources=[(source, source)], n_train=8, n_test=10), store)
    provenance = store.provenance(record.run_id)
    train, test = (set(provenance["photographs"][role]) for role in ("train", "test"))
    assert len(train) == 7
    assert len(test) == record.outcome.n_test_photos == 8
    assert not train & test
    assert set(provenance["seconds"]) == {"images", "network", "extraction", "readout", "scoring"}
    assert torch.__version__.startswith(provenance["packages"]["torch"])
    (score,) = record.outcome.scores
    assert set(score.by_photograph) == test


def test_global_random_states_are_left_as_they_were(store: Store) -> None:
    torch.manual_seed(5)
    torch.rand(2)
    before, numpys = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002  the global one is meant
    go(plan(paddings=[ZERO, CIRCULAR]), store)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpys)  # type: ignore[index]  # noqa: NPY002


def test_the_global_random_state_changes_nothing(tmp_path: Path) -> None:
    scores = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        with Store(tmp_path / f"{seed}.db") as store:
            scores.append([value(record) for record in go(plan(), store)])
    assert scores[0] == scores[1]


def test_a_metric_added_later_computes_only_what_lacks_it(store: Store) -> None:
    go(plan(paddings=[ZERO], metrics=[SPC, MAE]), store)
    before = go(plan(paddings=[ZERO, CIRCULAR], metrics=[SPC]), store)
    log = Log()
    after = go(plan(paddings=[ZERO, CIRCULAR], metrics=[SPC, MAE]), store, log=log)
    assert [what for what, _ in log.events].count("started") == 1
    assert after[:2] == before[:2]
    assert [value(record) for record in after] == [value(record) for record in before]
    assert [record.cell_id for record in after] == [record.cell_id for record in before]
    assert all(value(record, "mae") > 0 for record in after)


def test_a_metric_added_later_keeps_the_earlier_ones(store: Store) -> None:
    before = go(plan(metrics=[SPC]), store)
    after = go(plan(metrics=[MAE]), store)
    for old, new in zip(before, after, strict=True):
        assert {score.metric for score in new.outcome.scores} == {"spc", "mae"}
        assert value(new) == value(old)
    passes.clear()
    go(plan(metrics=[SPC]), store)
    assert not passes


def test_a_metric_that_fails_spoils_nothing_that_was_stored(store: Store) -> None:
    before = go(plan(metrics=[SPC]), store)
    go(plan(metrics=[SPC, replace(MAE, score=failing)]), store)
    for old, new in zip(before, store.records(record.cell_id for record in before), strict=True):
        assert value(new) == value(old)


def test_a_target_that_fails_takes_no_other_with_it(store: Store) -> None:
    bad = Target(name="bad", summary="", version="1", draw=failing)
    records = go(plan(targets=[H, bad, V]), store)
    assert [record.outcome.status for record in records] == ["ok", "failed", "ok"]
    assert [value(record) for record in records[::2]] == [value(r) for r in go(plan(targets=[H, V]), store)]


@pytest.mark.parametrize(("fit", "status"), [(failing, "failed"), (inapplicable, "skipped")])
def test_a_readout_that_fails_takes_no_other_with_it(fit: Any, status: str, store: Store) -> None:
    bad = replace(RIDGE, name="bad", fit=fit)
    records = go(plan(readouts=[RIDGE, bad]), store)
    assert [record.outcome.status for record in records] == ["ok", "ok", status, status]
    assert store.finished([SPC]) >= {record.cell_id for record in records[:2]}


def test_every_test_source_is_scored_on_its_own_images(store: Store) -> None:
    def bright(rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
        return rng.integers(128, 256, (size, size, 3), dtype=np.uint8)

    other = Source(Images(name="bright", summary="", version="1", draw=bright))
    together = go(plan(sources=[(SPECKLE, SPECKLE), (SPECKLE, other)], targets=[H]), store)
    with Store(store.path.with_name("alone.db")) as fresh:
        alone = go(plan(sources=[(SPECKLE, other)], targets=[H]), fresh)
    assert value(together[1]) == value(alone[0]) != value(together[0])


def test_training_features_and_fits_serve_every_test_source(store: Store) -> None:
    def bright(rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
        return rng.integers(128, 256, (size, size, 3), dtype=np.uint8)

    fitted: list[Training] = []

    def spy(training: Training) -> Any:
        fitted.append(training)
        return ridge(training)

    other = Source(Images(name="bright", summary="", version="1", draw=bright))
    readout = replace(RIDGE, fit=spy)
    log = Log()
    wanted = plan(
        sources=[(SPECKLE, SPECKLE), (SPECKLE, other)], readouts=[readout], paddings=[ZERO, CIRCULAR], taps=["all", "1"]
    )
    together = go(wanted, store, log=log)
    # Two paddings, two choices of taps: four fits, though four jobs have eight.
    assert len(fitted) == 4
    assert sorted(passes, reverse=True)[:8] == [8, 8, 6, 6, 6, 6, 2, 2]
    assert log.images == 4 * 16  # what a progress bar counts on
    with Store(store.path.with_name("alone.db")) as fresh:
        alone = [
            record
            for job, _ in wanted.jobs()
            for record in go(Plan(tuple(cell for cell in wanted.cells if cell.job == job), wanted.metrics), fresh)
        ]
    assert {r.cell_id: value(r) for r in alone} == {r.cell_id: value(r) for r in together}


def test_what_is_trained_on_does_not_depend_on_what_is_tested_on(store: Store) -> None:
    photos = Source(load_registry().get(Images, "photos"), "0" * 64, 15)
    fitted: list[Training] = []

    def spy(training: Training) -> Any:
        fitted.append(training)
        return ridge(training)

    wanted = plan(
        sources=[(photos, photos), (photos, SPECKLE), (SPECKLE, photos)],
        readouts=[replace(RIDGE, fit=spy)],
        targets=[H],
        n_train=20,
        n_test=10,
    )
    first, second, third = go(wanted, store)
    used = [store.provenance(record.run_id)["photographs"] for record in (first, second, third)]
    assert len(fitted) == 2
    assert used[0]["train"] == used[1]["train"]
    assert used[0]["test"] == used[2]["test"]
    assert set(fitted[0].photographs) == set(used[0]["train"])


def test_photographs_are_looked_at_before_anything_runs(store: Store, tmp_path: Path) -> None:
    (tmp_path / "torn").mkdir()
    for i in range(3):
        (tmp_path / "torn" / f"{i}.png").write_bytes(b"no picture %d" % i)
    torn = Source(folder_images(tmp_path / "torn"), "0" * 64, 3)
    with pytest.raises(UsageError, match=r"3 of the 3 images of folder:torn@.* cannot be read"):
        go(plan(sources=[(SPECKLE, SPECKLE), (torn, torn)]), store)
    assert store.records() == []
    assert not passes


def test_scores_at_image_size_are_those_of_resized_maps(store: Store) -> None:
    (small,) = go(plan(targets=[H], metrics=[SPC, MAE]), store)
    (large,) = go(plan(targets=[H], metrics=[SPC, MAE], score_at="image"), store)
    assert small.cell_id != large.cell_id
    assert large.outcome.mean_map == small.outcome.mean_map

    scored: list[tuple[torch.Tensor, torch.Tensor]] = []

    def spy(maps: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        scored.append((maps, target))
        return maps.mean(dim=(1, 2))

    for at in ("grid", "image"):
        go(plan(targets=[H], metrics=[replace(SPC, name=f"spy-{at}", score=spy)], score_at=at), store)
    (maps, _), (large_maps, large_target) = scored
    assert maps.shape == (6, 6, 6)
    assert large_maps.shape == (6, 64, 64)
    # 6 cells onto 64: halves of the outer cells repeat their value, and between centres it is a line.
    assert torch.allclose(large_maps[:, 0, 0], maps[:, 0, 0], atol=1e-6)
    # The target is drawn afresh at 64 of its 256 pixels: each is the mean of the middle two of four.
    ramp = torch.linspace(0, 1, 256, dtype=torch.float64)
    assert torch.allclose(large_target[0], ramp.view(64, 4)[:, 1:3].mean(1), atol=1e-6)


def test_images_too_small_are_refused_before_anything_runs(store: Store) -> None:
    vgg = load_registry().get(Backbone, "vgg16")
    networks = [(NET, [Weights("random:0", seed=0)]), (vgg, [Weights("random:0", seed=0)])]
    wide = replace(RIDGE, grid=lambda side: 26)
    with pytest.raises(UsageError, match="image size 15 is too small for backbone 'vgg16': give --image-size 32"):
        go(plan(networks=networks, image_size=15, readouts=[wide]), store)
    assert not passes
    assert store.records() == []


def test_the_control_reads_the_image_itself(store: Store) -> None:
    def ramp(rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
        image = np.repeat(np.linspace(0, 255, size)[None, :, None], size, 0).repeat(3, 2)
        return (image + rng.integers(0, 2, image.shape)).clip(0, 255).astype(np.uint8)

    none = load_registry().get(Backbone, "none")
    source = Source(Images(name="ramp", summary="", version="1", draw=ramp))
    (across, down) = go(plan(networks=[(none, [NONE])], sources=[(source, source)]), store)
    assert value(across) > 0.95
    assert abs(value(down)) < 0.3
    assert across.outcome.identity["padding"]["name"] == "none"


def test_components_may_hold_lists(store: Store) -> None:
    # A plugin's author need not know that records are compared and hashed.
    record = replace(NET, mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.5], checkpoints=[])  # type: ignore[arg-type]
    assert {r.outcome.status for r in go(plan(networks=[(record, [Weights("random:0", seed=0)])]), store)} == {"ok"}


def photographs(count: int) -> Source:
    return Source(load_registry().get(Images, "photos"), "0" * 64, count)


def test_where_photographs_are_few_each_is_tested_by_a_readout_that_has_not_seen_it(store: Store) -> None:
    trained: list[Training] = []
    drawn_for: list[int] = []

    def spy(training: Training) -> Any:
        trained.append(training)
        fitted = ridge(training)

        class Counting:
            def predict(self, features: Any) -> torch.Tensor:
                drawn_for.append(len(features))
                return fitted.predict(features)

        return Counting()

    photos = photographs(15)
    wanted = plan(
        sources=[(photos, photos), (photos, SPECKLE)], readouts=[replace(RIDGE, fit=spy)], targets=[H], n_test=20
    )
    both, other = go(wanted, store)
    used = store.provenance(both.run_id)["photographs"]
    assert both.outcome.n_test_photos == len(used["test"]) == 15
    first, second = (set(training.photographs) for training in trained)
    assert not first & second
    assert first | second == set(used["train"])
    # Twenty test images each, drawn by one of the two readouts; and they are fitted once for both jobs.
    assert len(trained) == 2
    assert sum(drawn_for) == 40
    tested = [score.by_photograph for score in both.outcome.scores]
    assert set(tested[0]) == set(used["test"])
    assert other.outcome.n_test_photos == 20
    # What was tested has trained the other readout in the first job, and not in the second.
    for record, mutual in ((both, True), (other, False)):
        [score] = [score for score in record.outcome.scores if score.metric == "spc"]
        assert (score.value, score.lo, score.hi) == interval(list(score.by_photograph.values()), cross_fitted=mutual)
        assert row(record).mutual is mutual


def test_folds_keep_photographs_apart() -> None:
    def some(*names: str) -> Crops:
        return Crops(np.zeros((len(names), 4, 4, 3), np.uint8), names)

    train, test = folds(some("a", "b", "c", "a", "b"), some("c", "a", "b", "c"))
    assert train.tolist() == [0, 0, 1, 0, 0]
    assert test.tolist() == [1, 0, 0, 1]
    # What training does not show is dealt out image by image, equal ones too.
    assert folds(some("a", "b"), some("d", "d", "d", "a"))[1].tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("n_test", [1, 20])
def test_equal_test_images_are_drawn_for_by_cross_fitted_readouts(n_test: int, store: Store) -> None:
    photos = photographs(15)
    black = Source(
        Images(name="black", summary="", version="1", draw=lambda rng, size: np.zeros((size, size, 3), "u1"))
    )
    measure = Metric(name="one", summary="", version="1", of_job=lambda seen: [Reading({"a": float(len(seen.splits))})])
    wanted = plan(sources=[(photos, photos), (photos, black)], targets=[H], metrics=[SPC, measure], n_test=20)
    cells = [
        cell if cell.job.test is not black else replace(cell, job=replace(cell.job, n_test=n_test))
        for cell in wanted.cells
    ]
    records = go(replace(wanted, cells=tuple(cells)), store)
    assert [record.outcome.reason for record in records] == ["", ""]
    assert [record.outcome.n_test_photos for record in records] == [15, 1]
    assert {record.measurement.value for record in store.measurements()} == {2.0, float(min(2, n_test))}


def test_controls_in_a_job_share_its_pass_and_say_what_they_must(store: Store) -> None:
    """A network that writes its own position into its features, and one that cannot."""
    names = ["held-out-positions", "permuted", "smooth-random", "noise-features", "target-features"]
    inputs = controls.ControlInputs(none=NET, null_images=SPECKLE, photographs=None, seeds=[0])
    least = plan(targets=[H], paddings=[ZERO, CIRCULAR], n_train=60, n_test=60)
    wanted = controls.with_controls(least, controls.select_controls(names, load_registry()), inputs)
    records = go(wanted, store)
    assert sum(passes) <= 2 * (60 + 60) + 1
    scores = {
        (record.outcome.identity["padding"]["name"], record.outcome.identity.get("control", "")): value(record)
        for record in records
    }
    assert len(scores) == 2 * 7
    for name in ("zero", "circular"):
        assert abs(scores[name, "noise-features"]) < 0.15
        assert scores[name, "target-features"] > 0.95
    assert scores["zero", "held-out-positions-columns"] > 0.25
    assert abs(scores["circular", "held-out-positions-columns"]) < 0.15
    # What was asked for beside it changes no plain score.
    with Store(store.path.with_name("alone.db")) as fresh:
        for record in go(least, fresh):
            assert value(record) == scores[record.outcome.identity["padding"]["name"], ""]


def test_a_larger_test_image_is_read_by_the_same_readout(store: Store) -> None:
    inputs = controls.ControlInputs(none=NET, null_images=SPECKLE, photographs=None, seeds=[0])
    trained: list[Training] = []

    def spy(training: Training) -> Any:
        trained.append(training)
        return ridge(training)

    least = plan(targets=[G], readouts=[replace(RIDGE, fit=spy)], n_train=40, n_test=40)
    records = go(
        controls.with_controls(least, controls.select_controls(["held-out-size"], load_registry()), inputs), store
    )
    assert len(trained) == 1
    outcomes = {record.outcome.identity.get("control", ""): record.outcome for record in records}
    sides = {name: len(outcome.mean_map or b"") // 4 for name, outcome in outcomes.items()}
    assert sides == {
        "": 6**2,
        **{f"held-out-size-256-{anchor}": 7**2 for anchor in ("border", "pixel")},
        **{f"held-out-size-288-{anchor}": 8**2 for anchor in ("border", "pixel")},
    }
    assert all(outcome.reach is None for name, outcome in outcomes.items() if name)
    assert outcomes[""].reach is not None


def test_turned_photographs_are_the_same_crops_upside_down(store: Store) -> None:
    photos = photographs(15)
    job = plan(sources=[(photos, photos)], targets=[H], n_test=20).cells[0].job
    turned = replace(job, test=replace(job.test, rotated=True))
    shared = JobCache("cpu", Stopwatch())
    upright, other = (shared.crops(each, TEST) for each in (job, turned))
    assert upright.photographs == other.photographs
    assert np.array_equal(upright.pixels[:, ::-1, ::-1], other.pixels)


def test_metrics_of_a_job_are_measured_once_and_kept(store: Store) -> None:
    observations: list[Observation] = []

    def of_job(observation: Observation) -> list[Reading]:
        observations.append(observation)
        names = observation.photographs
        return [
            Reading({name: float(i) for i, name in enumerate(names)}, picture=torch.ones(2, 3)),
            Reading({}, "1", 0.25),
        ]

    counting = Metric(name="counting", summary="", version="1", of_job=of_job)
    broken = Metric(name="broken", summary="", version="1", of_job=failing)
    around = Metric(
        name="around", summary="", version="1", of_job=lambda seen: [Reading({}, value=len(seen.surrounded()))]
    )
    wanted = plan(metrics=[SPC, counting, broken, around])
    log = Log()
    go(wanted, store, log=log)
    assert [state for what, state in log.events if what == "finished"] == ["failed"]
    measurements = {
        (record.measurement.metric, record.measurement.tap): record.measurement for record in store.measurements()
    }
    together, tap = measurements["counting", "all"], measurements["counting", "1"]
    assert (together.value, together.lo is not None, together.columns) == (2.5, True, 3)
    assert np.frombuffer(together.picture or b"", "<f4").tolist() == [1.0] * 6
    assert (tap.value, tap.lo, tap.by_photograph) == (0.25, None, {})
    assert (measurements["broken", "all"].status, measurements["broken", "all"].reason) == (
        "failed",
        "metric 'broken': ValueError: out of order for good",
    )
    # Images that are drawn, and not on a torus, have no surroundings.
    assert measurements["around", "all"].status == "skipped"
    assert measurements["around", "all"].value is None
    go(wanted, store)
    assert len(observations) == 1  # only what failed is tried again
    assert len(observations[0].splits) == 1


def test_surroundings_are_had_where_images_have_them(store: Store) -> None:
    leaves = Source(load_registry().get(Images, "leaves"))

    def of_job(observation: Observation) -> list[Reading]:
        around = observation.surrounded()
        assert around is observation.surrounded()  # one more pass, whoever asks
        differences = (around.taps[0] - observation.test.taps[0]).abs().amax(dim=(0, 3))
        return [Reading({}, value=float(differences[0].max())), Reading({}, "1", float(differences[1:, 1:].max()))]

    edge = Metric(name="edge", summary="", version="1", of_job=of_job)
    go(plan(metrics=[SPC, edge], sources=[(leaves, leaves)]), store)
    border, within = (record.measurement.value for record in store.measurements())
    assert border is not None
    assert within is not None
    assert border > 100 * within


def test_scoring_some_images_at_a_time_changes_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = go(plan(score_at="image"), store)
    monkeypatch.setattr(scoring, "MAP_CELLS", 4 * 64**2)  # of six images: four, then two
    with Store(tmp_path / "other.db") as other:
        parts = go(plan(score_at="image"), other)
    assert [record.outcome.scores for record in whole] == [record.outcome.scores for record in parts]
    assert [record.outcome.degenerate for record in whole] == [record.outcome.degenerate for record in parts]
