"""The linear probe."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from posbench import Fitted, Readout, hookimpl

if TYPE_CHECKING:
    import torch

    from posbench.features import Features


KERNELS = (1, 3, 5, 7)


def ridge(features: Features, targets: torch.Tensor, seed: int, kernel: int = 3) -> Fitted:
    """A k×k convolution without padding on standardised channels, penalised with λ = 1; see `posbench.fit_ridge`."""
    from posbench import fit_ridge

    return fit_ridge(features, targets, kernel=kernel, penalty=1.0)


@hookimpl
def posbench_readouts() -> Iterable[Readout]:
    return [
        Readout(
            name="ridge" if kernel == 3 else f"ridge-k{kernel}",
            summary=f"{kernel}×{kernel} convolution on standardised channels, squared loss, λ = 1",
            version="1",
            source="Hoerl & Kennard, Technometrics 1970",
            fit=partial(ridge, kernel=kernel),
            grid=partial(_unpadded, kernel=kernel),
        )
        for kernel in KERNELS
    ]


def _unpadded(side: int, kernel: int) -> int:
    return side - kernel + 1
