"""Applies a padding strategy to every padded operation of any network, without touching its modules.

While the context is active, every call of a padded convolution or pooling, and every constant `pad` of a feature map,
is answered with the strategy's padding followed by the same operation without padding. Blur pooling's own reflection,
and the channel-wise padding of one-dimensional attention, belong to the network's arithmetic and stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from posbench.components import Padding, Sides
from posbench.errors import Inapplicable, PosbenchError

PadFunction = Callable[[torch.Tensor, Sides], torch.Tensor]

_NONE: Sides = (0, 0, 0, 0)
_POOLS = (F.max_pool2d, torch.max_pool2d, F.avg_pool2d)
_REFUSED = {
    torch.conv_transpose2d: "a transposed convolution",
    F.max_pool2d_with_indices: "a max-pooling that returns indices",
}


def apply(padding: Padding | None, network: torch.nn.Module) -> AbstractContextManager[object]:
    """A context in which the network pads as the strategy says; None, or one without a function, is the native padding.

    Raises (from operations inside the context):
        Inapplicable: if the strategy cannot serve an operation, naming its layer.
        PosbenchError: if the strategy returns a map of the wrong shape, dtype or device.
    """
    if padding is None or padding.pad is None:
        return nullcontext()
    return _Repadding(padding.name, padding.pad, network)


class _Repadding(TorchFunctionMode):
    def __init__(self, name: str, pad: PadFunction, network: torch.nn.Module) -> None:
        super().__init__()
        self._name = name
        self._pad = pad
        self._layers = {id(parameter): layer for layer, parameter in network.named_parameters()}

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.conv2d:
            return self._convolve(*args, **kwargs)
        if func is F.pad:
            return self._pad_constant(*args, **kwargs)
        if func in _POOLS:
            return self._pool(func, *args, **kwargs)
        if func in _REFUSED:
            raise Inapplicable(f"{_REFUSED[func]} cannot be given another padding")
        return func(*args, **kwargs)

    def _convolve(
        self,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
        stride: int | tuple[int, ...] = 1,
        padding: str | int | tuple[int, ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
    ) -> torch.Tensor:
        if isinstance(padding, str):
            totals = [d * (k - 1) for k, d in zip(weight.shape[-2:], _pair(dilation), strict=True)]
            (top, bottom), (left, right) = ((t // 2, t - t // 2) if padding == "same" else (0, 0) for t in totals)
        else:
            top, left = bottom, right = _pair(padding)
        layer = self._layers.get(id(weight), "a convolution").removesuffix(".weight")
        x = self._padded(x, (left, right, top, bottom), layer)
        return F.conv2d(x, weight, bias, stride, 0, dilation, groups)

    def _pad_constant(
        self, x: torch.Tensor, pad: Iterable[int], mode: str = "constant", value: float | None = None
    ) -> torch.Tensor:
        sides = tuple(pad)
        if mode == "constant" and x.ndim == 4 and len(sides) == 4 and min(sides) >= 0:
            left, right, top, bottom = sides
            return self._padded(x, (left, right, top, bottom), "a pad before an operation")
        return F.pad(x, sides, mode=mode, value=value)

    def _pool(
        self,
        func: Any,
        x: torch.Tensor,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] | None = None,
        padding: int | tuple[int, ...] = 0,
        *args: Any,
        **kwargs: Any,
    ) -> torch.Tensor:
        rows, columns = _pair(padding)
        larger = self._padded(x, (columns, columns, rows, rows), "a pooling")
        pooled: torch.Tensor = func(larger, kernel_size, stride, 0, *args, **kwargs)
        # Where the size is rounded up (ceil_mode), no window may start beyond the map: natively its far padding is not
        # part of it, here it is.
        down, across = _pair(stride or kernel_size)
        return pooled[..., : -(-(x.shape[-2] + rows) // down), : -(-(x.shape[-1] + columns) // across)]

    def _padded(self, x: torch.Tensor, sides: Sides, layer: str) -> torch.Tensor:
        if sides == _NONE:
            return x
        try:
            # Autocasting would hand some strategies' padding back in another dtype than the map's.
            device = x.device.type
            autocast = torch.amp.is_autocast_available(device)
            with torch.autocast(device, enabled=False) if autocast else nullcontext():
                padded = self._pad(x, sides)
        except Inapplicable as error:
            raise Inapplicable(f"{layer}: {error}") from error
        left, right, top, bottom = sides
        shape = (*x.shape[:2], x.shape[2] + top + bottom, x.shape[3] + left + right)
        if padded.shape != shape or padded.dtype != x.dtype or padded.device != x.device:
            raise PosbenchError(
                f"padding {self._name!r} returned {padded.dtype} {tuple(padded.shape)} on {padded.device} at {layer}; "
                f"expected {x.dtype} {shape} on {x.device}"
            )
        return padded


class _Escapes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notices operations that still pad, below the functions that a strategy replaces."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: dict[str, None] = {}

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        names = (argument.name for argument in func._schema.arguments)
        if _pads_map(func.__name__, {**dict(zip(names, args, strict=False)), **(kwargs or {})}):
            self.found[func.__name__] = None
        return func(*args, **(kwargs or {}))


def _pads_map(name: str, given: Mapping[str, Any]) -> bool:
    """Whether a basic operation, with the arguments given, pads a map of two dimensions with a constant."""
    x = next(iter(given.values()), None)
    own = name.startswith(("reflection", "replication")) or given.get("mode", "constant") != "constant"
    if own or not torch.is_tensor(x) or x.ndim != 4:
        return False
    cells = given.get("padding", given.get("pad", 0))
    return cells == "same" if isinstance(cells, str) else any(cells) if isinstance(cells, list | tuple) else bool(cells)


@torch.inference_mode()
def check_reach(padding: Padding | None, network: torch.nn.Module, x: torch.Tensor) -> None:
    """Prove on one input that no padded operation of the network escapes a strategy.

    Every operation that torch computes below is looked at while the network runs under a strategy that copies the map
    into a larger one by hand: whatever still pads a map of two dimensions was not reached.

    Args:
        x: as the network takes it; any device, also `meta`.

    Raises:
        Inapplicable: naming the operations that escape. Never for the native padding, which needs to reach nothing.
    """
    if padding is None or padding.pad is None:
        return

    def copied(map_: torch.Tensor, sides: Sides) -> torch.Tensor:
        left, right, top, bottom = sides
        n, c, h, w = map_.shape
        larger = map_.new_zeros(n, c, h + top + bottom, w + left + right)
        larger[..., top : top + h, left : left + w] = map_
        return larger

    with _Repadding("the check", copied, network), _Escapes() as escapes:
        network(x)
    if escapes.found:
        raise Inapplicable(f"padding cannot reach {', '.join(escapes.found)}, which this network pads with")


def _pair(value: int | Iterable[int]) -> tuple[int, int]:
    """(vertical, horizontal), from one number for both or from two, as torch's operations take them."""
    if isinstance(value, int):
        return value, value
    numbers = tuple(value)
    return (numbers[0], numbers[-1])
