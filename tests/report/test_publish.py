"""Tests of published folders: their contents, their provenance, and reading them."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from posbench.bench.records import Measurement, Outcome, Score
from posbench.core.errors import UsageError
from posbench.report.publish import contents
from posbench.report.rows import rows
from posbench.store import bundle
from posbench.store.store import Store
from tests.conftest import Ran
from tests.factories import metric, padding, plan, target
from tests.rows import CONTROLS

SPC = metric("spc")
MEASUREMENT = Measurement("modes", "1", value=2.5, by_photograph={"a@1": 2.5}, picture=b"\0" * 16, columns=2)


def outcome(cell: Any) -> Outcome:
    value = 0.1 + len(cell.job.padding.name) / 30
    scores = [Score("spc", "1", value, value - 0.1, value + 0.1, {"a@1": value, "b@2": value})]
    return Outcome(cell.identity(), "ok", "=SUM(A1)", 2, 0.0, 1.25, b"\0" * 16, scores, 12.5)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "one.db"
    made = plan(targets=[target("H"), target("V")], paddings=[padding("zero"), padding("circular")])
    with Store(path) as opened:
        for job, cells in made.jobs():
            outcomes = [outcome(cell) for cell in cells]
            opened.save(job, cells, outcomes, {"device": "cpu", "seconds": {"images": 1.0}}, [MEASUREMENT])
    return path


@pytest.fixture
def folder(store: Path, tmp_path: Path) -> Path:
    bundle.write(tmp_path / "out", contents(store, [SPC], CONTROLS))
    return tmp_path / "out"


def manifest(folder: Path) -> Path:
    [path] = folder.glob("provenance-*.json")
    return path


def publish_edited(folder: Path, name: str, content: bytes) -> None:
    """Edit a file and write a matching provenance for it."""
    old = manifest(folder)
    said = json.loads(old.read_text())
    (folder / name).write_bytes(content)
    said["files"][name] = hashlib.sha256(content).hexdigest()
    new = json.dumps(said).encode()
    old.unlink()
    (folder / f"provenance-{hashlib.sha256(new).hexdigest()}.json").write_bytes(new)


def test_the_folder_holds_tables_cells_and_what_vouches_for_them(folder: Path) -> None:
    names = sorted(path.name for path in folder.iterdir())
    provenance = manifest(folder)
    assert names == ["cells.json", "leaderboard.csv", "leaderboard.md", "measures.csv", provenance.name]
    assert provenance.name == f"provenance-{hashlib.sha256(provenance.read_bytes()).hexdigest()}.json"
    said = json.loads(provenance.read_text())
    assert said["files"] == {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names if name != provenance.name
    }
    assert said["cells"] == 4
    assert said["made_with"] == [{"device": "cpu"}]
    assert said["weights"] == {"imagenet:net@1": "cd" * 32}
    assert "created" not in provenance.read_text()
    assert "| H | circular |" in (folder / "leaderboard.md").read_text()
    assert "'=SUM(A1)" in (folder / "leaderboard.csv").read_text()


def test_what_is_read_is_what_was_stored_but_for_pictures(store: Path, folder: Path, tmp_path: Path) -> None:
    for path in (folder, folder / "leaderboard.csv"):
        published = bundle.read(path)
        with Store(tmp_path / f"{path.name}.db") as restored:
            restored.restore(published.runs, published.records, published.measurements)
        with Store(store) as old, Store(tmp_path / f"{path.name}.db") as new:
            assert rows(old.records(), CONTROLS) == rows(published.records, CONTROLS) == rows(new.records(), CONTROLS)
            assert old.runs() == new.runs()
            assert [r.measurement.value for r in new.measurements()] == [2.5, 2.5]
            assert [r.measurement.picture for r in new.measurements()] == [None, None]
            assert [r.job_id for r in new.measurements()] == [r.job_id for r in old.measurements()]
            new.check()


def test_published_twice_is_the_same_and_new_results_take_the_place_of_old(store: Path, folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "README.md").write_text("mine")
    bundle.write(folder, contents(store, [SPC], CONTROLS))
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert after == before | {"README.md": b"mine"}
    bundle.write(folder, contents(store, [], CONTROLS) | {"report.html": b"<p>"})
    assert b"circular" not in (folder / "leaderboard.md").read_bytes().split(b"networks as a whole")[0]
    bundle.write(folder, contents(store, [], CONTROLS))
    # What is no longer published is gone, and only one provenance is left.
    assert not (folder / "report.html").exists()
    assert manifest(folder).name not in before


def test_what_publish_did_not_write_is_never_overwritten(store: Path, folder: Path, tmp_path: Path) -> None:
    files = contents(store, [SPC], CONTROLS)
    (folder / "leaderboard.md").write_text("my own words")
    with pytest.raises(UsageError, match=r"leaderboard.md' was not written by publish"):
        bundle.write(folder, files)
    assert (folder / "leaderboard.md").read_text() == "my own words"
    other = tmp_path / "other"
    other.mkdir()
    (other / "cells.json").write_text("{}")
    with pytest.raises(UsageError, match="was not written by publish"):
        bundle.write(other, files)
    assert [path.name for path in other.iterdir()] == ["cells.json"]
    with pytest.raises(UsageError, match="is a file: name a folder"):
        bundle.write(store, files)


def test_results_of_another_store_are_replaced_by_force_alone(
    posbench: Callable[..., Ran], store: Path, tmp_path: Path
) -> None:
    for name, paddings in (("more", ["zero", "circular", "reflect"]), ("other", ["zero"])):
        made = plan(targets=[target("H"), target("V")], paddings=[padding(each) for each in paddings])
        with Store(tmp_path / f"{name}.db") as opened:
            for job, cells in made.jobs():
                opened.save(job, cells, [outcome(cell) for cell in cells], {}, [MEASUREMENT])
    publish = ("publish", "shared", "--no-report", "--store")
    assert posbench(*publish, str(store)).code == 0
    # What has grown since holds all that was published.
    assert posbench(*publish, str(tmp_path / "more.db")).code == 0
    before = {path.name: path.read_bytes() for path in Path("shared").iterdir()}
    refused = posbench(*publish, str(tmp_path / "other.db"))
    assert (refused.code, refused.out) == (2, "")
    # Two cells, and a metric of their job, of each of two paddings.
    assert refused.err == (
        "posbench: 'shared' holds 6 results that this store does not: "
        "name another folder, or give --force to replace them\n"
    )
    assert {path.name: path.read_bytes() for path in Path("shared").iterdir()} == before
    assert posbench(*publish, str(tmp_path / "other.db"), "--force").code == 0
    assert len(bundle.read(Path("shared")).records) == 2


def test_cells_that_cannot_be_read_are_replaced_by_force_alone(
    posbench: Callable[..., Ran], store: Path, folder: Path
) -> None:
    publish_edited(folder, "cells.json", b'{"format": 2}')
    publish = ("publish", str(folder), "--no-report", "--store", str(store))
    refused = posbench(*publish)
    assert (refused.code, refused.out) == (2, "")
    assert refused.err == (
        f"posbench: {str(folder / 'cells.json')!r} cannot be read (ValueError('format 2')): "
        "name another folder, or give --force to replace what is there\n"
    )
    assert posbench(*publish, "--force").code == 0
    assert len(bundle.read(folder).records) == 4


def lacks(cell: Any, what: str) -> Outcome:
    """An outcome that lacks something that `outcome` has."""
    if what == "score":
        return replace(outcome(cell), scores=[replace(outcome(cell).scores[0], metric="mae")])
    return Outcome(cell.identity(), what, "out of luck")


FAILED = replace(MEASUREMENT, status="failed", value=None)


@pytest.mark.parametrize(
    ("cells", "measurement", "lost"),
    [
        ("failed", MEASUREMENT, 4),
        ("score", MEASUREMENT, 4),
        ("ok", FAILED, 2),
    ],
)
def test_what_failed_or_was_scored_otherwise_replaces_no_result(
    cells: str, measurement: Measurement, lost: int, posbench: Callable[..., Ran], store: Path, tmp_path: Path
) -> None:
    made = plan(targets=[target("H"), target("V")], paddings=[padding("zero"), padding("circular")])
    with Store(tmp_path / "other.db") as opened:
        for job, of in made.jobs():
            opened.save(
                job, of, [outcome(cell) if cells == "ok" else lacks(cell, cells) for cell in of], {}, [measurement]
            )
    publish = ("publish", "shared", "--no-report", "--store")
    assert posbench(*publish, str(store)).code == 0
    refused = posbench(*publish, str(tmp_path / "other.db"))
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.startswith(f"posbench: 'shared' holds {lost} results that this store does not: ")
    assert posbench(*publish, str(tmp_path / "other.db"), "--force").code == 0
    # A failure is nothing to lose.
    assert (posbench(*publish, str(store)).code == 0) is (cells == "failed" or measurement is not MEASUREMENT)


def test_a_folder_published_half_way_can_be_published_again(store: Path, folder: Path) -> None:
    old = {path.name: path.read_bytes() for path in folder.iterdir()}
    bundle.write(folder, contents(store, [], CONTROLS))
    # As if the process had ended after the new provenance: the old one and the old files are still there.
    for name, content in old.items():
        (folder / name).write_bytes(content)
    (folder / "leaderboard.csv").write_bytes(b"")
    with pytest.raises(UsageError, match="is not what was published"):
        bundle.read(folder)
    (folder / "leaderboard.csv").write_bytes(old["leaderboard.csv"])
    assert len(bundle.read(folder).records) == 4
    bundle.write(folder, contents(store, [SPC], CONTROLS))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == old


@pytest.mark.parametrize("name", ["leaderboard.csv", "cells.json", "leaderboard.md", "measures.csv"])
def test_an_edited_file_is_named(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content.replace(b"0", b"1", 1))
    with pytest.raises(UsageError, match=f"{name}' is not what was published"):
        bundle.read(folder)
    (folder / name).unlink()
    with pytest.raises(UsageError, match=f"{name}' is not what was published"):
        bundle.read(folder)


def test_an_edited_provenance_is_named(folder: Path) -> None:
    path = manifest(folder)
    path.write_text(path.read_text().replace('"cells": 4', '"cells": 5'))
    with pytest.raises(UsageError, match="it is not what its name says"):
        bundle.read(folder)


@pytest.mark.parametrize("name", ["../one.db", "..", ".", "/etc/hostname", ""])
def test_a_provenance_that_names_files_elsewhere_is_refused(folder: Path, name: str) -> None:
    said = {"format": 1, "files": {name: "0" * 64}}
    manifest(folder).unlink()
    text = json.dumps(said).encode()
    (folder / f"provenance-{hashlib.sha256(text).hexdigest()}.json").write_bytes(text)
    with pytest.raises(UsageError, match="not of a form"):
        bundle.read(folder)


def test_an_empty_store_and_a_plain_folder_say_so(tmp_path: Path) -> None:
    with Store(tmp_path / "empty.db"):
        pass
    with pytest.raises(UsageError, match="holds no cells to publish"):
        contents(tmp_path / "empty.db", [SPC], CONTROLS)
    with pytest.raises(UsageError, match="is no published folder"):
        bundle.read(tmp_path)


def altered(cells: dict[str, Any], data: st.DataObject) -> Any:
    """One value somewhere in it replaced by another."""
    at: Any = cells
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not keys:
            return cells
        key = data.draw(st.sampled_from(keys))
        if isinstance(at[key], dict | list) and data.draw(st.booleans()):
            at = at[key]
            continue
        odd = st.sampled_from([None, True, -1, 2**70, 1e300, "x", "\ud800", [], {}, [1], {"a": 1}])
        if isinstance(at, dict) and data.draw(st.booleans()):
            del at[key]
        else:
            at[key] = data.draw(odd)
        return cells


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_whatever_cells_say_they_are_read_or_refused_in_one_line(folder: Path, data: st.DataObject) -> None:
    path = folder / "cells.json"
    original = path.read_bytes()
    text = json.dumps(altered(json.loads(original), data)).encode()
    publish_edited(folder, "cells.json", text)
    said = ""
    try:
        published = bundle.read(folder)
        rows(published.records, CONTROLS)
        with Store(folder.parent / "check.db") as opened:
            opened.restore(published.runs, published.records, published.measurements)
            opened.check()
    except UsageError as error:
        said = str(error)
    finally:
        (folder.parent / "check.db").unlink(missing_ok=True)
        publish_edited(folder, "cells.json", original)
    assert "\n" not in said


@pytest.mark.parametrize("number", [2**70, -(2**70), 2**2000, True, "1"])
def test_a_number_that_cannot_be_stored_is_refused(folder: Path, number: object) -> None:
    known = json.loads((folder / "cells.json").read_bytes())
    known["cells"][0]["degenerate"] = number
    publish_edited(folder, "cells.json", json.dumps(known).encode())
    with pytest.raises(UsageError, match="does not hold cells"):
        bundle.read(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seconds": -1}, "seconds: -1 is negative"),
        ({"status": "fine"}, "status: 'fine', not one of ok, skipped, failed"),
        ({"created": 7}, "created: 7 is no text"),
        ({"run": "1"}, "run_id: '1' is no whole number"),
        ({"run": 99}, "no run 99"),
        ({"identity": []}, r"identity: \[\] is no object"),
        ({"scores": {}}, "cells: {} is no list"),
        ({"scores": [{"metric": "spc"}]}, "version: missing"),
    ],
)
def test_a_field_that_cannot_be_is_named(folder: Path, change: dict[str, Any], message: str) -> None:
    content = json.loads((folder / "cells.json").read_bytes())
    content["cells"][0] |= change
    publish_edited(folder, "cells.json", json.dumps(content).encode())
    with pytest.raises(UsageError, match=rf"cells.json' does not hold cells \(ValueError\(.{message}.\)\)") as error:
        bundle.read(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "NaN", '{"format": 2}', '{"format": 1, "runs": NaN}', "[" * 100_000])
def test_what_is_no_list_of_cells_is_one_line(folder: Path, text: str) -> None:
    publish_edited(folder, "cells.json", text.encode())
    with pytest.raises(UsageError, match="does not hold cells"):
        bundle.read(folder)


def test_the_command_line_publishes_merges_and_compares(
    posbench: Callable[..., Ran], store: Path, tmp_path: Path
) -> None:
    ran = posbench("publish", "shared", "--store", str(store))
    assert ran.code == 0, ran.err
    assert "leaderboard.csv, leaderboard.md, measures.csv, report.html" in ran.out
    assert "hides position best" in Path("shared/report.html").read_text(encoding="utf-8")
    joined = posbench("merge", "shared", str(store), "-o", "all.db")
    assert joined.out.split()[:5] == ["2", "stores", "joined", "in", "'all.db':"]
    assert "4 cells; 4 were found more than once, alike" in " ".join(joined.out.split())
    assert posbench("merge", "shared/leaderboard.csv", "-o", "one.db").code == 0
    for side in ("shared", "shared/leaderboard.csv"):
        compared = json.loads(posbench("compare", side, str(store), "--json").out)
        assert [line["difference"]["n"] for line in compared["lines"]] == [2] * 4  # paired by photograph
        assert [line["difference"]["value"] for line in compared["lines"]] == [0.0] * 4
    alone = Path("alone.csv")
    alone.write_bytes((Path("shared") / "leaderboard.csv").read_bytes())
    assert posbench("compare", "alone.csv", str(store)).code == 0
    refused = posbench("merge", "alone.csv", "-o", "two.db")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "give the store, or the published folder" in refused.err
    table = Path("shared") / "leaderboard.csv"
    table.write_text(table.read_text().replace("ok", "OK"))
    for command in ("compare shared all.db", f"compare {table} all.db", "merge shared -o 3.db"):
        edited = posbench(*command.split())
        assert (edited.code, edited.err.count("\n"), edited.out) == (2, 1, ""), edited.err
        assert "is not what was published" in edited.err
    again = posbench("publish", "shared", "--store", str(store))
    assert again.code == 2
    assert "has been edited since" in again.err
    assert not Path("3.db").exists()


def test_a_report_is_published_unless_it_is_unwanted_or_cannot_be_made(
    posbench: Callable[..., Ran], store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = ("publish", "shared", "--store", str(store))
    assert posbench(*publish).code == 0
    assert Path("shared/report.html").exists()
    assert posbench(*publish, "--no-report").code == 0
    assert not Path("shared/report.html").exists()
    monkeypatch.setitem(sys.modules, "jinja2", None)
    ran = posbench(*publish)
    assert ran.code == 0
    assert (
        ran.err
        == "posbench: published without report.html: a report needs jinja2: pip install 'position-bench[report]'\n"
    )
    assert not Path("shared/report.html").exists()
    assert bundle.read(Path("shared")).records
