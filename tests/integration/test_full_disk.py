"""Where nothing can be written, one line says so, and what was whole before still is."""

from __future__ import annotations

import resource
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from posbench.core import offload as spill
from posbench.core.errors import UsageError
from posbench.store.locks import JobLocks
from tests.cli.small_runs import SMALL
from tests.forked_cli import Forks, forks

RUN = ("run", "--backbones", "tiny", "--paddings", "zero", "--weights", "random", *SMALL, "--quiet")
MORE = (*RUN, "--paddings", "zero,circular", "--targets", "H,V,G,HS,VS")


@pytest.fixture(scope="module")
def started() -> Iterator[Forks]:
    with forks() as made:
        yield made


@pytest.fixture
def site(tiny: str, tmp_path: Path) -> Path:
    return tmp_path / "site"


@pytest.fixture
def filled(started: Forks, site: Path, tmp_path: Path) -> Path:
    """A folder with a store, in which a table, a page and a report are whole."""
    folder = tmp_path / "work"
    folder.mkdir()
    code, _, err = started.run(folder, *RUN, site=site)
    assert code == 0, err
    for name in ("table.csv", "table.md"):
        (folder / name).write_text("whole\n")
    return folder


@contextmanager
def full(room: int) -> Iterator[None]:
    """No file of this process can grow beyond this."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def content(folder: Path) -> dict[str, bytes]:
    """Every file but what commands have said."""
    files = (path for path in folder.iterdir() if path.is_file() and path.suffix not in (".out", ".err"))
    return {path.name: path.read_bytes() for path in files}


def one_line(answer: tuple[int, str, str], *pieces: str) -> None:
    code, out, err = answer
    assert (code, out) == (2, ""), err
    assert err.startswith("posbench: "), err
    assert err.count("\n") == 1, err
    for piece in pieces:
        assert piece in err, err


def test_a_store_that_has_no_room_for_more(started: Forks, site: Path, filled: Path) -> None:
    before = content(filled)
    answer = started.run(filled, *MORE, "--csv", "-", site=site, room=len(before["posbench.db"]))
    one_line(answer, "store 'posbench.db' cannot be used", "check the folder, its rights and the disk")
    assert content(filled) == before
    with sqlite3.connect(filled / "posbench.db") as stored:
        assert stored.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    # With room, the same command goes on.
    code, out, err = started.run(filled, *MORE, "--csv", "-", site=site)
    assert code == 0, err
    assert out.count("\n") == 11


def test_a_store_that_cannot_be_made(started: Forks, site: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    one_line(started.run(folder, *RUN, site=site, room=4096), "store 'posbench.db' cannot be used")
    # Nor is what it leaves in anyone's way.
    code, _, err = started.run(folder, *RUN, site=site)
    assert code == 0, err


@pytest.mark.parametrize(("option", "name"), [("--csv", "table.csv"), ("--markdown", "table.md")])
def test_a_table_for_which_there_is_no_room(option: str, name: str, started: Forks, site: Path, filled: Path) -> None:
    before = content(filled)
    one_line(
        started.run(filled, "leaderboard", option, name, site=site, room=300), name, "check the folder and the disk"
    )
    assert content(filled) == before
    assert started.run(filled, "leaderboard", option, name, site=site)[0] == 0
    assert content(filled)[name] != b"whole\n"


def test_a_picture_for_which_there_is_no_room(started: Forks, site: Path, filled: Path) -> None:
    (filled / "cell.png").write_text("whole\n")
    with sqlite3.connect(filled / "posbench.db") as stored:
        [cell] = stored.execute("SELECT cell_id FROM cells LIMIT 1").fetchone()
    before = content(filled)
    answer = started.run(filled, "show", cell, "--png", "cell.png", site=site, room=1000)
    assert answer[0] == 2
    assert answer[2].splitlines()[-1].startswith("posbench: ")
    assert "cell.png' cannot be written" in answer[2]
    assert content(filled) == before
    assert started.run(filled, "show", cell, "--png", "cell.png", site=site)[0] == 0
    assert content(filled)["cell.png"].startswith(b"\x89PNG")


def test_a_report_for_which_there_is_no_room(started: Forks, site: Path, filled: Path) -> None:
    (filled / "report.html").write_text("whole\n")
    before = content(filled)
    one_line(started.run(filled, "report", site=site, room=20_000), "report.html", "check the folder and the disk")
    assert content(filled) == before
    assert started.run(filled, "report", site=site)[0] == 0
    assert content(filled)["report.html"].startswith(b"<!doctype html>")


def test_a_published_folder_for_which_there_is_no_room(started: Forks, site: Path, filled: Path) -> None:
    published = filled / "published"
    code, _, err = started.run(filled, "publish", "published", site=site)
    assert code == 0, err
    before = content(published)
    assert started.run(filled, *MORE, site=site)[0] == 0
    one_line(started.run(filled, "publish", "published", site=site, room=600), "cannot be written")
    assert before.items() <= content(published).items()
    assert not [name for name in content(published) if name.startswith(".")]
    assert started.run(filled, "publish", "published", site=site)[0] == 0


def test_a_merged_store_for_which_there_is_no_room(started: Forks, site: Path, filled: Path) -> None:
    before = content(filled)
    answer = started.run(filled, "merge", "posbench.db", "--output", "all.db", site=site, room=8192)
    one_line(answer, "cannot be used", "check the folder, its rights and the disk")
    assert content(filled) == before


def test_a_plugin_for_which_there_is_no_room(started: Forks, site: Path, tmp_path: Path) -> None:
    command = ("new-plugin", "padding", "my-padding")
    one_line(started.run(tmp_path, *command, site=site, room=100), "my-padding' cannot be made")
    assert not (tmp_path / "my-padding").exists()
    # A folder that is there is somebody's.
    (tmp_path / "my-padding").mkdir()
    (tmp_path / "my-padding" / "README.md").write_text("mine")
    one_line(started.run(tmp_path, *command, site=site), "my-padding' exists")
    assert content(tmp_path / "my-padding") == {"README.md": b"mine"}


@pytest.mark.parametrize("arguments", [("--csv", "-"), ("--json",), ("--markdown", "-"), ()])
def test_standard_output_that_is_full(
    arguments: tuple[str, ...], started: Forks, site: Path, filled: Path, tmp_path: Path
) -> None:
    command = started.start(filled, "leaderboard", *arguments, site=site, out=Path("/dev/full"))
    assert command.wait() == 2
    assert command.err == "posbench: standard output cannot be read or written (No space left on device)\n"


def test_the_word_of_what_is_in_hand_needs_room(tmp_path: Path) -> None:
    with JobLocks(tmp_path / "s.db") as claims:
        with full(10), pytest.raises(UsageError, match=r"s\.db-claims' cannot be written \(.*\): make room"):
            claims.take("ab" * 32)
        assert claims.take("cd" * 32)
        assert claims.unfinished() == {"cd" * 32}


def test_features_for_which_there_is_no_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(spill, "IN_MEMORY", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with full(1000), pytest.raises(UsageError, match=r"has no room for .* GB of features .*set TMPDIR"):
        spill.empty((100, 100), torch.float32, torch.device("cpu"))
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match=r"nowhere' has no room for .*set TMPDIR"):
        spill.empty((100, 100), torch.float32, torch.device("cpu"))


@pytest.fixture
def closed(filled: Path) -> Iterator[Path]:
    """The same folder, to which nothing can be written."""
    (filled / "old.db").write_bytes((Path(__file__).parents[1] / "stores" / "schema-2.db").read_bytes())
    filled.chmod(0o555)
    yield filled
    filled.chmod(0o755)


def test_nothing_is_begun_that_could_not_be_stored(started: Forks, site: Path, closed: Path, tmp_path: Path) -> None:
    before = content(closed)
    said = tmp_path / "said"
    said.mkdir()
    answer = started.run(closed, *MORE, site=site, bound=True, said=said)
    one_line(answer, "posbench.db-claims', which tells other runs what this one has in hand, cannot be written")
    one_line(started.run(closed, *RUN, "--store", "new.db", site=site, bound=True, said=said), "cannot be used")
    for option in ("--csv", "--markdown"):
        answer = started.run(closed, "leaderboard", option, "new.txt", site=site, bound=True, said=said)
        one_line(answer, f"{option} 'new.txt': nothing can be written to folder")
    for option, name in (("--csv", "table.csv"), ("--markdown", "table.md")):
        answer = started.run(closed, "leaderboard", option, name, site=site, bound=True, said=said)
        one_line(answer, name, "Permission denied")
    with sqlite3.connect(closed / "posbench.db") as stored:
        [cell] = stored.execute("SELECT cell_id FROM cells LIMIT 1").fetchone()
    for command, name in (
        ("merge posbench.db -o all.db", "all.db"),
        ("report", "report.html"),
        ("report --out page.html", "nothing can be written to folder"),
        ("publish out", "out"),
        ("publish .", "provenance-"),
        ("new-plugin padding my-padding", "my-padding"),
        (f"show {cell} --png map.png", "map.png"),
    ):
        one_line(started.run(closed, *command.split(), site=site, bound=True, said=said), name)
    assert content(closed) == before
    # What is there can still be read, of an older schema as well, and shown by a run that has nothing to compute.
    for command in (
        "leaderboard",
        "measures",
        "report --out {said}/r.html",
        "publish {said}/out",
        "merge old.db -o {said}/a.db",
    ):
        arguments = command.format(said=said).split() + ([] if "merge" in command else ["--store", "old.db"])
        code, _, err = started.run(closed, *arguments, site=site, bound=True, said=said)
        assert code == 0, err
    code, _, err = started.run(closed, *RUN, "--dry-run", "--store", "old.db", site=site, bound=True, said=said)
    assert code == 0, err
    for arguments in (("leaderboard",), (*RUN, "--dry-run"), RUN):
        code, out, err = started.run(closed, *arguments, site=site, bound=True, said=said)
        assert code == 0, err
        assert out
    assert content(closed) == before
