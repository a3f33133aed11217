"""Applies a padding strategy to every padded operation of any network, without touching its modules.

While the context is active, every call of a padded convolution or pooling, and every constant `pad` of a feature map,
is answered with the strategy's padding followed by the same operation without padding. Blur pooling's own reflection,
and the channel-wise padding of one-dimensional attention, belong to the network's arithmetic and stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.hooks import RemovableHandle

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


@dataclass(frozen=True)
class PaddedOperation:
    """A padded operation of a network, as it was called.

    Attributes:
        layer: the module in whose forward it was called.
        kernel, stride, dilation: (vertical, horizontal).
        sides: the cells added at the (left, right, top, bottom).
        size: (height, width) of the map before padding.
    """

    layer: str
    operation: str
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    sides: Sides
    size: tuple[int, int]

    @property
    def uneven(self) -> bool:
        """Whether its windows touch the padding on one side further than on the other.

        Source: Alsallakh et al., Mind the Pad, ICLR 2021: (h + 2p - k) mod s is not 0; or there is more padding on one
        side to begin with.
        """
        left, right, top, bottom = self.sides
        totals = (self.size[0] + top + bottom, self.size[1] + left + right)
        spans = ((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True))
        rests = ((total - span) % s for total, span, s in zip(totals, spans, self.stride, strict=True))
        return left != right or top != bottom or any(rests)


class _Repadding(TorchFunctionMode):
    """Answers padded operations with the strategy's padding, and notes them, while the network runs."""

    def __init__(self, name: str, pad: PadFunction, network: torch.nn.Module) -> None:
        super().__init__()
        self.operations: list[PaddedOperation] = []
        self._name = name
        self._pad = pad
        self._network = network
        self._layers: list[str] = []
        self._hooks: list[RemovableHandle] = []
        self._last_pad: torch.Tensor | None = None

    def __enter__(self) -> Self:
        for name, module in self._network.named_modules():
            self._hooks.append(module.register_forward_pre_hook(partial(self._entered, name)))
            self._hooks.append(module.register_forward_hook(self._left, always_call=True))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        for hook in self._hooks:
            hook.remove()
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def _entered(self, name: str, *_: object) -> None:
        self._layers.append(name)

    def _left(self, *_: object) -> None:
        self._layers.pop()

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
            raise Inapplicable(f"{self._where(_REFUSED[func])} cannot be given another padding")
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
        kernel = (weight.shape[-2], weight.shape[-1])
        if isinstance(padding, str):
            totals = [d * (k - 1) for k, d in zip(kernel, _pair(dilation), strict=True)]
            (top, bottom), (left, right) = ((t // 2, t - t // 2) if padding == "same" else (0, 0) for t in totals)
        else:
            top, left = bottom, right = _pair(padding)
        x = self._padded(x, (left, right, top, bottom), "convolution", kernel, _pair(stride), _pair(dilation))
        return F.conv2d(x, weight, bias, stride, 0, dilation, groups)

    def _pad_constant(
        self, x: torch.Tensor, pad: Iterable[int], mode: str = "constant", value: float | None = None
    ) -> torch.Tensor:
        sides = tuple(pad)
        if mode == "constant" and x.ndim == 4 and len(sides) == 4 and min(sides) >= 0:
            left, right, top, bottom = sides
            padded = self._padded(x, (left, right, top, bottom), "pad", (1, 1), (1, 1), (1, 1))
            self._last_pad = None if padded is x else padded
            return padded
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
        down, across = _pair(stride or kernel_size)
        larger = self._padded(
            x,
            (columns, columns, rows, rows),
            "pooling",
            _pair(kernel_size),
            (down, across),
            _pair(kwargs.get("dilation", 1)),
        )
        pooled: torch.Tensor = func(larger, kernel_size, stride, 0, *args, **kwargs)
        # Where the size is rounded up (ceil_mode), no window may start beyond the map: natively its far padding is not
        # part of it, here it is.
        return pooled[..., : -(-(x.shape[-2] + rows) // down), : -(-(x.shape[-1] + columns) // across)]

    def _padded(
        self,
        x: torch.Tensor,
        sides: Sides,
        operation: str,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        dilation: tuple[int, int],
    ) -> torch.Tensor:
        layer = self._layers[-1] if self._layers else ""
        if sides == _NONE:
            if x is self._last_pad:
                # The pad just before was this operation's.
                sides, size = self.operations[-1].sides, self.operations[-1].size
                self.operations[-1] = PaddedOperation(layer, operation, kernel, stride, dilation, sides, size)
                self._last_pad = None
            return x
        self.operations.append(
            PaddedOperation(layer, operation, kernel, stride, dilation, sides, (x.shape[2], x.shape[3]))
        )
        try:
            # Autocasting would hand some strategies' padding back in another dtype than the map's.
            device = x.device.type
            autocast = torch.amp.is_autocast_available(device)
            with torch.autocast(device, enabled=False) if autocast else nullcontext():
                padded = self._pad(x, sides)
        except Inapplicable as error:
            raise Inapplicable(f"{self._where('a ' + operation)}: {error}") from error
        left, right, top, bottom = sides
        shape = (*x.shape[:2], x.shape[2] + top + bottom, x.shape[3] + left + right)
        if padded.shape != shape or padded.dtype != x.dtype or padded.device != x.device:
            raise PosbenchError(
                f"padding {self._name!r} returned {padded.dtype} {tuple(padded.shape)} on {padded.device} "
                f"at {self._where('a ' + operation)}; expected {x.dtype} {shape} on {x.device}"
            )
        return padded

    def _where(self, operation: str) -> str:
        """The layer that runs, or what it does, where the network itself does it."""
        return self._layers[-1] if self._layers and self._layers[-1] else operation


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


def _copied(x: torch.Tensor, sides: Sides) -> torch.Tensor:
    """A frame of zeros made without any of torch's padding, which `_Escapes` would take for an escape."""
    left, right, top, bottom = sides
    n, channels, height, width = x.shape
    larger = x.new_zeros(n, channels, height + top + bottom, width + left + right)
    larger[..., top : top + height, left : left + width] = x
    return larger


@torch.inference_mode()
def padded_operations(network: torch.nn.Module, x: torch.Tensor) -> list[PaddedOperation]:
    """Every padded operation of a network, in order, with the proof that a strategy reaches them all.

    Every operation that torch computes below is looked at while the network runs under a strategy that copies the map
    into a larger one by hand: whatever still pads a map of two dimensions was not reached.

    Args:
        x: as the network takes it; any device, also `meta`.

    Raises:
        Inapplicable: naming the operations that escape.
    """
    with _Repadding("the check", _copied, network) as mode, _Escapes() as escapes:
        network(x)
    if escapes.found:
        raise Inapplicable(f"padding cannot reach {', '.join(escapes.found)}, which this network pads with")
    return mode.operations


def _pair(value: int | Iterable[int]) -> tuple[int, int]:
    """(vertical, horizontal), from one number for both or from two, as torch's operations take them."""
    if isinstance(value, int):
        return value, value
    numbers = tuple(value)
    return (numbers[0], numbers[-1])
