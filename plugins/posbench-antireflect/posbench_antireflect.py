"""Odd reflection: an edge is continued by its point reflection, 2 · edge − mirrored (`antireflect` in PyWavelets)."""

from posbench import Inapplicable, Padding, Sides, hookimpl


def pad(x, sides: Sides):
    """Enlarge x [n, c, h, w] of any float dtype; Inapplicable where a side is to grow by its own length or more."""
    import torch.nn.functional as F

    left, right, top, bottom = sides
    padded = F.pad(x, sides)
    for lines, before, after in ((padded.mT, top, bottom), (padded, left, right)):
        size = lines.shape[-1] - before - after
        if max(before, after) >= size:
            raise Inapplicable(f"antireflect cannot add {max(before, after)} cells to {size}: at most {size - 1}")
        inner = lines[..., before : before + size]
        lines[..., :before] = 2 * inner[..., :1] - inner[..., 1 : before + 1].flip(-1)
        lines[..., before + size :] = 2 * inner[..., -1:] - inner[..., -1 - after : -1].flip(-1)
    return padded


@hookimpl
def posbench_paddings() -> list[Padding]:
    return [Padding(name="antireflect", summary="point reflection about each edge", version="1", pad=pad)]
