"""How networks, images, settings and numbers are called wherever rows are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from posbench.report.rows import Row

#: The control that stands beside every padding: no network.
CONTROL = "none"
_SETTING = ("images", "test_images", "readout", "image_size", "precision", "score_at", "n_train", "n_test")


def family(row: Row) -> tuple[str, str]:
    """The backbone and what its weights are, the same for all seeds."""
    return row["backbone"], "untrained" if row["weights"].startswith("random:") else row["weights"]


def network_label(row: Row) -> str:
    """A network's heading: its name, and below it its weights, an untrained one marked."""
    weights = f"untrained, {row['weights']}" if row["weights"].startswith("random:") else row["weights"]
    seeded = "" if row["seed"] is None else f"\nreadout seed {row['seed']}"
    return f"{row['backbone']}\n{weights}{seeded}"


def network_name(row: Row) -> str:
    """The same in one line; the control `none` has no weights to tell of."""
    return CONTROL if row["backbone"] == CONTROL else network_label(row).replace("\n", ", ")


def images_name(row: Row) -> str:
    """What a score was trained and tested on."""
    alike = row["images"] == row["test_images"]
    return str(row["images"]) if alike else f"{row['images']}, tested on {row['test_images']}"


def setting(row: Row) -> tuple[Any, ...]:
    """What must agree, beside the taps, for two scores to stand on one board."""
    return tuple(row[key] for key in _SETTING)


def setting_parts(row: Row) -> list[str]:
    """What a score was measured with, beside its network, padding, images and target."""
    parts = [
        f"{row['n_train']} training and {row['n_test']} test crops of {row['image_size']} px",
        f"readout {row['readout']}",
        f"taps {row['taps']}",
        row["precision"],
    ]
    return parts if row["score_at"] == "grid" else [*parts, f"scored at {row['score_at']} size"]


def setting_text(row: Row) -> str:
    """The same in a line."""
    crops, *rest = setting_parts(row)
    return f"{crops}; {', '.join(rest)}"


def apart(settings: Sequence[Sequence[str]]) -> list[str]:
    """Of each of these settings, the parts that not all have."""
    common = set(settings[0]).intersection(*settings) if settings else set()
    return [", ".join(part for part in parts if part not in common) for parts in settings]


def tested(count: int, crops: int) -> str:
    """The independent test images as they are called: `15 photographs`, or `64 images` where each crop is one."""
    return f"{count} {'images' if count == crops else 'photographs'}"


def board_title(row: Row, metric: str) -> str:
    return f"{metric} on {images_name(row)}"


def cell_title(row: Row) -> str:
    """One cell in two lines: its network, padding and target, then its scores and what they were measured on."""
    spc = "" if row.get("spc") is None else f"SPC {_with_interval(row, 'spc')}; "
    what = f"{row['backbone']} ({row['weights']}), padding {row['padding']}, target {row['target']}"
    images = row["images"] if row["images"] == row["test_images"] else f"{row['images']} → {row['test_images']}"
    return f"{what}\n{spc}{images}, {row['image_size']} px, readout {row['readout']}, taps {row['taps']}"


def number_text(value: float, half: float | None, *, digits: int) -> str:
    """A score with half the width of its interval, if it has one: `0.62 ±0.11`."""
    # Adding zero turns −0 into 0.
    return f"{round(value, digits) + 0:.{digits}f}" + (f" ±{half:.{digits}f}" if half is not None else "")


def _with_interval(row: Row, metric: str) -> str:
    lo, hi = row.get(f"{metric}_lo"), row.get(f"{metric}_hi")
    return number_text(row[metric], None if lo is None or hi is None else (hi - lo) / 2, digits=2)
