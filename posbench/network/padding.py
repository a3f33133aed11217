"""Applies a padding strategy to every padded operation of any network, without touching its modules.

While the context is active, every call of a padded convolution or pooling, and every constant `pad` of a feature map,
is answered with the strategy's padding followed by the same operation without padding. Blur pooling's own reflection,
and the channel-wise padding of one-dimensional attention, belong to the network's arithmetic and stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any
from zlib import crc32

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from posbench.core.errors import ComponentError, Inapplicable
from posbench.network.tracing import Watch, parse
from posbench.plugin.components import Padding, Sides
from posbench.plugin.operation import NO_SIDES, Operation
from posbench.plugin.sandbox import naming_errors, trusted_callback, write_count

_REFUSED = {
    torch.conv_transpose2d: "a transposed convolution",
    F.max_pool2d_with_indices: "a max-pooling that returns indices",
}


def apply(padding: Padding | None, network: torch.nn.Module) -> AbstractContextManager[object]:
    """A context in which the network pads as the strategy says; None, or one without a function, is the native padding.

    Raises (from operations inside the context):
        Inapplicable: if the strategy cannot serve an operation, naming its layer.
        ComponentError: if the strategy raises, or returns a map of the wrong shape, dtype or device; or, for the first
            image of a layer and another one, values that are not finite or another interior; or if it writes into what
            it was given.
    """
    if padding is None or padding.native:
        return nullcontext()
    return _Repadding(padding, network)


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


class _Repadding(Watch):
    """Answers padded operations with the strategy's padding, and notes them, while the network runs."""

    def __init__(self, padding: Padding, network: torch.nn.Module) -> None:
        super().__init__(network)
        self.operations: list[PaddedOperation] = []
        self._padding = padding
        self._checked: set[tuple[object, ...]] = set()
        self._last_pad: tuple[torch.Tensor, Operation] | None = None

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in _REFUSED:
            raise Inapplicable(f"{self._where(_REFUSED[func])} cannot be given another padding")
        operation = parse(func, args, kwargs or {})
        if operation is None or not operation.constant:
            return func(*args, **(kwargs or {}))
        with trusted_callback():
            return self._answer(operation)

    def _answer(self, operation: Operation) -> torch.Tensor:
        last = self._last_pad
        if operation.sides == NO_SIDES:
            if last is None or operation.x is not last[0]:
                return operation.native()
            # The pad just before was this operation's, and perhaps that of others that read the same map.
            if self.operations[-1].operation == "pad":
                self.operations.pop()
            operation = replace(operation, x=last[1].x, sides=last[1].sides)
            self._note(operation)
            return self._operated(operation) if self._padding.operate else operation.native()
        self._note(operation)
        if operation.kind == "pad":
            padded = operation.native() if self._padding.operate else self._padded(operation)
            self._last_pad = padded, operation
            return padded
        return self._operated(operation) if self._padding.operate else operation.unpadded(self._padded(operation))

    def _note(self, operation: Operation) -> None:
        o = operation
        size = (o.x.shape[2], o.x.shape[3])
        self.operations.append(PaddedOperation(self.layer, o.kind, o.kernel, o.stride, o.dilation, o.sides, size))

    def _padded(self, operation: Operation) -> torch.Tensor:
        """The operation's map, enlarged as the strategy says."""
        x, (left, right, top, bottom) = operation.x, operation.sides
        given, writes = self._kept(operation), write_count(x)
        if self._padding.pad is None:
            raise ComponentError(f"{self._padding.title} has nothing to pad with")
        # Autocasting would hand some strategies' padding back in another dtype than the map's.
        device = x.device.type
        autocast = torch.amp.is_autocast_available(device)
        with self._explained(operation), torch.autocast(device, enabled=False) if autocast else nullcontext():
            padded = self._padding.pad(x, operation.sides)
        self._check_writes(operation, writes)
        shape = (*x.shape[:2], x.shape[2] + top + bottom, x.shape[3] + left + right)
        self._check(operation, padded, shape, x.dtype)
        if given is not None:
            self._check_values(operation, given, padded)
            inner = self._looked_at(padded)[..., top : top + x.shape[2], left : left + x.shape[3]]
            if not torch.equal(inner, given):
                raise ComponentError(
                    f"{self._padding.title} changed the interior of the map at {self._place(operation)}"
                )
        return padded

    def _operated(self, operation: Operation) -> torch.Tensor:
        """What a strategy that answers whole operations makes of this one."""
        if self._padding.operate is None:
            return operation.unpadded(self._padded(operation))
        given, writes = self._kept(operation), write_count(operation.x)
        with self._explained(operation):
            answered = self._padding.operate(operation)
        self._check_writes(operation, writes)
        if given is None:
            self._check(operation, answered, None, None)
        else:
            # What it would be under zeros has the size that every strategy must give it, and the dtype.
            native = (
                operation.native()[:1]
                if operation.kind == "pad"
                else operation.unpadded(_copied(given, operation.sides))
            )
            self._check(operation, answered, (len(operation.x), *native.shape[1:]), native.dtype)
            self._check_values(operation, given, answered)
        return answered

    def _kept(self, operation: Operation) -> torch.Tensor | None:
        """Images of a map, kept to be compared with later; of each layer once, since that costs time."""
        x = operation.x
        key = (self.layer, operation.kind, operation.sides, operation.kernel, *x.shape)
        if key in self._checked or x.is_meta:
            return None
        self._checked.add(key)
        return self._looked_at(x)

    def _looked_at(self, maps: torch.Tensor) -> torch.Tensor:
        """The first image, and of several another one that the layer draws: copies."""
        seed = crc32(self.layer.encode())
        return maps[[0, 1 + seed % (len(maps) - 1)] if len(maps) > 1 else [0]]

    def _check_writes(self, operation: Operation, before: int) -> None:
        if write_count(operation.x) != before:
            raise ComponentError(
                f"{self._padding.title} wrote into the map that it was given at {self._place(operation)}"
            )

    @contextmanager
    def _explained(self, operation: Operation) -> Iterator[None]:
        """What the strategy refuses is told with the layer, and what it raises with its name."""
        try:
            with naming_errors(self._padding):
                yield
        except Inapplicable as error:
            raise Inapplicable(f"{self._where('a ' + operation.kind)}: {error}") from error

    def _check(self, operation: Operation, made: Any, shape: tuple[int, ...] | None, dtype: torch.dtype | None) -> None:
        """Whether this is a tensor on the map's device, and has the shape and dtype expected, where they are known."""
        if not torch.is_tensor(made):
            raise ComponentError(f"{self._padding.title} returned no tensor at {self._place(operation)}")
        shape, dtype, device = shape or made.shape, dtype or made.dtype, operation.x.device
        if made.shape != shape or made.dtype != dtype or made.device != device:
            raise ComponentError(
                f"{self._padding.title} returned {made.dtype} {tuple(made.shape)} on {made.device} "
                f"at {self._place(operation)}; expected {dtype} {tuple(shape)} on {device}"
            )

    def _check_values(self, operation: Operation, given: torch.Tensor, made: torch.Tensor) -> None:
        """Whether what is looked at of the map is as it was given, and of what was made of it finite."""
        finite = [bool(torch.stack(one.aminmax()).isfinite().all()) for one in (given, self._looked_at(made))]
        if finite == [True, False]:
            raise ComponentError(
                f"{self._padding.title} returned values that are not finite at {self._place(operation)}"
            )
        if finite[0] and not torch.equal(self._looked_at(operation.x), given):
            raise ComponentError(
                f"{self._padding.title} wrote into the map that it was given at {self._place(operation)}"
            )

    def _place(self, operation: Operation) -> str:
        return self._where("a " + operation.kind)

    def _where(self, operation: str) -> str:
        """The layer that runs, or what it does, where the network itself does it."""
        return self.layer or operation


