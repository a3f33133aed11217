"""Content errors worked out by hand, and the targets, photographs and versions that they are of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from posbench.bench.records import Example
from posbench.report.galleries import Gallery, content_errors
from posbench.report.rows import rows
from posbench.store.store import Store
from tests import factories
from tests.report.test_images import pixels
from tests.rows import CONTROLS, changed

PATTERNS = {
    "H": [[0.0, 1.0], [0.0, 1.0]],
    "V": [[0.0, 0.0], [1.0, 1.0]],
    "G": [[0.5, 0.5], [0.5, 0.5]],
    "HS": [[9, 9], [9, 9]],
}
RED, BLUE = bytes([255, 0, 0]), bytes([0, 0, 255])


def draw(identity: Any, side: int) -> NDArray[np.float32] | None:
    values = PATTERNS.get(identity["target"]["name"])
    return None if values is None else np.array(values, np.float32)[:side, :side]


def example(photograph: str, rgb: bytes, *values: float) -> Example:
    return Example(photograph, rgb, np.array(values, "<f2").tobytes())


def errors(path: Path, drawn: dict[tuple[str, str], list[Example]]) -> list[Gallery]:
    """Return the content errors of a store whose cells, by padding and target, have these examples."""
    paddings, targets = (list(dict.fromkeys(key[i] for key in drawn)) for i in (0, 1))
    plan = factories.plan(
        paddings=[factories.padding(name) for name in paddings], targets=[factories.target(name) for name in targets]
    )
    with Store(path) as store:
        for job, cells in plan.jobs():
            kept = [drawn.get((cell.job.padding.name, cell.target.name), []) for cell in cells if cell.job.padding]
            store.save(
                job,
                cells,
                [factories.scored(cell, examples=examples) for cell, examples in zip(cells, kept, strict=True)],
                {},
            )
        records = store.records()
        return content_errors(records, rows(records, CONTROLS), store.examples(), draw)


def texts(gallery: Gallery) -> list[list[str | None]]:
    """Return the texts of a gallery's pictures, by line."""
    return [[picture and picture.text for picture in line] for _, line in gallery.lines]


def test_by_hand(tmp_path: Path) -> None:
    [gallery] = errors(
        tmp_path / "a.db",
        {
            ("zero", "H"): [example("a", RED, 0, 1, 0, 0), example("b", BLUE, 0, 1, 0, 1)],
            ("zero", "G"): [example("a", RED, 0.5, 0.5, 0.5, 0.5), example("b", BLUE, 0.5, 0.5, 0.5, 1.5)],
            ("zero", "HS"): [example("a", RED, 0, 0, 0, 0)],
            ("circular", "H"): [example("a", RED, 1, 1, 1, 1)],
            ("circular", "G"): [example("a", RED, 0.5, 0.5, 0.5, 4.5)],
            ("circular", "HS"): [example("a", RED, 9, 9, 9, 9)],
        },
    )
    assert gallery.scale == "0 (dark) to 2.00 (bright), mean over H, G"  # half of |.5 − 4.5|
    assert [column.text for column in gallery.columns] == ["a", "b"]
    assert [name for name, _ in gallery.lines] == ["zero", "circular"]
    # zero on a: half of the one error of H; on b: half of the one error of G.
    assert texts(gallery) == [["mean 0.12", "mean 0.12"], ["mean 0.75", None]]
    zero, circular = (line[0] for _, line in gallery.lines)
    assert zero
    assert circular
    dark, bright = (0, 0, 3), (252, 254, 164)  # the ends of inferno
    assert pixels(zero.uri)[:3] == [dark] * 3
    assert pixels(circular.uri)[1] == dark
    assert pixels(circular.uri)[3] == bright


def test_without_the_papers_targets_it_is_what_all_share(tmp_path: Path) -> None:
    [gallery] = errors(
        tmp_path / "a.db",
        {
            ("zero", "HS"): [example("a", RED, 9, 9, 9, 9)],
            ("zero", "G"): [example("a", RED, 0, 0, 0, 0)],
            ("circular", "HS"): [example("a", RED, 8, 8, 8, 8)],
        },
    )
    assert gallery.scale.endswith("mean over HS")
    assert texts(gallery) == [
        ["mean 0.00"],
        ["mean 1.00"],
    ]


@pytest.mark.parametrize("name", ["unknown", "V"])
def test_what_cannot_be_compared_is_left_out(name: str, tmp_path: Path) -> None:
    drawn = {("zero", name): [example("a", RED, 1, 1, 1, 1)], ("circular", "H"): [example("a", RED, 1, 1, 1, 1)]}
    [gallery] = errors(tmp_path / "a.db", drawn)
    assert len(gallery.lines) == 1


def test_one_padding_more_takes_nothing_from_the_others(tmp_path: Path) -> None:
    drawn = {(padding, name): [example("a", RED, 1, 1, 1, 1)] for padding in ("zero", "circular") for name in "HV"}
    [gallery] = errors(tmp_path / "a.db", drawn | {("replicate", "G"): [example("a", RED, 1, 1, 1, 1)]})
    assert [padding for padding, _ in gallery.lines] == ["zero", "circular"]
    assert gallery.scale.endswith("mean over H, V; without replicate, which has not all of these")


def test_a_smaller_map_is_held_against_a_smaller_target(tmp_path: Path) -> None:
    [gallery] = errors(
        tmp_path / "a.db", {("zero", "H"): [example("a", RED, 0, 1, 0, 1)], ("valid", "H"): [example("a", RED, 3)]}
    )
    assert texts(gallery) == [
        ["mean 0.00"],
        ["mean 3.00"],
    ]


def test_maps_of_one_image_that_differ_in_size_have_no_mean(tmp_path: Path) -> None:
    other = example("b", BLUE, 1, 1, 1, 1)
    drawn = {("zero", "H"): [example("a", RED, 0)], ("zero", "V"): [example("a", RED, 0, 0, 0, 0), other]}
    [gallery] = errors(tmp_path / "a.db", drawn)
    assert (gallery.columns, gallery.lines) == ((), (("zero", ()),))
    assert gallery.scale == "0 (dark) to 0.00 (bright), mean over H, V"


def test_of_two_versions_the_newer_counts(tmp_path: Path) -> None:
    old, new = (
        factories.plan(paddings=[factories.padding("zero", version)], targets=[factories.target("H")])
        for version in "12"
    )
    with Store(tmp_path / "a.db") as store:
        for plan, value in ((new, 1.0), (old, 0.0)):
            [(job, cells)] = plan.jobs()
            store.save(job, cells, [factories.scored(cells[0], examples=[example("a", RED, value)])], {})
        records = store.records()
        table = rows(records, CONTROLS)
        table = [changed(row, created=f"2026-01-0{i}") for i, row in zip((2, 1), table, strict=True)]
        [gallery] = content_errors(records, table, store.examples(), draw)
    assert texts(gallery) == [["mean 1.00"]]
