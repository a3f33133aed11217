"""Contract checks of image sources, targets and metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import torch

from posbench.bench.targets import DRAWN_AT
from posbench.core.errors import PosbenchError
from posbench.data.photographs import readable_photographs
from posbench.plugin.components import Images, Metric, Target
from posbench.plugin.features import Features
from posbench.plugin.observation import Observation, Reading, Split
from posbench.testing.assertions import expect, same_tensors, twice


def check_images(images: Images) -> None:
    """Raise AssertionError unless a source lists readable photographs, or draws images.

    Photographs: at least one file, and all can be read. Drawn images: uint8 [size, size, 3] for sizes 32 and 57, which
    depend on the generator only: the same generator gives the same image, and no other random state changes.
    """
    where, photographs, draw = images.name, images.photographs, images.draw
    if photographs is not None:
        first, second = twice(lambda: [str(path) for path in photographs()], where)
        expect(first == second, where, "asked again, it names other photographs")
        try:
            readable = readable_photographs(images)
        except PosbenchError as error:
            raise AssertionError(f"{where}: {error}") from error
        expect(bool(readable.photographs), where, "it has no photograph")
        expect(not readable.left_out, where, f"some photographs cannot be read: {', '.join(readable.left_out)}")
    for size, seed in product((32, 57), (0, 1)) if draw else ():
        here = f"{where}, size {size}"
        drawn, again = twice(
            lambda size=size, seed=seed: draw(np.random.default_rng(seed), size),  # type: ignore[misc]
            here,
        )
        expect(isinstance(drawn, np.ndarray), here, f"it draws a {type(drawn).__name__}, no array")
        expect(drawn.shape == (size, size, 3), here, f"it draws {drawn.shape}, not {(size, size, 3)}")
        expect(drawn.dtype == np.uint8, here, f"it draws {drawn.dtype}, not uint8")
        expect(np.array_equal(drawn, again), here, "the same generator gave another image")


def check_target(target: Target) -> None:
    """Raise AssertionError unless a target draws the same finite, real, non-constant pattern [256, 256] each time."""
    where = target.name
    drawn, again = twice(lambda: np.asarray(target.draw(DRAWN_AT)), where)
    expect(drawn.shape == (DRAWN_AT, DRAWN_AT), where, f"it draws {drawn.shape}, not {(DRAWN_AT, DRAWN_AT)}")
    expect(drawn.dtype.kind in "fiu", where, f"it draws {drawn.dtype}, no real numbers")
    expect(bool(np.isfinite(drawn).all()), where, "some values are not finite")
    expect(np.array_equal(drawn, again), where, "drawn again, it is another pattern")
    expect(bool(np.ptp(drawn) > 0), where, "it is constant: every readout draws that")


def check_metric(metric: Metric) -> None:
    """Raise AssertionError unless a metric scores predicted maps, or returns readings of a network's features.

    Metrics with `score`: each of six float64 predictions [26, 26], one of them constant, gets a finite score that does
    not depend on the others. No prediction scores better than the target itself. Predictions and target do not change.
    Metrics with `of_job`: a list of finite readings of known photographs. Both return the same values each time.
    """
    if metric.score:
        _check_score(metric, metric.score)
    if metric.of_job:
        _check_of_job(metric.name, metric.of_job)


def _check_score(metric: Metric, score: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
    where, generator = metric.name, torch.Generator().manual_seed(0)
    target = torch.linspace(0, 1, 26, dtype=torch.float64).expand(26, 26).clone()
    noise = torch.randn(6, 26, 26, dtype=torch.float64, generator=generator)
    predictions = target + noise * torch.tensor([0, 0.1, 0.5, 1, 2, 0], dtype=torch.float64)[:, None, None]
    predictions[5] = 0.5
    original = (predictions.clone(), target.clone())
    scores, again = twice(lambda: score(predictions, target), where)
    expect(torch.is_tensor(scores) and scores.shape == (6,), where, "it must return one score an image, [6] here")
    expect(bool(scores.isfinite().all()), where, "some scores are not finite (image 6 is constant)")
    expect(torch.equal(scores, again), where, "the same maps gave other scores")
    expect(same_tensors(original, (predictions, target)), where, "the predictions or the target were changed")
    alone = torch.cat([score(prediction[None], target) for prediction in predictions])
    near = torch.allclose(alone.double(), scores.double(), rtol=1e-9, atol=1e-9)
    expect(near, where, "the score of an image depends on the others")
    sign = 1 if metric.higher_is_better else -1
    best = bool((sign * scores <= sign * scores[0] + 1e-9).all())
    expect(best, where, "a map that is not the target scores better than the target: see higher_is_better")


def _check_of_job(where: str, of_job: Callable[[Observation], Sequence[Reading]]) -> None:
    generator = torch.Generator().manual_seed(0)
    taps = tuple(torch.randn(24, side, side, 8, generator=generator) for side in (28, 14))
    features = Features(taps, 28)
    photographs = [f"photo-{i // 2}" for i in range(12)]
    train, test = features.of_images(slice(0, 12)), features.of_images(slice(12, 24))
    observation = Observation([Split(train, test, photographs)], test, photographs, lambda: train)
    original = [tap.clone() for tap in taps]
    readings, again = twice(lambda: list(of_job(observation)), where)
    expect(bool(readings), where, "it returned no reading")
    for reading, other in zip(readings, again, strict=True):
        expect(isinstance(reading, Reading), where, f"it returned a {type(reading).__name__}, no Reading")
        values = torch.tensor([*reading.by_photograph.values(), *([] if reading.value is None else [reading.value])])
        expect(len(values) > 0, where, "a reading has neither a value nor one a photograph")
        expect(bool(values.double().isfinite().all()), where, "some values are not finite")
        expect(reading.by_photograph.keys() <= {*photographs}, where, "a reading is of a photograph that was not given")
        same = reading.by_photograph == other.by_photograph and reading.value == other.value
        expect(same, where, "the same features gave other values")
    expect(same_tensors(original, taps), where, "the features were changed")
