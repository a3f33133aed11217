"""The built-in padding strategies. They raise Inapplicable for maps that are too small for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from posbench import Inapplicable, Padding, Sides, hookimpl

if TYPE_CHECKING:
    import torch

    from posbench import Operation

    Lines = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def reflect(x: torch.Tensor, sides: Sides) -> torch.Tensor:
    """Reflect at the edge, without repeating it: c b | a b c | b a. Any float dtype; borders narrower than the map."""
    import torch.nn.functional as F

    _check_size("reflect", x, sides, 1)
    return F.pad(x, sides, mode="reflect")


def replicate(x: torch.Tensor, sides: Sides) -> torch.Tensor:
    """Repeat the edge: a a | a b c | c c. Any float dtype, any border."""
    import torch.nn.functional as F

    return F.pad(x, sides, mode="replicate")


def _check_size(name: str, x: torch.Tensor, sides: Sides, excess: int) -> None:
    height, width = x.shape[-2:]
    left, right, top, bottom = sides
    if max(left, right) > width - excess or max(top, bottom) > height - excess:
        raise Inapplicable(f"{name} padding by {max(sides)} cells needs a larger map than {height}×{width}")


def _extend(x: torch.Tensor, sides: Sides, fill: Callable[[Lines, int], None]) -> torch.Tensor:
    """Return the map inside a larger one whose border is filled in place, so that memory is written only once.

    `fill` writes the lines before and after the map. It is called with (the lines before, the map's lines, the lines
    after) and their dimension: for rows (-2) first, then for columns (-1) including the corners.
    """
    import torch

    left, right, top, bottom = sides
    n, channels, height, width = x.shape
    layout = torch.contiguous_format if x.is_contiguous() else torch.channels_last
    shape = (n, channels, height + top + bottom, width + left + right)
    padded = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)
    columns = padded[..., left : left + width]
    columns[..., top : top + height, :] = x
    fill((columns[..., :top, :], columns[..., top : top + height, :], columns[..., top + height :, :]), -2)
    fill((padded[..., :left], columns, padded[..., left + width :]), -1)
    return padded


def circular(x: torch.Tensor, sides: Sides) -> torch.Tensor:
    """Continue the map at its opposite edge: b c | a b c | a b. Any dtype; borders no wider than the map."""

    def fill(lines: Lines, dim: int) -> None:
        before, inner, after = lines
        before[:] = inner.narrow(dim, inner.shape[dim] - before.shape[dim], before.shape[dim])
        after[:] = inner.narrow(dim, 0, after.shape[dim])

    _check_size("circular", x, sides, 0)
    return _extend(x, sides, fill)


def symmetric(x: torch.Tensor, sides: Sides) -> torch.Tensor:
    """Reflect at the edge, repeating it: c b a | a b c | c b a. Any dtype; borders no wider than the map."""

    def fill(lines: Lines, dim: int) -> None:
        before, inner, after = lines
        before[:] = inner.narrow(dim, 0, before.shape[dim]).flip(dim)
        after[:] = inner.narrow(dim, inner.shape[dim] - after.shape[dim], after.shape[dim]).flip(dim)

    _check_size("symmetric", x, sides, 0)
    return _extend(x, sides, fill)


def extrapolate(x: torch.Tensor, sides: Sides) -> torch.Tensor:
    """Extrapolate linearly from the last two cells at each edge, vertically first. Any float dtype."""
    import torch

    def fill(lines: Lines, dim: int) -> None:
        before, inner, after = lines
        size, near, far = inner.shape[dim], before.shape[dim], after.shape[dim]
        if size < 2 and near + far:
            raise Inapplicable("extrapolate needs two cells to draw a line through, and this map has one")
        borders = ((before, 0, 1, range(near, 0, -1)), (after, size - 1, size - 2, range(1, far + 1)))
        for border, last, previous, steps in borders:
            if steps:
                edge, inside = inner.narrow(dim, last, 1), inner.narrow(dim, previous, 1)
                distance = torch.tensor(steps, dtype=x.dtype, device=x.device).view((-1, 1) if dim == -2 else (-1,))
                border[:] = edge + distance * (edge - inside)

    return _extend(x, sides, fill)


def mean(x: torch.Tensor, sides: Sides) -> torch.Tensor:
    """Fill the border with each channel's mean over the map, image by image. Any float dtype."""
    average = x.mean(dim=(-2, -1), keepdim=True)

    def fill(lines: Lines, dim: int) -> None:
        lines[0][:] = lines[2][:] = average

    return _extend(x, sides, fill)


