"""Draws and checks target patterns."""

from __future__ import annotations

import torch

from posbench.core.errors import ComponentError
from posbench.plugin.components import Target
from posbench.plugin.sandbox import sandboxed

#: The side at which targets are drawn, that of the paper's pictures; maps of other sizes are resized from it.
DRAWN_AT = 256


def pattern(target: Target) -> torch.Tensor:
    """Draw a target, float32 [256, 256]. Raises ComponentError if it raises, or draws no finite array of this shape."""
    with sandboxed(target):
        drawn = torch.as_tensor(target.draw(DRAWN_AT))
        real = drawn.dtype != torch.bool and not drawn.is_complex()
        valid = drawn.shape == (DRAWN_AT, DRAWN_AT) and real and bool(drawn.isfinite().all())
        drawn = drawn.detach().cpu().float()
    if not valid:
        raise ComponentError(f"{target.title} must draw a finite array of shape {(DRAWN_AT, DRAWN_AT)}")
    return drawn
