"""The padded operation that a padding strategy may compute as a whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

#: Numbers of cells to add at the (left, right, top, bottom) of a map.
Sides = tuple[int, int, int, int]
NO_SIDES: Sides = (0, 0, 0, 0)


@dataclass(frozen=True)
class Operation:
    """A convolution, pooling or pad that a network calls on a map [n, channels, height, width].

    Attributes:
        kind: `convolution`, `max-pooling`, `average-pooling` or `pad`.
        x: the map before padding.
        kernel, stride, dilation: (vertical, horizontal).
        sides: the cells added at the (left, right, top, bottom).
        constant: whether the added cells are a constant, as in padding, and not computed from the map, as in the
            reflection of blur pooling.
        native: returns the result with the network's own padding.
        unpadded: returns the result for a map that is already padded by `sides`.
        bias: of a convolution, [output channels]; None without one.
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
