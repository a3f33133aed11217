"""Content errors worked out by hand, and which targets, photographs and versions they are of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from posbench.bench.records import Example
from posbench.report.content_error import content_errors
from posbench.report.galleries import Gallery
from posbench.report.rows import rows
from posbench.store.store import Store
from tests import factories as made
from tests.report.test_pictures import pixels

PATTERNS = {
    "H": [[0.0, 1.0], [0.0, 1.0]],
    "V": [[0.0, 0.0], [1.0, 1.0]],
    "G": [[0.5, 0.5], [0.5, 0.5]],
    "HS": [[9, 9], [9, 9]],
}
RED, BLUE = bytes([255, 0, 0]), bytes([0, 0, 255])


def draw(identity: Any, side: int) -> NDArray[np.float32] | None:
    found = PATTERNS.get(identity["target"]["name"])
    return None if found is None else np.array(found, np.float32)[:side, :side]


def example(photograph: str, rgb: bytes, *values: float) -> Example:
    return Example(photograph, rgb, np.array(values, "<f2").tobytes())


def errors(path: Path, drawn: dict[tuple[str, str], list[Example]]) -> list[Gallery]:
    """Of a store whose cells, by padding and target, drew these examples."""
    paddings, targets = (list(dict.fromkeys(key[i] for key in drawn)) for i in (0, 1))
    of = made.plan(paddings=[made.padding(one) for one in paddings], targets=[made.target(one) for one in targets])
    with Store(path) as store:
        for job, cells in of.jobs():
            kept = [drawn.get((cell.job.padding.name, cell.target.name), []) for cell in cells if cell.job.padding]
            store.save(job, cells, [made.scored(cell, examples=one) for cell, one in zip(cells, kept, strict=True)], {})
        records = store.records()
        return content_errors(records, rows(records), store.examples(), draw)


def test_by_hand(tmp_path: Path) -> None:
    [found] = errors(
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
    assert found.scale == "0 (dark) to 2.00 (bright), mean over H, G"  # half of |.5 − 4.5|
    assert [one.text for one in found.columns] == ["a", "b"]
    assert [name for name, _ in found.lines] == ["zero", "circular"]
    # zero on a: half of the one error of H; on b: half of the one error of G.
    texts = [[one and one.text for one in line] for _, line in found.lines]
    assert texts == [["mean 0.12", "mean 0.12"], ["mean 0.75", None]]
    zero, circular = (line[0] for _, line in found.lines)
    assert zero
    assert circular
    dark, bright = (0, 0, 3), (252, 254, 164)  # the ends of inferno
    assert pixels(zero.uri)[:3] == [dark] * 3
    assert pixels(circular.uri)[1] == dark
    assert pixels(circular.uri)[3] == bright


def test_without_the_papers_targets_it_is_what_all_share(tmp_path: Path) -> None:
    [found] = errors(
        tmp_path / "a.db",
        {
            ("zero", "HS"): [example("a", RED, 9, 9, 9, 9)],
            ("zero", "G"): [example("a", RED, 0, 0, 0, 0)],
            ("circular", "HS"): [example("a", RED, 8, 8, 8, 8)],
        },
    )
    assert found.scale.endswith("mean over HS")
    assert [[one and one.text for one in line] for _, line in found.lines] == [["mean 0.00"], ["mean 1.00"]]


@pytest.mark.parametrize("name", ["unknown", "V"])
def test_what_cannot_be_compared_is_left_out(name: str, tmp_path: Path) -> None:
    drawn = {("zero", name): [example("a", RED, 1, 1, 1, 1)], ("circular", "H"): [example("a", RED, 1, 1, 1, 1)]}
    [found] = errors(tmp_path / "a.db", drawn)
    assert len(found.lines) == 1


def test_one_padding_more_takes_nothing_from_the_others(tmp_path: Path) -> None:
    drawn = {(padding, name): [example("a", RED, 1, 1, 1, 1)] for padding in ("zero", "circular") for name in "HV"}
    [found] = errors(tmp_path / "a.db", drawn | {("replicate", "G"): [example("a", RED, 1, 1, 1, 1)]})
    assert [padding for padding, _ in found.lines] == ["zero", "circular"]
    assert found.scale.endswith("mean over H, V; without replicate, which has not all of these")


def test_a_smaller_map_is_held_against_a_smaller_target(tmp_path: Path) -> None:
    [found] = errors(
        tmp_path / "a.db", {("zero", "H"): [example("a", RED, 0, 1, 0, 1)], ("valid", "H"): [example("a", RED, 3)]}
    )
    assert [[one and one.text for one in line] for _, line in found.lines] == [["mean 0.00"], ["mean 3.00"]]


def test_maps_of_one_image_that_differ_in_size_have_no_mean(tmp_path: Path) -> None:
    other = example("b", BLUE, 1, 1, 1, 1)
    drawn = {("zero", "H"): [example("a", RED, 0)], ("zero", "V"): [example("a", RED, 0, 0, 0, 0), other]}
    [found] = errors(tmp_path / "a.db", drawn)
    assert (found.columns, found.lines) == ((), (("zero", ()),))
    assert found.scale == "0 (dark) to 0.00 (bright), mean over H, V"


def test_of_two_versions_the_newer_counts(tmp_path: Path) -> None:
    old, new = (made.plan(paddings=[made.padding("zero", version)], targets=[made.target("H")]) for version in "12")
    with Store(tmp_path / "a.db") as store:
        for plan, value in ((new, 1.0), (old, 0.0)):
            [(job, cells)] = plan.jobs()
            store.save(job, cells, [made.scored(cells[0], examples=[example("a", RED, value)])], {})
        records = store.records()
        table = rows(records)
        table = [row | {"created": f"2026-01-0{i}"} for i, row in zip((2, 1), table, strict=True)]
        [found] = content_errors(records, table, store.examples(), draw)
    assert [[one and one.text for one in line] for _, line in found.lines] == [["mean 1.00"]]
