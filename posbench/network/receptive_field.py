"""Tracing of receptive fields: which pixels of the image each cell of a network's maps depends on.

A cell whose receptive field lies inside the image is padding-free: its value is the same under every padding. The same
numbers say how far beyond a crop the network looks, and which cells of a larger map belong to a crop.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F

from posbench.core.errors import Inapplicable
from posbench.network.tracing import LayerTracker, parse_operation
from posbench.plugin.operation import Operation


@dataclass(frozen=True)
class Span:
    """Receptive fields along one axis: cell j depends on the pixels from j·stride + first to j·stride + last."""

    stride: int = 1
    first: int = 0
    last: int = 0

    def after_window(self, kernel: int, stride: int, dilation: int, before: int) -> Span:
        """Return the span after a sliding window over the map, padded by `before` cells at its start."""
        return Span(
            self.stride * stride,
            self.first - before * self.stride,
            self.last + ((kernel - 1) * dilation - before) * self.stride,
        )

    def union(self, other: Span) -> Span:
        """Return the span of a cell-by-cell function of two maps."""
        return Span(self.stride, min(self.first, other.first), max(self.last, other.last))

    def padding_free(self, pixels: int, cells: int) -> slice:
        """Return which of `cells` cells depend on no pixel beyond an image of `pixels` pixels; possibly none."""
        start = max(0, -(self.first // self.stride))
        stop = min(cells, (pixels - 1 - self.last) // self.stride + 1)
        return slice(start, max(start, stop))

    def min_image_size(self) -> int:
        """Return the smallest image size, in pixels, at which some cell is padding-free."""
        return max(0, -(self.first // self.stride)) * self.stride + self.last + 1


@dataclass(frozen=True)
class ReceptiveField:
    """The receptive fields of the cells of one map.

    Attributes:
        rows, columns: their spans.
        dims: the dimensions of the map that hold its height and its width, counted from the end.
    """

    rows: Span
    columns: Span
    dims: tuple[int, int] = (-2, -1)

    @property
    def stride(self) -> tuple[int, int]:
        return self.rows.stride, self.columns.stride

    def union(self, other: ReceptiveField) -> ReceptiveField:
        """Return the receptive field of a cell-by-cell function of two maps."""
        return ReceptiveField(self.rows.union(other.rows), self.columns.union(other.columns), self.dims)

    def padding_free(self, size: int, shape: Sequence[int]) -> tuple[slice, slice]:
        """Return the (rows, columns) of a map that no padding reaches, in images of `size` pixels a side."""
        down, across = self.dims
        return self.rows.padding_free(size, shape[down]), self.columns.padding_free(size, shape[across])


#: Functions that reduce a whole map to one number a channel.
_REDUCTIONS = {
    *(torch.mean, torch.Tensor.mean, torch.sum, torch.Tensor.sum, torch.amax, torch.Tensor.amax),
    *(torch.norm, torch.Tensor.norm, torch.linalg.vector_norm, torch.var_mean, torch.std, torch.Tensor.std),
    *(F.adaptive_avg_pool2d, F.adaptive_max_pool2d, torch.adaptive_avg_pool1d),
}
#: Functions that put statistics over a whole map into every cell.
_NORMALISATIONS = {F.group_norm, torch.group_norm, F.instance_norm, torch.instance_norm}
#: Functions that mix or move cells although the map keeps its size.
_MIXING = {
    *(torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.bmm, torch.einsum, F.grid_sample),
    *(torch.Tensor.mT.__get__, torch.Tensor.T.__get__),  # type: ignore[attr-defined]
    *(F.scaled_dot_product_attention, torch.roll, torch.Tensor.roll),
}
#: Functions along given dimensions.
_ALONG_DIMS = {
    *(F.softmax, torch.softmax, torch.Tensor.softmax, F.log_softmax, torch.cumsum, torch.Tensor.cumsum),
    *(torch.flip, torch.Tensor.flip, F.normalize),
}
_PERMUTATIONS = {torch.permute, torch.Tensor.permute, torch.transpose, torch.Tensor.transpose}


class ReceptiveFieldTracer(LayerTracker):
    """A context that tracks the receptive field of every map that a network computes from a marked image.

    A map whose cells are mixed in other ways than by sliding windows (a reshaping, a matrix product over cells) is
    untraced: `receptive_field` returns None for it and for all maps computed from it.

    Args:
        size: the side of the image, in pixels.
        padding_free_only: let reductions over whole maps, such as in squeeze-and-excitation, read padding-free cells
            only.

    Attributes:
        reductions: the layers that reduce whole maps, in order, each with the map's receptive field and shape.
        untraced: the layers in which cells are mixed in other ways than by sliding windows.

    Raises (from operations inside the context):
        Inapplicable: if `padding_free_only` is set and a reduction leaves more than one cell.
    """

    def __init__(self, network: torch.nn.Module, size: int, *, padding_free_only: bool = False) -> None:
        super().__init__(network)
        self.reductions: list[tuple[str, ReceptiveField, tuple[int, ...]]] = []
        self.untraced: list[str] = []
        self._size = size
        self._padding_free_only = padding_free_only

    def mark(self, image: torch.Tensor) -> torch.Tensor:
        """Mark [n, 3, size, size] as the image whose pixels receptive fields refer to, and return it."""
        return _set(image, ReceptiveField(Span(), Span()))

    def receptive_field(self, tensor: torch.Tensor) -> ReceptiveField | None:
        """Return the receptive field of a map, or None where it is unknown."""
        field = getattr(tensor, _FIELD, None)
        return field if isinstance(field, ReceptiveField) else None

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        operation = parse_operation(func, args, kwargs)
        if operation is not None:
            return self._slide(operation)
        result = func(*args, **kwargs)
        operands = list(_tensors((args, kwargs)))
        traced = [(x, field) for x in operands if (field := self.receptive_field(x)) is not None]
        mixed = any(getattr(x, _FIELD, None) is _UNTRACED for x in operands)
        if mixed or not traced:
            for output in _tensors(result):
                _set(output, _UNTRACED if mixed else None)
            return result
        if func is torch.Tensor.__setitem__:
            self._write(*args)
            return result
        if func in _PERMUTATIONS:
            return _set(result, _permuted(func, args, kwargs, traced[0][1]))
        fields = [(output, _inherited(output, traced)) for output in _tensors(result)]
        if func in _NORMALISATIONS or _normalises_cells(func, args, kwargs, traced[0]):
            self.untraced.append(self.layer)  # statistics of all cells enter each, which still has its place
        elif func in _MIXING or _works_along_axis(func, args, kwargs, traced[0]):
            fields = [(output, None) for output, _ in fields]
        lost = any(field is None for _, field in fields)
        if lost and func in _REDUCTIONS:
            return self._reduce(func, args, kwargs, *traced[0])
        if lost:
            self.untraced.append(self.layer)
        for output, field in fields:
            _set(output, field or _UNTRACED)
        return result

    def _write(self, target: torch.Tensor, index: object, value: object) -> None:
        """Update the receptive field of a map into which another is written; only whole maps are traced."""
        written = getattr(value, _FIELD, None)
        if written is None:
            return
        own = self.receptive_field(target)
        fits = torch.is_tensor(value) and value.shape[-2:] == target.shape[-2:]
        if not isinstance(written, ReceptiveField) or not fits or (own and own.stride != written.stride):
            self.untraced.append(self.layer)
            _set(target, _UNTRACED)
        else:
            _set(target, own.union(written) if own else written)

    def _slide(self, operation: Operation) -> torch.Tensor:
        field = self.receptive_field(operation.x)
        output = operation.native()
        if field is None:
            return _set(output, getattr(operation.x, _FIELD, None))
        left, _, top, _ = operation.sides
        down, across = zip(operation.kernel, operation.stride, operation.dilation, (top, left), strict=True)
        return _set(output, ReceptiveField(field.rows.after_window(*down), field.columns.after_window(*across)))

    def _reduce(
        self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], x: torch.Tensor, field: ReceptiveField
    ) -> Any:
        """Reduce a whole map, over all its cells or the padding-free ones; the result has no receptive field."""
        self.reductions.append((self.layer, field, tuple(x.shape)))
        if not self._padding_free_only:
            return func(*args, **kwargs)
        index: list[slice] = [slice(None)] * x.ndim
        index[field.dims[0]], index[field.dims[1]] = field.padding_free(self._size, x.shape)
        part = x[tuple(index)]
        output = func(*(part if a is x else a for a in args), **{k: part if a is x else a for k, a in kwargs.items()})
        down, across = field.dims
        if any(y.ndim == x.ndim and (y.shape[down], y.shape[across]) != (1, 1) for y in _tensors(output)):
            raise Inapplicable(f"{self.layer or 'the network'} pools a map to more than one cell")
        return output


#: The attribute of a tensor that holds its receptive field; None if it does not depend on the image, or is a reduction.
_FIELD = "_posbench_receptive_field"
#: In place of a receptive field: the tensor depends on the image in a way that is not traced.
_UNTRACED = object()


def _set(tensor: torch.Tensor, field: object) -> torch.Tensor:
    # An in-place operation returns its operand, which then gets the receptive field of all operands.
    setattr(tensor, _FIELD, field)
    return tensor


def _tensors(value: Any) -> Iterable[torch.Tensor]:
    """Yield the tensors in nested arguments or results."""
    if torch.is_tensor(value):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _inherited(output: torch.Tensor, traced: Sequence[tuple[torch.Tensor, ReceptiveField]]) -> ReceptiveField | None:
    """Return the receptive field of a cell-by-cell function's output; None if its size is not that of the operands."""
    for x, field in traced:
        fits = output.ndim == x.ndim or (field.dims == (-2, -1) and output.ndim > 2)
        if not fits or any(output.shape[dim] != x.shape[dim] for dim in field.dims):
            return None
    fields = [field for _, field in traced]
    alike = all((field.dims, field.stride) == (fields[0].dims, fields[0].stride) for field in fields)
    return reduce(ReceptiveField.union, fields) if alike else None


