"""Follows through any network which pixels of the image each cell of its maps depends on.

A cell whose pixels all lie inside the image is one that no padding reaches, whatever the padding holds. From the same
numbers follow how far a network sees, and which cells of a larger map belong to a window within the image.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F

from posbench.core.errors import Inapplicable
from posbench.network.tracing import Watch, parse
from posbench.plugin.operation import Operation


@dataclass(frozen=True)
class Span:
    """The pixels that cells depend on, along one axis: cell j on those from j·stride + first to j·stride + last."""

    stride: int = 1
    first: int = 0
    last: int = 0

    def slid(self, kernel: int, stride: int, dilation: int, before: int) -> Span:
        """The span of what a window makes of the map, with cells added before it."""
        return Span(
            self.stride * stride,
            self.first - before * self.stride,
            self.last + ((kernel - 1) * dilation - before) * self.stride,
        )

    def joined(self, other: Span) -> Span:
        """The span of what is computed from two maps cell by cell."""
        return Span(self.stride, min(self.first, other.first), max(self.last, other.last))

    def inside(self, pixels: int, cells: int) -> slice:
        """The cells, of so many, that depend on nothing beyond an image of so many pixels; possibly none."""
        start = max(0, -(self.first // self.stride))
        stop = min(cells, (pixels - 1 - self.last) // self.stride + 1)
        return slice(start, max(start, stop))

    def needs(self) -> int:
        """The smallest image, in pixels, in which some cell depends on nothing beyond."""
        return max(0, -(self.first // self.stride)) * self.stride + self.last + 1


@dataclass(frozen=True)
class View:
    """What the cells of a map see.

    Attributes:
        rows, columns: their spans.
        dims: where height and width stand among the map's dimensions, from the end.
    """

    rows: Span
    columns: Span
    dims: tuple[int, int] = (-2, -1)

    @property
    def stride(self) -> tuple[int, int]:
        return self.rows.stride, self.columns.stride

    def joined(self, other: View) -> View:
        """The view of what is computed from two maps cell by cell."""
        return View(self.rows.joined(other.rows), self.columns.joined(other.columns), self.dims)

    def free(self, size: int, shape: Sequence[int]) -> tuple[slice, slice]:
        """The (rows, columns) of a map of this shape that depend on nothing beyond an image of `size` pixels a side."""
        down, across = self.dims
        return self.rows.inside(size, shape[down]), self.columns.inside(size, shape[across])


#: Functions that take a whole map together into one number a channel.
_REDUCTIONS = frozenset(
    {
        *(torch.mean, torch.Tensor.mean, torch.sum, torch.Tensor.sum, torch.amax, torch.Tensor.amax),
        *(torch.norm, torch.Tensor.norm, torch.linalg.vector_norm, torch.var_mean, torch.std, torch.Tensor.std),
        *(F.adaptive_avg_pool2d, F.adaptive_max_pool2d, torch.adaptive_avg_pool1d),
    }
)
#: Functions that put statistics over a whole map into every cell.
_NORMALISATIONS = frozenset({F.group_norm, torch.group_norm, F.instance_norm, torch.instance_norm})
#: Functions that mix or move cells though the map keeps its size.
_MIXING = frozenset(
    {
        *(torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.bmm, torch.einsum, F.grid_sample),
        *(torch.Tensor.mT.__get__, torch.Tensor.T.__get__),  # type: ignore[attr-defined]
        *(F.scaled_dot_product_attention, torch.roll, torch.Tensor.roll),
    }
)
#: Functions along one dimension, or some.
_ALONG = frozenset(
    {
        *(F.softmax, torch.softmax, torch.Tensor.softmax, F.log_softmax, torch.cumsum, torch.Tensor.cumsum),
        *(torch.flip, torch.Tensor.flip, F.normalize),
    }
)
_PERMUTATIONS = frozenset({torch.permute, torch.Tensor.permute, torch.transpose, torch.Tensor.transpose})


class Following(Watch):
    """While it is active, knows what the cells of every map see that is computed from a marked image.

    Maps that it loses (a reshaping that mixes cells, a matrix product over them) are not guessed at: `view` has nothing
    to say of them.

    Args:
        network: whose layers are named.
        size: the side of the image, in pixels.
        free_only: let reductions over whole maps, such as squeeze-and-excitation's, read only the cells that padding
            does not reach.

    Attributes:
        reductions: the layers that reduce whole maps, in order, each with what the map's cells see and its shape.
        mixtures: the layers in which cells were mixed in ways that are not followed.

    Raises (from operations inside the context):
        Inapplicable: if `free_only` is asked for and a reduction leaves more than one cell.
    """

    def __init__(self, network: torch.nn.Module, size: int, *, free_only: bool = False) -> None:
        super().__init__(network)
        self.reductions: list[tuple[str, View, tuple[int, ...]]] = []
        self.mixtures: list[str] = []
        self._size = size
        self._free_only = free_only

    def mark(self, image: torch.Tensor) -> torch.Tensor:
        """Take [n, 3, size, size] for the image whose pixels are meant."""
        return _set(image, View(Span(), Span()))

    def view(self, tensor: torch.Tensor) -> View | None:
        """What the cells of a tensor see, or None where that is not known."""
        found = getattr(tensor, _VIEW, None)
        return found if isinstance(found, View) else None

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        operation = parse(func, args, kwargs)
        if operation is not None:
            return self._slid(operation)
        result = func(*args, **kwargs)
        operands = list(_tensors((args, kwargs)))
        seen = [(x, view) for x in operands if (view := self.view(x)) is not None]
        mixed = any(getattr(x, _VIEW, None) is _MIXED for x in operands)
        if mixed or not seen:
            for made in _tensors(result):
                _set(made, _MIXED if mixed else None)
            return result
        if func is torch.Tensor.__setitem__:
            self._written(*args)
            return result
        if func in _PERMUTATIONS:
            return _set(result, _permuted(func, args, kwargs, seen[0][1]))
        views = [(made, _inherited(made, seen)) for made in _tensors(result)]
        if func in _NORMALISATIONS or _normalises_cells(func, args, kwargs, seen[0]):
            self.mixtures.append(self.layer)  # a little of every cell is in each, which still has a place
        elif func in _MIXING or _works_along(func, args, kwargs, seen[0]):
            views = [(made, None) for made, _ in views]
        lost = any(view is None for _, view in views)
        if lost and func in _REDUCTIONS:
            return self._reduced(func, args, kwargs, *seen[0])
        if lost:
            self.mixtures.append(self.layer)
        for made, view in views:
            _set(made, view or _MIXED)
        return result

    def _written(self, target: torch.Tensor, index: object, value: object) -> None:
        """Cells of one map written into another, which then sees what both saw; only whole maps are followed."""
        written = getattr(value, _VIEW, None)
        if written is None:
            return
        own, fits = self.view(target), torch.is_tensor(value) and value.shape[-2:] == target.shape[-2:]
        if not isinstance(written, View) or not fits or (own and own.stride != written.stride):
            self.mixtures.append(self.layer)
            _set(target, _MIXED)
        else:
            _set(target, own.joined(written) if own else written)

    def _slid(self, operation: Operation) -> torch.Tensor:
        view = self.view(operation.x)
        made = operation.native()
        if view is None:
            return _set(made, getattr(operation.x, _VIEW, None))
        left, _, top, _ = operation.sides
        steps = zip(operation.kernel, operation.stride, operation.dilation, (top, left), strict=True)
        rows, columns = (span.slid(*step) for span, step in zip((view.rows, view.columns), steps, strict=True))
        return _set(made, View(rows, columns))

    def _reduced(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], x: torch.Tensor, view: View) -> Any:
        """A reduction over a whole map, over all its cells or the free ones; what it makes sees no place of its own."""
        self.reductions.append((self.layer, view, tuple(x.shape)))
        if not self._free_only:
            return func(*args, **kwargs)
        where: list[slice] = [slice(None)] * x.ndim
        where[view.dims[0]], where[view.dims[1]] = view.free(self._size, x.shape)
        part = x[tuple(where)]
        made = func(*(part if a is x else a for a in args), **{k: part if a is x else a for k, a in kwargs.items()})
        if any(m.ndim == x.ndim and (m.shape[view.dims[0]], m.shape[view.dims[1]]) != (1, 1) for m in _tensors(made)):
            raise Inapplicable(f"{self.layer or 'the network'} pools a map to more than one cell")
        return made


#: The attribute of a tensor that holds its view: none, if it does not depend on the image or is a reduction of it.
_VIEW = "_posbench_view"
#: In place of a view: depends on the image in a way that is not followed, as does all that is made of it.
_MIXED = object()


def _set(tensor: torch.Tensor, view: object) -> torch.Tensor:
    # An operation in place returns the tensor that it was given, which then sees what its operands saw together.
    setattr(tensor, _VIEW, view)
    return tensor


def _tensors(value: Any) -> Iterable[torch.Tensor]:
    """The tensors among arguments or results, one list or tuple deep or more."""
    if torch.is_tensor(value):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _inherited(made: torch.Tensor, seen: Sequence[tuple[torch.Tensor, View]]) -> View | None:
    """What a tensor sees whose height and width stand where those of its operands do, cell by cell."""
    for x, view in seen:
        fits = made.ndim == x.ndim or (view.dims == (-2, -1) and made.ndim > 2)
        if not fits or any(made.shape[dim] != x.shape[dim] for dim in view.dims):
            return None
    views = [view for _, view in seen]
    alike = all((view.dims, view.stride) == (views[0].dims, views[0].stride) for view in views)
    return reduce(View.joined, views) if alike else None


def _works_along(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], first: tuple[torch.Tensor, View]) -> bool:
    """Whether a function of one dimension, such as softmax, is given one of a map's height and width."""
    x, view = first
    if func is F.linear:
        return -1 in view.dims
    if func not in _ALONG:
        return False
    dim = kwargs.get("dim", kwargs.get("dims", args[1] if len(args) > 1 else None))
    dims = [dim] if isinstance(dim, int) else dim
    return dims is None or any((d - x.ndim if d >= 0 else d) in view.dims for d in dims)


def _normalises_cells(
    func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], first: tuple[torch.Tensor, View]
) -> bool:
    """Whether a layer normalisation takes its statistics over a map's cells."""
    if func is not F.layer_norm:
        return False
    shape = kwargs.get("normalized_shape", args[1] if len(args) > 1 else ())
    return any(dim >= -len(shape) for dim in first[1].dims)


def _permuted(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], view: View) -> View:
    """The view after dimensions changed places: a tensor of sizes 2, 3, 4 … tells where each has gone."""
    x, *rest = args
    sizes = tuple(range(2, 2 + x.ndim))
    moved = func(torch.empty(sizes, device="meta"), *rest, **kwargs).shape
    down, across = (moved.index(sizes[dim]) - x.ndim for dim in view.dims)
    return View(view.rows, view.columns, (down, across))
