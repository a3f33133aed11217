"""Interception of a network's convolutions, poolings and pads, each parsed into one `Operation` record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from posbench.plugin.operation import Operation


def parse_operation(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Operation | None:
    """Return the operation that a call of a torch function computes; None for functions of other kinds."""
    parser = _PARSERS.get(func)
    return parser(func, *args, **kwargs) if parser else None


def _convolution(
    func: Any,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | tuple[int, ...] = 1,
    padding: str | int | tuple[int, ...] = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> Operation:
    kernel = (weight.shape[-2], weight.shape[-1])
    if isinstance(padding, str):
        totals = [d * (k - 1) for k, d in zip(kernel, _pair(dilation), strict=True)]
        (top, bottom), (left, right) = ((t // 2, t - t // 2) if padding == "same" else (0, 0) for t in totals)
    else:
        top, left = bottom, right = _pair(padding)
    sides = (left, right, top, bottom)
    native = partial(func, x, weight, bias, stride, padding, dilation, groups)

    def unpadded(padded: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = func(padded, weight, bias, stride, 0, dilation, groups)
        return result

    return Operation("convolution", x, kernel, _pair(stride), _pair(dilation), sides, True, native, unpadded, bias)


def _pooling(
    func: Any,
    x: torch.Tensor,
    kernel_size: int | tuple[int, ...],
    stride: int | tuple[int, ...] | None = None,
    padding: int | tuple[int, ...] = 0,
    *args: Any,
    **kwargs: Any,
) -> Operation:
    rows, columns = _pair(padding)
    down, across = _pair(stride or kernel_size)

    def unpadded(padded: torch.Tensor) -> torch.Tensor:
        pooled: torch.Tensor = func(padded, kernel_size, stride, 0, *args, **kwargs)
        # With ceil_mode, torch starts no window in the padding below and to the right. In the padded map that padding
        # is part of the input, so such windows are cut off here.
        return pooled[..., : -(-(x.shape[-2] + rows) // down), : -(-(x.shape[-1] + columns) // across)]

    kind = "average-pooling" if func is F.avg_pool2d else "max-pooling"
    dilation = _pair(args[0] if args and func is not F.avg_pool2d else kwargs.get("dilation", 1))
    sides = (columns, columns, rows, rows)
    native = partial(func, x, kernel_size, stride, padding, *args, **kwargs)
    return Operation(kind, x, _pair(kernel_size), (down, across), dilation, sides, True, native, unpadded)


def _pad(
    func: Any, x: torch.Tensor, pad: Iterable[int], mode: str = "constant", value: float | None = None
) -> Operation | None:
    sides = tuple(pad)
    if x.ndim != 4 or len(sides) != 4 or min(sides) < 0:
        return None
    native = partial(func, x, sides, mode=mode, value=value)
    return Operation("pad", x, (1, 1), (1, 1), (1, 1), sides, mode == "constant", native, lambda padded: padded)


_PARSERS: dict[Any, Callable[..., Operation | None]] = {
    torch.conv2d: _convolution,
    F.max_pool2d: _pooling,
    torch.max_pool2d: _pooling,
    F.avg_pool2d: _pooling,
    F.pad: _pad,
}


def _pair(value: int | Iterable[int]) -> tuple[int, int]:
    """Return (vertical, horizontal) from one number for both or from two, as torch's operations take them."""
    numbers = (value,) if isinstance(value, int) else tuple(value)
    return numbers[0], numbers[-1]


class LayerTracker(TorchFunctionMode):
    """A context that intercepts every torch function that a network calls, and knows which layer is running."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self._network = network
        self._layers: list[str] = []
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        for name, module in self._network.named_modules():
            self._hooks.append(module.register_forward_pre_hook(partial(self._push, name)))
            self._hooks.append(module.register_forward_hook(self._pop, always_call=True))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        for hook in self._hooks:
            hook.remove()
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return func(*args, **(kwargs or {}))

    def _push(self, name: str, *_: object) -> None:
        self._layers.append(name)

    def _pop(self, *_: object) -> None:
        self._layers.pop()

    @property
    def layer(self) -> str:
        """The name of the innermost running module; empty for the network itself."""
        return self._layers[-1] if self._layers else ""
