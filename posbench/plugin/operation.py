"""The padded operation that a padding strategy computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from posbench.plugin.components import Sides

NO_SIDES: Sides = (0, 0, 0, 0)


@dataclass(frozen=True)
class Operation:
    """A convolution, a pooling or a pad, as a network called it on a map [n, channels, height, width].

    Attributes:
        kind: `convolution`, `max-pooling`, `average-pooling` or `pad`.
        x: the map before padding.
        kernel, stride, dilation: (vertical, horizontal).
        sides: the cells that it adds at the (left, right, top, bottom).
        constant: whether those cells hold a constant, as padding does, and not what the network computes from the map,
            as blur pooling's reflection.
        native: computes it as the network came.
        unpadded: computes it on a map that was enlarged by `sides` already.
        bias: of a convolution [channels out], where it has one.
    """

    kind: str
    x: torch.Tensor
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    sides: Sides
    constant: bool
    native: Callable[[], torch.Tensor]
    unpadded: Callable[[torch.Tensor], torch.Tensor]
    bias: torch.Tensor | None = None
