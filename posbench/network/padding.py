"""Replacement of the padding of every padded operation of any network, without changing its modules.

Inside the context, each call of a padded convolution or pooling, and each constant `pad` of a feature map, is replaced
by the strategy's padding and the same operation without padding. The reflection inside blur pooling and the padding of
one-dimensional attention over channels are part of the network's arithmetic and stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any
from zlib import crc32

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from posbench.core.errors import ComponentError, Inapplicable
from posbench.network.tracing import LayerTracker, parse_operation
from posbench.plugin.components import Padding
from posbench.plugin.operation import NO_SIDES, Operation, Sides
from posbench.plugin.sandbox import naming_errors, trusted_callback, write_count

#: Functions whose padding cannot be replaced.
_UNSUPPORTED = {
    torch.conv_transpose2d: "a transposed convolution",
    F.max_pool2d_with_indices: "a max-pooling that returns indices",
}


def apply_padding(padding: Padding | None, network: torch.nn.Module) -> AbstractContextManager[object]:
    """Return a context in which the network pads as the strategy says.

    None, or a strategy without a function, keeps the native padding.

    Raises (from operations inside the context):
        Inapplicable: if the strategy cannot be applied to an operation; names its layer.
        ComponentError: if the strategy raises, writes into its input, or returns a map of the wrong shape, dtype or
            device. Two images of each layer are also checked for finite values and an unchanged interior.
    """
    if padding is None or padding.native:
        return nullcontext()
    return _PaddingOverride(padding, network)


@dataclass(frozen=True)
class PaddedOperation:
    """A padded operation of a network, as it was called.

    Attributes:
        layer: the name of the module that called it.
        operation: `convolution`, `max-pooling`, `average-pooling` or `pad`.
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
        """True if its windows use more of the padding on one side than on the other.

        That is the case if (h + 2p − k) mod s is not 0, or if one side has more padding.

        Source: Alsallakh et al., Mind the Pad, ICLR 2021.
        """
        left, right, top, bottom = self.sides
        totals = (self.size[0] + top + bottom, self.size[1] + left + right)
        spans = ((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True))
        remainders = ((total - span) % s for total, span, s in zip(totals, spans, self.stride, strict=True))
        return left != right or top != bottom or any(remainders)


