"""What becomes of cells, and of metrics of a job as a whole: scores, or the reason why there are none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from posbench.bench.examples import examples
from posbench.bench.field_types import Status
from posbench.bench.plan import Cell
from posbench.bench.reach import reach
from posbench.bench.records import Measurement, Outcome, Score
from posbench.bench.scoring import flatten_degenerate, summarised, values
from posbench.bench.treatments import TREATMENTS, judged
from posbench.core.errors import Inapplicable
from posbench.core.statistics import interval
from posbench.data.crops import Crops
from posbench.plugin.components import Metric
from posbench.plugin.observation import Reading
from posbench.plugin.sandbox import describe_error

#: How many cells of maps are scored at once.
MAP_CELLS = 2**22


def scored(
    cell: Cell,
    drawn: torch.Tensor,
    pattern: torch.Tensor,
    metrics: Sequence[Metric],
    test: Crops,
    *,
    remark: str,
    mutual: bool,
) -> Outcome:
    """What becomes of a cell whose readout has drawn. A metric that fails takes no other with it.

    Args:
        cell: the cell.
        drawn: what was drawn for each test image, float32 [n, side, side].
        pattern: the target, float32 at its own resolution.
        metrics: those of a cell.
        test: the images.
        remark: what the readout says of itself.
        mutual: whether what one readout is tested on has trained another; see `statistics.CROSS_FITTING_VARIANCE`.
    """
    scores, problems, degenerate = _scores(cell, drawn, pattern, metrics, test.photographs, mutual=mutual)
    return Outcome(
        cell.identity(),
        "failed" if problems else "ok",
        "; ".join(problems) or remark,
        n_test_photos=len(set(test.photographs)),
        degenerate=degenerate,
        mean_map=drawn.mean(0).float().cpu().numpy().astype("<f4").tobytes(),
        scores=scores,
        reach=_reach(cell, pattern, scores),
        examples=[] if cell.control else examples(test, drawn),
    )


def read(metric: Metric, reading: Reading, note: str, *, mutual: bool) -> Measurement:
    """A reading of a job with its interval.

    Raises:
        ValueError: if one of its numbers is not finite.
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


def failed_result(cell: Cell, error: Exception) -> Outcome:
    """What becomes of a cell in which a component raised.

    Components are other people's code and may raise anything: the run goes on, and the reason is kept.
    """
    return Outcome(cell.identity(), *_why(error))


def unread(metric: Metric, error: Exception) -> Measurement:
    """What becomes of a metric of a job in which something raised."""
    return Measurement(metric.name, metric.version, "all", *_why(error))


def _why(error: Exception) -> tuple[Status, str]:
    return "skipped" if isinstance(error, Inapplicable) else "failed", describe_error(error)


def _reach(cell: Cell, pattern: torch.Tensor, scores: Sequence[Score]) -> float | None:
    """How far the rank correlation reaches, where it is of a whole map drawn at the size that was trained on."""
    spc = [score.value for score in scores if score.metric == "spc"]
    if not spc or cell.control in TREATMENTS or cell.job.test_size:
        return None
    return reach(pattern.cpu().numpy(), spc[0], cell.job.image_size)


def _scores(
    cell: Cell,
    drawn: torch.Tensor,
    pattern: torch.Tensor,
    metrics: Sequence[Metric],
    photographs: Sequence[str],
    *,
    mutual: bool,
) -> tuple[list[Score], list[str], float]:
    """What the metrics say of one cell, why some could not, and the share of degenerate maps.

    Some images at a time, since at image size their maps are large.
    """
    of_metric: dict[Metric, list[torch.Tensor]] = {metric: [] for metric in metrics}
    problems, degenerate = [], 0.0
    side = cell.job.test_size or cell.job.image_size
    at_once = max(1, MAP_CELLS // side**2)
    for start in range(0, len(drawn), at_once):
        part = drawn[start : start + at_once]
        maps, target = judged(cell, part, pattern)
        maps, share = flatten_degenerate(maps, target)
        degenerate += share * len(part) / len(drawn)
        for metric, found in list(of_metric.items()):
            try:
                found.append(values(metric, maps, target))
            except Exception as error:
                problems.append(describe_error(error))
                del of_metric[metric]
    scores = []
    for metric, found in of_metric.items():
        scores.append(summarised(metric, torch.cat(found), photographs, mutual=mutual))
    return scores, problems, degenerate
