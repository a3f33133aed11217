"""Padding strategies that a function of the map and the number of cells expresses."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from posbench import Inapplicable, Padding, Sides, hookimpl

if TYPE_CHECKING:
    import torch

    Pieces = tuple[torch.Tensor, torch.Tensor]

#: Of the generator that `random` draws from; the same map shape always gets the same noise.
SEED = 0


def reflect(x: torch.Tensor, sides: Sides) -> torch.Tensor:
    """Mirrored at the edge, which is not repeated: c b | a b c | b a. Any float dtype; borders below the map's size.

    Raises:
        Inapplicable: if a border is as wide as the map.
    """
    import torch.nn.functional as F

    _need_room("reflect", x, sides, 1)
    return F.pad(x, sides, mode="reflect")


def replicate(x: torch.Tensor, sides: Sides) -> torch.Tensor:
    """The edge, repeated: a a | a b c | c c. Any float dtype, any border."""
    import torch.nn.functional as F

    return F.pad(x, sides, mode="replicate")


def _need_room(name: str, x: torch.Tensor, sides: Sides, reach: int) -> None:
    height, width = x.shape[-2:]
    left, right, top, bottom = sides
    if max(left, right) > width - reach or max(top, bottom) > height - reach:
        raise Inapplicable(f"{name} padding by {max(sides)} cells needs a larger map than {height}×{width}")


def _extend(x: torch.Tensor, sides: Sides, pieces: Callable[[torch.Tensor, int, int, int], Pieces]) -> torch.Tensor:
    """Lengthen the columns, then the rows, by what `pieces(map, dimension, before, after)` puts at their two ends."""
    import torch

    left, right, top, bottom = sides
    layout = torch.contiguous_format if x.is_contiguous() else torch.channels_last
    for dim, before, after in ((-2, top, bottom), (-1, left, right)):
        if before or after:
            first, last = pieces(x, dim, before, after)
            # torch.cat forgets the memory format over pieces that are empty or one cell wide.
            whole = torch.cat([piece for piece in (first, x, last) if piece.shape[dim]], dim)
            x = whole.contiguous(memory_format=layout)
    return x


def circular(x: torch.Tensor, sides: Sides) -> torch.Tensor:
    """The map continues at its opposite edge: b c | a b c | a b. Any dtype; borders up to the map's own size.

    Raises:
        Inapplicable: if a border is wider than the map.
    """

    def pieces(x: torch.Tensor, dim: int, before: int, after: int) -> Pieces:
        return x.narrow(dim, x.shape[dim] - before, before), x.narrow(dim, 0, after)

    _need_room("circular", x, sides, 0)
    return _extend(x, sides, pieces)


def symmetric(x: torch.Tensor, sides: Sides) -> torch.Tensor:
    """Mirrored at the edge, which is repeated: c b a | a b c | c b a. Any dtype; borders up to the map's own size.

    Raises:
        Inapplicable: if a border is wider than the map.
    """

    def pieces(x: torch.Tensor, dim: int, before: int, after: int) -> Pieces:
        return x.narrow(dim, 0, before).flip(dim), x.narrow(dim, x.shape[dim] - after, after).flip(dim)

    _need_room("symmetric", x, sides, 0)
    return _extend(x, sides, pieces)


def extrapolate(x: torch.Tensor, sides: Sides) -> torch.Tensor:
    """Each edge continued along the line through its last two cells, columns first and then rows. Any float dtype.

    Raises:
        Inapplicable: if a side that is to grow has a single cell.
    """
    import torch

    def line(edge: torch.Tensor, inner: torch.Tensor, dim: int, steps: range) -> torch.Tensor:
        shape = (-1, 1) if dim == -2 else (-1,)
        return edge + torch.tensor(steps, dtype=x.dtype, device=x.device).view(shape) * (edge - inner)

    def pieces(x: torch.Tensor, dim: int, before: int, after: int) -> Pieces:
        size = x.shape[dim]
        if size < 2:
            raise Inapplicable("extrapolate needs two cells to draw a line through, and this map has one")
        first, second, previous, last = (x.narrow(dim, at, 1) for at in (0, 1, size - 2, size - 1))
        return line(first, second, dim, range(before, 0, -1)), line(last, previous, dim, range(1, after + 1))

    return _extend(x, sides, pieces)


def _framed(x: torch.Tensor, sides: Sides, frame: torch.Tensor) -> torch.Tensor:
    """The map inside a larger one that is given, and overwritten."""
    left, _, top, _ = sides
    frame[..., top : top + x.shape[-2], left : left + x.shape[-1]] = x
    return frame


def _larger(x: torch.Tensor, sides: Sides) -> torch.Tensor:
    """An uninitialised map with room for the borders, in the layout of x."""
    import torch.nn.functional as F

    return F.pad(x, sides)


def mean(x: torch.Tensor, sides: Sides) -> torch.Tensor:
    """Every added cell holds its channel's mean over the map, image by image. Any float dtype."""
    frame = _larger(x, sides)
    frame[:] = x.mean(dim=(-2, -1), keepdim=True)
    return _framed(x, sides, frame)


def random(x: torch.Tensor, sides: Sides) -> torch.Tensor:
    """Added cells are normal, with their channel's mean and spread over the map, seeded. Any float dtype."""
    import torch

    frame = _larger(x, sides)
    generator = torch.Generator(device=x.device).manual_seed(SEED)
    noise = torch.randn(frame.shape, generator=generator, device=x.device, dtype=torch.float32)
    spread = x.float().std(dim=(-2, -1), correction=0, keepdim=True)
    frame[:] = noise * spread + x.float().mean(dim=(-2, -1), keepdim=True)
    return _framed(x, sides, frame)


@hookimpl
def posbench_paddings() -> Iterable[Padding]:
    islam = "Islam et al., Position, Padding and Predictions, arXiv 2101.12322"
    nguyen = "after Nguyen et al., Distribution Padding, ICIP 2019, whose means are of border patches"
    strategies = (
        ("zero", "zeros, as networks come (max-pooling: −∞)", islam, None),
        ("circular", "the map continues at its opposite edge", islam, circular),
        ("reflect", "mirrored at the edge, which is not repeated", islam, reflect),
        ("symmetric", "mirrored at the edge, which is repeated", "half-sample symmetric extension", symmetric),
        ("replicate", "the edge, repeated", islam, replicate),
        ("mean", "each channel's mean over the map", nguyen, mean),
        ("random", "normal, with each channel's mean and spread, seeded", nguyen, random),
        ("extrapolate", "the line through the last two cells", "smooth extension of wavelet transforms", extrapolate),
    )
    return [
        Padding(name=name, summary=summary, version="1", source=source, pad=pad)
        for name, summary, source, pad in strategies
    ]