class _PaddingOverride(LayerTracker):
    """A context that replaces and records the padded operations of a network."""

    def __init__(self, padding: Padding, network: torch.nn.Module) -> None:
        super().__init__(network)
        self.operations: list[PaddedOperation] = []
        self._padding = padding
        self._checked: set[tuple[object, ...]] = set()
        self._last_pad: tuple[torch.Tensor, Operation] | None = None

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in _UNSUPPORTED:
            raise Inapplicable(f"{self.layer or _UNSUPPORTED[func]} cannot be given another padding")
        operation = parse_operation(func, args, kwargs or {})
        if operation is None or not operation.constant:
            return func(*args, **(kwargs or {}))
        with trusted_callback():
            return self._override(operation)

    def _override(self, operation: Operation) -> torch.Tensor:
        last = self._last_pad
        if operation.sides == NO_SIDES:
            if last is None or operation.x is not last[0]:
                return operation.native()
            # The `pad` just before belongs to this operation, and perhaps to others that read the same map.
            if self.operations[-1].operation == "pad":
                self.operations.pop()
            operation = replace(operation, x=last[1].x, sides=last[1].sides)
            self._record(operation)
            return self._operate(operation) if self._padding.operate else operation.native()
        self._record(operation)
        if operation.kind == "pad":
            padded = operation.native() if self._padding.operate else self._pad(operation)
            self._last_pad = padded, operation
            return padded
        return self._operate(operation) if self._padding.operate else operation.unpadded(self._pad(operation))

    def _record(self, operation: Operation) -> None:
        o = operation
        size = (o.x.shape[2], o.x.shape[3])
        self.operations.append(PaddedOperation(self.layer, o.kind, o.kernel, o.stride, o.dilation, o.sides, size))

    def _pad(self, operation: Operation) -> torch.Tensor:
        """Return the operation's map, padded by the strategy."""
        x, (left, right, top, bottom) = operation.x, operation.sides
        before = self._copy_for_check(operation)
        if self._padding.pad is None:
            raise ComponentError(f"{self._padding.title} has nothing to pad with")
        # Under autocast, some strategies would return another dtype than the map's.
        device = x.device.type
        autocast = torch.amp.is_autocast_available(device)
        with torch.autocast(device, enabled=False) if autocast else nullcontext():
            padded = self._call(operation, self._padding.pad, x, operation.sides)
        shape = (*x.shape[:2], x.shape[2] + top + bottom, x.shape[3] + left + right)
        self._check(operation, padded, shape, x.dtype)
        if before is not None:
            self._check_values(operation, before, padded)
            inner = self._checked_images(padded)[..., top : top + x.shape[2], left : left + x.shape[3]]
            if not torch.equal(inner, before):
                raise self._error(operation, "changed the interior of the map")
        return padded

    def _operate(self, operation: Operation) -> torch.Tensor:
        """Return the result of a strategy that computes whole operations."""
        if self._padding.operate is None:
            return operation.unpadded(self._pad(operation))
        before = self._copy_for_check(operation)
        result = self._call(operation, self._padding.operate, operation)
        if before is None:
            self._check(operation, result, result.shape, result.dtype)
        else:
            # Under every strategy, the result has the size and dtype that it has under zero padding.
            native = (
                operation.native()[:1]
                if operation.kind == "pad"
                else operation.unpadded(_zero_pad_by_copying(before, operation.sides))
            )
            self._check(operation, result, (len(operation.x), *native.shape[1:]), native.dtype)
            self._check_values(operation, before, result)
        return result

    def _copy_for_check(self, operation: Operation) -> torch.Tensor | None:
        """Copy the images of a map that are checked after the call; once a layer, since checks take time."""
        x = operation.x
        key = (self.layer, operation.kind, operation.sides, operation.kernel, *x.shape)
        if key in self._checked or x.is_meta:
            return None
        self._checked.add(key)
        return self._checked_images(x)

    def _checked_images(self, maps: torch.Tensor) -> torch.Tensor:
        """Return copies of the first image and, if there are several, of another that the layer's name determines."""
        seed = crc32(self.layer.encode())
        return maps[[0, 1 + seed % (len(maps) - 1)] if len(maps) > 1 else [0]]

    def _call(self, operation: Operation, function: Callable[..., Any], *args: Any) -> torch.Tensor:
        """Call the strategy; add the layer to Inapplicable, and the strategy's name to any other error."""
        writes = write_count(operation.x)
        try:
            with naming_errors(self._padding):
                result = function(*args)
        except Inapplicable as error:
            raise Inapplicable(f"{self._place(operation)}: {error}") from error
        if write_count(operation.x) != writes:
            raise self._error(operation, "wrote into the map that it was given")
        if not isinstance(result, torch.Tensor):
            raise self._error(operation, "returned no tensor")
        return result

    def _check(self, operation: Operation, result: torch.Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        """Raise unless the result is on the map's device, and of the expected shape and dtype."""
        device = operation.x.device
        if result.shape != shape or result.dtype != dtype or result.device != device:
            returned = f"returned {result.dtype} {tuple(result.shape)} on {result.device}"
            raise self._error(operation, returned, f"; expected {dtype} {tuple(shape)} on {device}")

    def _check_values(self, operation: Operation, before: torch.Tensor, result: torch.Tensor) -> None:
        """Raise if the input was changed, or the result of a finite input is not finite, in the checked images."""
        finite = [bool(torch.stack(x.aminmax()).isfinite().all()) for x in (before, self._checked_images(result))]
        if finite == [True, False]:
            raise self._error(operation, "returned values that are not finite")
        if finite[0] and not torch.equal(self._checked_images(operation.x), before):
            raise self._error(operation, "wrote into the map that it was given")

    def _error(self, operation: Operation, problem: str, expected: str = "") -> ComponentError:
        return ComponentError(f"{self._padding.title} {problem} at {self._place(operation)}{expected}")

    def _place(self, operation: Operation) -> str:
        """Return the running layer, or the operation where the network itself calls it."""
        return self.layer or f"a {operation.kind}"


class _UnreachedPadding(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context that records the low-level operations that still pad although the strategy is active."""

    def __init__(self, tracker: LayerTracker) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: dict[str, None] = {}
        self._tracker = tracker

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        names = (argument.name for argument in func._schema.arguments)
        if _pads_map(func.__name__, {**dict(zip(names, args, strict=False)), **(kwargs or {})}):
            self.operations[f"{func.__name__} in {self._tracker.layer or 'the network itself'}"] = None
        return func(*args, **(kwargs or {}))


def _pads_map(name: str, arguments: Mapping[str, Any]) -> bool:
    """Return True if a low-level operation pads with a constant what may be a feature map."""
    x = next(iter(arguments.values()), None)
    if not torch.is_tensor(x) or name.startswith(("reflection", "replication")):
        return False
    if "pad" in arguments and arguments.get("mode", "constant") == "constant":
        # For [n, channels, height, width], the first four numbers pad the last two dimensions.
        return any(arguments["pad"][:4] if x.ndim == 4 else arguments["pad"])
    cells = arguments.get("padding", 0)
    if x.ndim == 3 and x.shape[1] == 1:
        return False  # one-dimensional attention over channels
    if isinstance(cells, str):
        return cells == "same" and any(side > 1 for side in arguments["weight"].shape[2:])
    return any(cells) if isinstance(cells, list | tuple) else bool(cells)


def _zero_pad_by_copying(x: torch.Tensor, sides: Sides) -> torch.Tensor:
    """Pad with zeros without any padding operation of torch, which `_UnreachedPadding` would record."""
    left, right, top, bottom = sides
    n, channels, height, width = x.shape
    larger = x.new_zeros(n, channels, height + top + bottom, width + left + right)
    larger[..., top : top + height, left : left + width] = x
    return larger


@torch.inference_mode()
def padded_operations(network: torch.nn.Module, x: torch.Tensor) -> list[PaddedOperation]:
    """Return every padded operation of a network, in call order, after checking that a strategy reaches them all.

    The network runs once under a strategy that pads without torch's padding. Any low-level operation that still pads a
    two-dimensional map was not reached.

    Args:
        x: images as the network takes them, on any device, including `meta`.

    Raises:
        Inapplicable: names the operations whose padding cannot be replaced.
    """
    with (
        _PaddingOverride(Padding(name="check", summary="", version="1", pad=_zero_pad_by_copying), network) as override,
        _UnreachedPadding(override) as unreached,
    ):
        network(x)
    if unreached.operations:
        first, *others = unreached.operations
        raise Inapplicable(f"padding cannot reach {first}" + (f" and {len(others)} more operations" if others else ""))
    return override.operations