class _Escapes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notices operations that still pad, below the functions that a strategy replaces, and in which layer."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: dict[str, None] = {}
        self._watch = watch

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        names = (argument.name for argument in func._schema.arguments)
        if _pads_map(func.__name__, {**dict(zip(names, args, strict=False)), **(kwargs or {})}):
            self.found[f"{func.__name__} in {self._watch.layer or 'the network itself'}"] = None
        return func(*args, **(kwargs or {}))


def _pads_map(name: str, given: Mapping[str, Any]) -> bool:
    """Whether a basic operation, with the arguments given, pads with a constant what may be a map."""
    x = next(iter(given.values()), None)
    if not torch.is_tensor(x) or name.startswith(("reflection", "replication")):
        return False
    if "pad" in given and given.get("mode", "constant") == "constant":
        # Of [n, channels, height, width], the first four numbers are of the last two dimensions.
        return any(given["pad"][:4] if x.ndim == 4 else given["pad"])
    cells = given.get("padding", 0)
    if x.ndim == 3 and x.shape[1] == 1:
        return False  # attention over channels, which stand in a row
    if isinstance(cells, str):
        return cells == "same" and any(side > 1 for side in given["weight"].shape[2:])
    return any(cells) if isinstance(cells, list | tuple) else bool(cells)


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
    with (
        _Repadding(Padding(name="check", summary="", version="1", pad=_copied), network) as mode,
        _Escapes(mode) as escapes,
    ):
        network(x)
    if escapes.found:
        first, *others = escapes.found
        raise Inapplicable(f"padding cannot reach {first}" + (f" and {len(others)} more operations" if others else ""))
    return mode.operations
