"""Scores predicted maps: every metric for each image, then the mean over photographs with its interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from posbench.bench.field_types import Status
from posbench.bench.plan import Cell
from posbench.bench.reach import reach
from posbench.bench.records import Example, Measurement, Outcome, Score
from posbench.core.errors import ComponentError, Inapplicable, PosbenchError
from posbench.core.statistics import interval
from posbench.data.crops import Crops
from posbench.plugin.components import Metric
from posbench.plugin.observation import Reading
from posbench.plugin.resampling import resize
from posbench.plugin.sandbox import describe_error, sandboxed
from posbench.plugin.training import held_out

#: A map whose values lie within this share of the target's range is constant: the rest is rounding, and has no order.
FLAT = 1e-4
#: How many values of maps are scored at once.
MAP_CELLS = 2**22
#: How many photographs an example is kept of.
EXAMPLES = 3
#: The longest side of an example's thumbnail, in pixels: enough to recognise the photograph.
THUMBNAIL_SIDE = 112


def score_cell(
    cell: Cell,
    predictions: torch.Tensor,
    pattern: torch.Tensor,
    metrics: Sequence[Metric],
    test: Crops,
    *,
    remark: str,
    mutual: bool,
) -> Outcome:
    """Score the predictions of a cell. A metric that raises fails the cell, but the other metrics keep their scores.

    The predictions are the map of each test image, float32 [n, side, side], and the pattern is the target, float32 at
    its own resolution. The remark is the readout's on the target; for `mutual` see `summarised`.
    """
    by_metric: dict[Metric, list[torch.Tensor]] = {metric: [] for metric in metrics}
    problems, degenerate = [], 0.0
    # Maps at image size are large: they are scored in batches.
    for batch in torch.split(predictions, max(1, MAP_CELLS // cell.job.test_image_size**2)):
        maps, target = scored_region(cell, batch, pattern)
        maps, share = flatten_degenerate(maps, target)
        degenerate += share * len(batch) / len(predictions)
        for metric, batches in list(by_metric.items()):
            try:
                batches.append(values(metric, maps, target))
            except Exception as error:
                problems.append(describe_error(error))
                del by_metric[metric]
    scores = [
        summarised(metric, torch.cat(batches), test.photographs, mutual=mutual) for metric, batches in by_metric.items()
    ]
    return Outcome(
        cell.identity(),
        "failed" if problems else "ok",
        "; ".join(problems) or remark,
        n_test_photos=len(set(test.photographs)),
        degenerate=degenerate,
        mean_map=predictions.mean(0).float().cpu().numpy().astype("<f4").tobytes(),
        scores=scores,
        reach=_reach(cell, pattern, metrics, scores),
        examples=[] if cell.control else examples(test, predictions),
    )


def scored_region(cell: Cell, predictions: torch.Tensor, pattern: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the part of a cell's maps that is scored, and the same part of the target.

    From maps [n, side, side] and the target [256, 256], these are [n, height, width] and [height, width].
    """
    job, check, side = cell.job, cell.check, predictions.shape[-1]
    if check and check.crop:
        side = cell.readout.grid(job.grid)
        return predictions[:, :side, :side], resize(pattern, side)
    if check and check.held_out:
        rows, columns = held_out(check.held_out, side)
        return predictions[:, rows, columns], resize(pattern, side)[rows, columns]
    if cell.score_at == "image":
        side = job.test_image_size
        predictions = resize(predictions, side)
    return predictions, resize(pattern, side)


