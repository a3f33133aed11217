"""Pearson's linear correlation between a predicted map and the target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from posbench import Metric, hookimpl

if TYPE_CHECKING:
    import torch


def unit(values: torch.Tensor) -> torch.Tensor:
    """Centre along the last dimension and scale to length 1; zeros where all values are equal. Keeps the dtype."""
    centred = values - values.mean(-1, keepdim=True)
    # The squares of very small numbers would vanish; dividing by the largest first keeps them.
    centred = centred / centred.abs().amax(-1, keepdim=True)
    scaled = centred / centred.square().sum(-1, keepdim=True).sqrt()
    # Equal values are told by comparing them: their mean may be off by a rounding error, which is not a signal.
    constant = values.amin(-1, keepdim=True) == values.amax(-1, keepdim=True)
    return scaled.masked_fill(constant, 0)


def pearson(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Pearson's correlation of each map with the target, over all cells.

    Args:
        prediction: float64 [n, height, width].
        target: float64 [height, width].

    Returns:
        float64 [n] in [−1, 1]; 0 where the prediction or the target is constant, for which it is not defined.

    Source: Pearson, Proceedings of the Royal Society of London 58, 1895.
    """
    return (unit(prediction.flatten(1)) @ unit(target.flatten())).clamp(-1, 1)


@hookimpl
def posbench_metrics() -> list[Metric]:
    return [
        Metric(
            name="pearson",
            summary="Pearson's linear correlation",
            version="1",
            score=pearson,
            source="Pearson, Proceedings of the Royal Society of London 58, 1895",
        )
    ]
