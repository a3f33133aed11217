"""Calls of components, which are other people's code.

What one raises is told with its name and that of its distribution; what it leaves behind of its process's random states
and of torch's modes is put right, so that no component's numbers depend on what another did before.
"""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

from posbench.components import Component
from posbench.errors import ComponentError, PosbenchError, one_line


class Board(Protocol):
    """Where a worker writes which component it is in, for whoever finds it dead."""

    value: bytes


#: Bytes that a board has room for.
ROOM = 512
_board: Board | None = None


def announce_on(board: Board) -> None:
    """From now on, write on this board which component runs."""
    global _board
    _board = board


@contextmanager
def told(component: Component) -> Iterator[None]:
    """A context in which a component is called: what it raises is told with its name.

    Raises:
        ComponentError: for anything that it raises, a call of `sys.exit` included, but for posbench's own errors.
    """
    before = b""
    if _board is not None:
        before, _board.value = _board.value, component.title.encode()[: ROOM - 1]
    try:
        yield
    except PosbenchError:
        raise
    except (Exception, SystemExit) as error:
        raise ComponentError(f"{component.title}: {type(error).__name__}: {one_line(error)}") from error
    finally:
        if _board is not None:
            _board.value = before


@contextmanager
def settled(seed: str = "") -> Iterator[None]:
    """A context that begins with random states of its own, and ends with everything as it was before.

    These are the states of Python, NumPy and torch, whether torch follows gradients, and its default dtype. What is not
    imported yet has no state to keep.

    Args:
        seed: a text; the same one begins with the same states.
    """
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4], "big")
    torch, numpy = (sys.modules.get(name) for name in ("torch", "numpy"))
    with ExitStack() as after:
        after.callback(random.setstate, random.getstate())
        random.seed(number)
        if numpy is not None:
            after.callback(numpy.random.set_state, numpy.random.get_state())
            numpy.random.seed(number)
        if torch is not None:
            _settle_torch(torch, number, after)
        yield


def _settle_torch(torch: Any, number: int, after: ExitStack) -> None:
    after.callback(torch.set_default_dtype, torch.get_default_dtype())
    after.callback(torch.set_grad_enabled, torch.is_grad_enabled())
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    after.enter_context(torch.random.fork_rng(devices=devices))
    torch.manual_seed(number)


@contextmanager
def visit(component: Component, seed: str = "") -> Iterator[None]:
    """A context that is both `told` and `settled`."""
    with settled(seed), told(component):
        yield
