"""Padding strategies that one call of torch's `pad` expresses."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from posbench import Inapplicable, Padding, Sides, hookimpl

if TYPE_CHECKING:
    import torch


def _torch_pad(mode: str, reach: int | None) -> Callable[[torch.Tensor, Sides], torch.Tensor]:
    """Padding by torch's `pad`, whose borders may be as wide as the map less `reach` cells, or any, if that is None."""

    def pad(x: torch.Tensor, sides: Sides) -> torch.Tensor:
        import torch.nn.functional as F

        height, width = x.shape[-2:]
        left, right, top, bottom = sides
        if reach is not None and (max(left, right) > width - reach or max(top, bottom) > height - reach):
            raise Inapplicable(f"{mode} padding by {max(sides)} cells needs a larger map than {height}×{width}")
        return F.pad(x, sides, mode=mode)

    return pad


@hookimpl
def posbench_paddings() -> Iterable[Padding]:
    return [
        Padding(name="zero", summary="zeros, as networks come (max-pooling: −∞)", version="1", pad=None),
        Padding(
            name="circular",
            summary="the map continues at its opposite edge",
            version="1",
            pad=_torch_pad("circular", 0),
        ),
        Padding(
            name="reflect",
            summary="mirrored at the edge, which is not repeated",
            version="1",
            pad=_torch_pad("reflect", 1),
        ),
        Padding(name="replicate", summary="the edge, repeated", version="1", pad=_torch_pad("replicate", None)),
    ]