def random(x: torch.Tensor, sides: Sides) -> torch.Tensor:
    """Fill the border with normal noise of each channel's mean and standard deviation over the map. Any float dtype.

    Gradients reach the map's own cells only; mean and standard deviation count as constants.
    """
    import torch

    average, deviation = _moments(x)

    def fill(lines: Lines, dim: int) -> None:
        for cells in (lines[0], lines[2]):
            noise = torch.randn(cells.shape, dtype=torch.float32, device=x.device)
            cells[:] = noise * deviation + average

    return _extend(x, sides, fill)


def _moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean and standard deviation of each channel of each image, float32 [n, channels, 1, 1]."""
    import torch

    with torch.no_grad():
        average = x.mean(dim=(-2, -1), keepdim=True, dtype=torch.float32)
        # One small buffer for all images: writing a second map would take longer than all the arithmetic.
        buffer = torch.empty_like(x[:1], dtype=torch.float32)
        variances = [
            torch.sub(image, centre, out=buffer).square_().mean(dim=(-2, -1), keepdim=True)
            for image, centre in zip(x[:, None], average[:, None], strict=True)
        ]
        return average, torch.cat(variances).sqrt()


def partial(operation: Operation) -> torch.Tensor:
    """Compute a convolution or average from the cells inside the map only. Any float dtype.

    Where k of a window's n cells are inside, the result before the bias is n / k times that of zero padding.
    Max-pooling stays as it is, since it ignores padding anyway.
    """
    import torch
    import torch.nn.functional as F

    if operation.kind == "max-pooling":
        return operation.native()
    if operation.kind == "average-pooling":
        # The same average of a map of ones is the share of each window that is inside.
        total = operation.unpadded(F.pad(operation.x, operation.sides))
        share = operation.unpadded(F.pad(torch.ones_like(operation.x[:1, :1]), operation.sides))
        return torch.where(share > 0, total / share, 0.0)
    output, bias = operation.native(), operation.bias
    left, _, top, _ = operation.sides
    axes = zip((-2, -1), (top, left), operation.kernel, operation.stride, operation.dilation, strict=True)
    for dim, before, kernel, stride, dilation in axes:
        inside = _share_inside(operation.x.shape[dim], output.shape[dim], kernel, stride, dilation, before)
        for i, part in enumerate(inside):
            if part < 1:
                line = output.select(dim, i)
                offset = 0 if bias is None else bias[:, None]
                line.copy_((line - offset) * (1 / part if part else 0) + offset)
    return output


def _share_inside(size: int, outputs: int, kernel: int, stride: int, dilation: int, before: int) -> list[float]:
    """Return the share of each window's cells that lies in a map of this size, along one axis."""
    return [sum(0 <= i * stride - before + j * dilation < size for j in range(kernel)) / kernel for i in range(outputs)]


@hookimpl
def posbench_paddings() -> Iterable[Padding]:
    islam = "Islam et al., Position, Padding and Predictions, arXiv 2101.12322"
    islam_table = "Islam, Jia & Bruce, ICLR 2020, Table 4, for VGG-16"
    lin = "Lin et al., Unveiling the Mask of Position-Information Pattern, arXiv 2206.01202"
    liu = "Liu et al., Partial Convolution based Padding, arXiv 1811.11718"
    wavelets = "smooth extension of wavelet transforms"
    noise = {"pad": random, "stochastic": True}
    nguyen = "after Nguyen et al., Distribution Padding, ICIP 2019, whose means are of border patches"
    strategies: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
        ("zero", "zeros, as networks come (max-pooling: −∞)", islam, {}),
        ("circular", "the map continues at its opposite edge", islam, {"pad": circular}),
        ("reflect", "mirrored at the edge, which is not repeated", islam, {"pad": reflect}),
        ("symmetric", "mirrored at the edge, which is repeated", "half-sample symmetric extension", {"pad": symmetric}),
        ("replicate", "the edge, repeated", islam, {"pad": replicate}),
        ("mean", "each channel's mean over the map", nguyen, {"pad": mean}),
        ("extrapolate", "the line through the last two cells", wavelets, {"pad": extrapolate}),
        ("random", "normal, with each channel's mean and spread, seeded by the images", nguyen, noise),
        ("partial", "partial convolution: over the cells that are there, scaled up", liu, {"operate": partial}),
        ("valid", "none: cells that padding reaches are dropped", islam_table, {"border": "drop"}),
        ("surround", "none in sight: the window's true surroundings in its photograph", lin, {"border": "surround"}),
    )
    for name, summary, source, options in strategies:
        version = "2" if name == "random" else "1"
        yield Padding(name=name, summary=summary, version=version, source=source, **options)
