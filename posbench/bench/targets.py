"""Draws target patterns and checks what was drawn."""

from __future__ import annotations

import torch

from posbench.core.errors import ComponentError
from posbench.plugin.components import Target
from posbench.plugin.sandbox import sandboxed

#: Targets are drawn at this side, as the paper's pictures are, and resized from there.
DRAWN_AT = 256


def pattern(target: Target) -> torch.Tensor:
    """A target as it is drawn, float32 [256, 256].

    Raises:
        ComponentError: if the target raises, or draws something else than a finite [256, 256] array.
    """
    with sandboxed(target):
        drawn = torch.as_tensor(target.draw(DRAWN_AT))
        real = drawn.dtype != torch.bool and not drawn.is_complex()
        fits = drawn.shape == (DRAWN_AT, DRAWN_AT) and real and bool(drawn.isfinite().all())
        drawn = drawn.detach().cpu().float()
    if not fits:
        raise ComponentError(f"{target.title} must draw a finite array of shape {(DRAWN_AT, DRAWN_AT)}")
    return drawn
