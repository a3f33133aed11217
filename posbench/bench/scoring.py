"""Scores predicted maps: every metric for each image, then a mean with its interval over photographs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from posbench.bench.records import Score
from posbench.core.errors import ComponentError, PosbenchError
from posbench.core.statistics import interval
from posbench.plugin.components import Metric
from posbench.plugin.sandbox import sandboxed

#: A map whose values lie within this share of the target's range is flat: what is left is rounding, and has no order.
FLAT = 1e-4


def flatten_degenerate(predictions: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Replace maps that are constant up to rounding by their mean.

    Args:
        predictions: [n, height, width].
        target: [height, width].

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
    """One metric of each image, float64 [n].

    Args:
        predictions: float64 [n, height, width], as `flatten_degenerate` returns them.
        target: [height, width].

    Raises:
        ComponentError: if the metric raises, or does not return one finite score an image.
    """
    if metric.score is None:
        raise PosbenchError(f"metric {metric.name!r} is one of a job, not of a map")
    # A copy, since a metric that writes into its input must not change what the next one sees.
    with sandboxed(metric):
        found = metric.score(predictions.clone(), target.double().clone())
        fits = torch.is_tensor(found) and found.shape == (len(predictions),) and found.device == predictions.device
        fits = fits and not found.is_complex() and bool(found.double().square().sum().isfinite())
    if not fits:
        raise ComponentError(f"{metric.title} must return one finite score an image, {len(predictions)} of them")
    return found.detach().double()


def summarised(metric: Metric, values: torch.Tensor, photographs: Sequence[str], *, mutual: bool = False) -> Score:
    """The mean over photographs with its interval.

    Args:
        values: one an image, [n].
        photographs: the photograph of each image.
        mutual: whether readouts were cross-fitted on these photographs; see `statistics.CROSS_FITTING_VARIANCE`.
    """
    numbers = {name: i for i, name in enumerate(dict.fromkeys(photographs))}
    of_image = np.array([numbers[name] for name in photographs])
    means = np.bincount(of_image, values.cpu().numpy()) / np.bincount(of_image)
    by_photograph = dict(zip(numbers, means.tolist(), strict=True))
    return Score(metric.name, metric.version, *interval(means.tolist(), cross_fitted=mutual), by_photograph)