def flatten_degenerate(predictions: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Replace maps [n, height, width] of a target [height, width] that are constant up to rounding by their mean.

    Returns:
        float64 predictions of the same shape, and the share in [0, 1] that was degenerate.

    Raises:
        PosbenchError: if a value is not finite.
    """
    if not bool(predictions.isfinite().all()):
        raise PosbenchError("the readout predicts values that are not finite")
    predictions = predictions.double()
    spread = predictions.amax(dim=(1, 2)) - predictions.amin(dim=(1, 2))
    flat = spread <= FLAT * (target.max() - target.min()).double()
    means = predictions.mean(dim=(1, 2), keepdim=True).expand_as(predictions)
    return torch.where(flat[:, None, None], means, predictions), float(flat.double().mean())


def values(metric: Metric, predictions: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return one metric of each image, float64 [n], for a target [height, width].

    `predictions` are float64 [n, height, width], as `flatten_degenerate` returns them.

    Raises:
        ComponentError: if the metric raises, or does not return one finite score an image.
    """
    if metric.score is None:
        raise PosbenchError(f"metric {metric.name!r} is one of a job, not of a map")
    # A copy, since a metric that writes into its input must not change the input of the next one.
    with sandboxed(metric):
        scores = metric.score(predictions.clone(), target.double().clone())
        valid = torch.is_tensor(scores) and scores.shape == (len(predictions),) and scores.device == predictions.device
        valid = valid and not scores.is_complex() and bool(scores.double().square().sum().isfinite())
    if not valid:
        raise ComponentError(f"{metric.title} must return one finite score an image, {len(predictions)} of them")
    return scores.detach().double()


def summarised(metric: Metric, values: torch.Tensor, photographs: Sequence[str], *, mutual: bool = False) -> Score:
    """Return the mean over photographs with its interval, from the score of each image, [n], and its photograph.

    `mutual` says that readouts were cross-fitted on these photographs; see `statistics.CROSS_FITTING_VARIANCE`.
    """
    numbers = {name: i for i, name in enumerate(dict.fromkeys(photographs))}
    photograph = np.array([numbers[name] for name in photographs])
    means = np.bincount(photograph, values.cpu().numpy()) / np.bincount(photograph)
    by_photograph = dict(zip(numbers, means.tolist(), strict=True))
    return Score(metric.name, metric.version, *interval(means.tolist(), cross_fitted=mutual), by_photograph)


def _reach(cell: Cell, pattern: torch.Tensor, metrics: Sequence[Metric], scores: Sequence[Score]) -> float | None:
    """Return the reach of a cell's rank correlation; None unless it is of whole maps at the training size."""
    names = {metric.name for metric in metrics if metric.rank_correlation}
    correlations = [score.value for score in scores if score.metric in names]
    if not correlations or (cell.check and cell.check.separate_fit) or cell.job.test_size:
        return None
    return reach(pattern.cpu().numpy(), correlations[0], cell.job.image_size)


def examples(test: Crops, predictions: torch.Tensor) -> list[Example]:
    """Return the first test image of each of the first photographs, with its predicted map.

    The maps, float32 [n, side, side], are kept as float16, clipped to its range.
    """
    limit = np.finfo(np.float16).max
    kept = []
    for name in list(dict.fromkeys(test.photographs))[:EXAMPLES]:
        number = test.photographs.index(name)
        thumbnail = Image.fromarray(test.pixels[number])
        thumbnail.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
        drawn = predictions[number].cpu().numpy().clip(-limit, limit).astype("<f2").tobytes()
        kept.append(Example(name, thumbnail.tobytes(), drawn))
    return kept


def measurement(metric: Metric, reading: Reading, note: str, *, mutual: bool) -> Measurement:
    """Return a reading that a metric of a job returned as a record, with its interval and a remark on the job.

    Raises:
        ValueError: if one of the reading's numbers is not finite.
    """
    numbers = {str(name): float(value) for name, value in reading.by_photograph.items()}
    mean, lo, hi = interval(list(numbers.values()) or [0.0], cross_fitted=mutual)
    value = (mean, lo, hi) if reading.value is None else (float(reading.value), None, None)
    picture = None if reading.picture is None else reading.picture.detach().float().cpu().numpy()
    if not np.isfinite([value[0], *numbers.values()]).all() or (picture is not None and not np.isfinite(picture).all()):
        raise ValueError("a reading holds numbers that are not finite")
    return Measurement(
        *(metric.name, metric.version, str(reading.tap), "ok", note, *value, numbers),
        *((None, None) if picture is None else (picture.astype("<f4").tobytes(), picture.shape[1])),
    )


def failed_outcome(cell: Cell, error: Exception) -> Outcome:
    """Return the outcome of a cell in which a component raised."""
    return Outcome(cell.identity(), *_failure(error))


def failed_measurement(metric: Metric, error: Exception) -> Measurement:
    """Return the measurement of a metric of a job in which a component raised."""
    return Measurement(metric.name, metric.version, "all", *_failure(error))


def _failure(error: Exception) -> tuple[Status, str]:
    # Components are third-party code and may raise anything: the run continues, and the reason is stored.
    return "skipped" if isinstance(error, Inapplicable) else "failed", describe_error(error)
