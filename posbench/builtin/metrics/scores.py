"""The built-in metrics: scores of predicted maps, and the two metrics of a job, `modes` and PPP."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from posbench import Metric, hookimpl

if TYPE_CHECKING:
    import torch

    from posbench import Observation, Reading

#: The number of leading position modes in the picture of `modes`.
LEADING = 4
LIN = "Lin et al., arXiv 2206.01202"


def ranks(values: torch.Tensor) -> torch.Tensor:
    """Return ranks from 1 along the last dimension; ties share their mean rank. float64, of the shape of `values`."""
    import numpy as np
    import torch

    if values.device.type == "cpu":
        # On CPU, NumPy sorts several times as fast as torch.
        order = torch.from_numpy(np.argsort(values.numpy(), axis=-1))
    else:
        order = values.argsort(dim=-1)
    ordered = values.gather(-1, order)
    place = torch.arange(values.shape[-1], dtype=torch.float64, device=values.device).expand_as(values)
    rises = ordered[..., 1:] > ordered[..., :-1]
    if not bool(rises.all()):
        # The first and the last place of each run of equal values.
        edge = torch.ones_like(rises[..., :1])
        first = torch.where(torch.cat([edge, rises], -1), place, 0.0).cummax(-1).values
        last = torch.where(torch.cat([rises, edge], -1), place, torch.inf).flip(-1).cummin(-1).values.flip(-1)
        place = (first + last) / 2
    return torch.empty_like(place, memory_format=torch.contiguous_format).scatter_(-1, order, place + 1)


def spc(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return Spearman's rank correlation of each map [n, height, width] with the target; ties get mean ranks.

    float64 [n] in [−1, 1]; 0 where the prediction or the target is constant.
    """
    import torch

    first = ranks(prediction.flatten(1).contiguous())
    second = ranks(target.flatten().contiguous())
    first = first - first.mean(-1, keepdim=True)
    second = second - second.mean()
    scale = (first.square().sum(-1) * second.square().sum()).sqrt()
    return torch.where(scale > 0, (first @ second) / scale.where(scale > 0, torch.ones_like(scale)), 0.0)


def mae(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute error of each map [n, height, width], in the target's units. float64 [n]."""
    return (prediction - target).abs().mean(dim=(-2, -1))


def r2(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the coefficient of determination, 1 − Σ(y − p)² / Σ(y − ȳ)². float64 [n]; 0 for a constant target."""
    import torch

    error = (prediction - target).square().sum(dim=(-2, -1))
    if target.min() == target.max():
        return torch.zeros_like(error)
    return 1 - error / (target - target.mean()).square().sum()


def modes(observation: Observation) -> Sequence[Reading]:
    """Return the effective number of decodable position modes, on held-out photographs; see docs/position-spectrum.md.

    The picture shows the leading modes, one below the other, in descending order.
    """
    from posbench import Reading
    from posbench.builtin.metrics.modes import fit_modes

    values: dict[str, list[float]] = {}
    for split in observation.splits:
        fitted = fit_modes(split.train)
        for photograph, value in zip(split.photographs, fitted.read(split.test).tolist(), strict=True):
            values.setdefault(photograph, []).append(value)
    means = {photograph: sum(crops) / len(crops) for photograph, crops in values.items()}
    return [Reading(means, picture=fitted.leading(LEADING).flatten(0, 1))]


def ppp(observation: Observation, *, snr: bool) -> Sequence[Reading]:
    """Return the strength of the pattern that padding adds to each tap: its signal-to-noise ratio, or its mean."""
    from posbench import Reading
    from posbench.builtin.metrics.ppp import ppp_patterns

    patterns = ppp_patterns(observation.test, observation.surrounded(), observation.photographs)
    # Each photograph is compared with all others, so their values are not independent and have no interval.
    return [
        Reading({}, str(tap), pattern.snr, pattern.picture)
        if snr
        else Reading(pattern.mae, str(tap), sum(pattern.mae.values()) / len(pattern.mae), pattern.picture)
        for tap, pattern in enumerate(patterns, 1)
    ]


@hookimpl
def posbench_metrics() -> Iterable[Metric]:
    many = "of a job: how many maps of position can be drawn, whatever the target"
    mean = "of a job: what padding adds to each tap, in standard deviations"
    ratio = "of a job: the same, its power over the spread of photographs"
    return [
        Metric(name="spc", summary="Spearman's rank correlation", version="1", score=spc, rank_correlation=True),
        Metric(name="mae", summary="mean absolute error", version="1", score=mae, higher_is_better=False),
        Metric(name="r2", summary="skill against the best constant (1 − SSE/SST)", version="1", score=r2),
        Metric(name="modes", summary=many, version="1", of_job=modes),
        Metric(name="ppp-mae", summary=mean, version="1", source=LIN, of_job=partial(ppp, snr=False)),
        Metric(name="ppp-snr", summary=ratio, version="1", source=LIN, of_job=partial(ppp, snr=True)),
    ]