def _works_along_axis(
    func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], first: tuple[torch.Tensor, ReceptiveField]
) -> bool:
    """Return True if a function along a dimension, such as softmax, is applied along a map's height or width."""
    x, field = first
    if func is F.linear:
        return -1 in field.dims
    if func not in _ALONG_DIMS:
        return False
    dim = kwargs.get("dim", kwargs.get("dims", args[1] if len(args) > 1 else None))
    dims = [dim] if isinstance(dim, int) else dim
    return dims is None or any((d - x.ndim if d >= 0 else d) in field.dims for d in dims)


def _normalises_cells(
    func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], first: tuple[torch.Tensor, ReceptiveField]
) -> bool:
    """Return True if a layer normalisation takes its statistics over a map's cells."""
    shape = kwargs.get("normalized_shape", args[1] if len(args) > 1 else ()) if func is F.layer_norm else ()
    return any(dim >= -len(shape) for dim in first[1].dims)


def _permuted(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], field: ReceptiveField) -> ReceptiveField:
    """Return the receptive field after a permutation, which is tried on a tensor of sizes 2, 3, 4 …."""
    x, *rest = args
    sizes = tuple(range(2, 2 + x.ndim))
    permuted = func(torch.empty(sizes, device="meta"), *rest, **kwargs).shape
    down, across = (permuted.index(sizes[dim]) - x.ndim for dim in field.dims)
    return ReceptiveField(field.rows, field.columns, (down, across))
