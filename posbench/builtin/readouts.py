"""The linear probe."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from posbench import Fitted, Readout, hookimpl

if TYPE_CHECKING:
    import torch

    from posbench.features import Features


def ridge(features: Features, targets: torch.Tensor, seed: int) -> Fitted:
    """A 3×3 convolution without padding on standardised channels, penalised with λ = 1; see `posbench.fit_ridge`."""
    from posbench import fit_ridge

    return fit_ridge(features, targets, kernel=3, penalty=1.0)


@hookimpl
def posbench_readouts() -> Iterable[Readout]:
    return [
        Readout(
            name="ridge",
            summary="3×3 convolution on standardised channels, squared loss, λ = 1",
            version="1",
            source="Hoerl & Kennard, Technometrics 1970",
            fit=ridge,
            grid=lambda side: side - 2,
        )
    ]
