"""The linear probe, and the readout of Islam, Jia and Bruce, in several shapes. Listing them imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from posbench import Fitted, Readout, hookimpl

if TYPE_CHECKING:
    from posbench import Training

ISLAM = "Islam, Jia & Bruce, ICLR 2020"
HOERL = "Hoerl & Kennard, Technometrics 1970"


def side(grid: int, *, kernel: int = 3, depth: int = 1, padding: int = 0) -> int:
    """Return the side of the maps that stacked convolutions predict from a grid of this side."""
    return grid + depth * (2 * padding - kernel + 1)


def ridge(training: Training, *, kernel: int = 3, padding: int = 0) -> Fitted:
    """Fit a ridge regression with λ = 1."""
    from posbench.builtin.readouts.ridge import fit_ridge

    targets = training.targets(side(training.features.grid, kernel=kernel, padding=padding))
    return fit_ridge(training.features, targets, kernel=kernel, penalty=1.0, padding=padding)


def ridge_cv(training: Training, *, kernel: int = 3, padding: int = 0) -> Fitted:
    """Fit a ridge regression with λ chosen for each target on held-out training photographs."""
    from posbench.builtin.readouts.ridge import fit_ridge_cv

    map_side = side(training.features.grid, kernel=kernel, padding=padding)
    return fit_ridge_cv(training, map_side, kernel=kernel, padding=padding)


def sgd(training: Training, *, bounded: bool, kernel: int = 3, depth: int = 1, padding: int = 0) -> Fitted:
    """Train the paper's readout as in its code (`bounded`) or as in its text."""
    from posbench.builtin.readouts.sgd import fit_sgd

    return fit_sgd(training, kernel=kernel, depth=depth, padding=padding, bounded=bounded)


@hookimpl
def posbench_readouts() -> Iterable[Readout]:
    families: tuple[tuple[str, str, str, Callable[..., Fitted]], ...] = (
        ("ridge", "linear, squared loss, λ = 1 on standardised channels", HOERL, ridge),
        ("ridge-cv", "the same, λ chosen on held-out training photographs", HOERL, ridge_cv),
        ("sgd", "the paper's, as its code has it: BatchNorm, sigmoid, SGD", ISLAM, partial(sgd, bounded=True)),
        ("sgd-text", "the paper's, as its text has it: no BatchNorm, no sigmoid", ISLAM, partial(sgd, bounded=False)),
    )
    for name, summary, source, fit in families:
        trained = name.startswith("sgd")
        # As in the paper's tables, one parameter at a time differs from a single unpadded 3×3 convolution.
        shapes: list[tuple[str, str, dict[str, int]]] = [("", "3×3", {})]
        shapes += [(f"-k{k}", f"{k}×{k}", {"kernel": k}) for k in (1, 5, 7)]
        shapes += [(f"-depth{d}", f"{d} of 3×3", {"depth": d}) for d in (2, 3) if trained]
        shapes += [(f"-pad{p}", f"3×3, padding {p}", {"padding": p}) for p in (1, 2)]
        for suffix, shape, options in shapes:
            yield Readout(
                name=name + suffix,
                summary=f"{shape}: {summary}",
                version="1",
                source=source,
                fit=partial(fit, **options),
                grid=partial(side, **options),
                stochastic=trained,
            )
