"""Disks that are full or read-only: one line says so, and complete files stay complete."""

from __future__ import annotations

import resource
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from posbench.core import offload
from posbench.core.errors import UsageError
from posbench.store.locks import JobLocks
from tests.command_line import SMALL
from tests.forked_cli import ForkServer, fork_server

RUN = ("run", "--backbones", "tiny", "--paddings", "zero", "--weights", "random", *SMALL, "--quiet")
MORE = (*RUN, "--paddings", "zero,circular", "--targets", "H,V,G,HS,VS")


@pytest.fixture(scope="module")
def started() -> Iterator[ForkServer]:
    with fork_server() as server:
        yield server


@pytest.fixture
def site(tiny: str, tmp_path: Path) -> Path:
    return tmp_path / "site"


@pytest.fixture
def filled(started: ForkServer, site: Path, tmp_path: Path) -> Path:
    """Return a folder with a store and two older tables."""
    folder = tmp_path / "work"
    folder.mkdir()
    code, _, err = started.run(folder, *RUN, site=site)
    assert code == 0, err
    for name in ("table.csv", "table.md"):
        (folder / name).write_text("whole\n")
    return folder


@contextmanager
def limited_file_size(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def content(folder: Path) -> dict[str, bytes]:
    """Return all files by name, but for the output of commands."""
    files = (path for path in folder.iterdir() if path.is_file() and path.suffix not in (".out", ".err"))
    return {path.name: path.read_bytes() for path in files}


def assert_one_line(result: tuple[int, str, str], *pieces: str) -> None:
    """Assert exit code 2 and one line on standard error that holds all pieces."""
    code, out, err = result
    assert (code, out) == (2, ""), err
    assert err.startswith("posbench: "), err
    assert err.count("\n") == 1, err
    for piece in pieces:
        assert piece in err, err


def test_a_store_that_has_no_room_for_more(started: ForkServer, site: Path, filled: Path) -> None:
    before = content(filled)
    result = started.run(filled, *MORE, "--csv", "-", site=site, max_file_size=len(before["posbench.db"]))
    assert_one_line(result, "store 'posbench.db' cannot be used", "check the folder, its rights and the disk")
    assert content(filled) == before
    with sqlite3.connect(filled / "posbench.db") as stored:
        assert stored.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    # With enough space, the same command goes on.
    code, out, err = started.run(filled, *MORE, "--csv", "-", site=site)
    assert code == 0, err
    assert out.count("\n") == 11


def test_a_store_that_cannot_be_made(started: ForkServer, site: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    assert_one_line(started.run(folder, *RUN, site=site, max_file_size=4096), "store 'posbench.db' cannot be used")
    # An incomplete store does not prevent the next run.
    code, _, err = started.run(folder, *RUN, site=site)
    assert code == 0, err


@pytest.mark.parametrize(("option", "name"), [("--csv", "table.csv"), ("--markdown", "table.md")])
def test_a_table_for_which_there_is_no_room(
    option: str, name: str, started: ForkServer, site: Path, filled: Path
) -> None:
    before = content(filled)
    assert_one_line(
        started.run(filled, "leaderboard", option, name, site=site, max_file_size=300),
        name,
        "check the folder and the disk",
    )
    assert content(filled) == before
    assert started.run(filled, "leaderboard", option, name, site=site)[0] == 0
    assert content(filled)[name] != b"whole\n"


def test_a_picture_for_which_there_is_no_room(started: ForkServer, site: Path, filled: Path) -> None:
    (filled / "cell.png").write_text("whole\n")
    with sqlite3.connect(filled / "posbench.db") as stored:
        [cell] = stored.execute("SELECT cell_id FROM cells LIMIT 1").fetchone()
    before = content(filled)
    result = started.run(filled, "show", cell, "--png", "cell.png", site=site, max_file_size=1000)
    assert result[0] == 2
    assert result[2].splitlines()[-1].startswith("posbench: ")
    assert "cell.png' cannot be written" in result[2]
    assert content(filled) == before
    assert started.run(filled, "show", cell, "--png", "cell.png", site=site)[0] == 0
    assert content(filled)["cell.png"].startswith(b"\x89PNG")


def test_a_report_for_which_there_is_no_room(started: ForkServer, site: Path, filled: Path) -> None:
    (filled / "report.html").write_text("whole\n")
    before = content(filled)
    assert_one_line(
        started.run(filled, "report", site=site, max_file_size=20_000), "report.html", "check the folder and the disk"
    )
    assert content(filled) == before
    assert started.run(filled, "report", site=site)[0] == 0
    assert content(filled)["report.html"].startswith(b"<!doctype html>")


def test_a_published_folder_for_which_there_is_no_room(started: ForkServer, site: Path, filled: Path) -> None:
    published = filled / "published"
    code, _, err = started.run(filled, "publish", "published", site=site)
    assert code == 0, err
    before = content(published)
    assert started.run(filled, *MORE, site=site)[0] == 0
    assert_one_line(started.run(filled, "publish", "published", site=site, max_file_size=600), "cannot be written")
    assert before.items() <= content(published).items()
    assert not [name for name in content(published) if name.startswith(".")]
    assert started.run(filled, "publish", "published", site=site)[0] == 0


def test_a_merged_store_for_which_there_is_no_room(started: ForkServer, site: Path, filled: Path) -> None:
    before = content(filled)
    result = started.run(filled, "merge", "posbench.db", "--output", "all.db", site=site, max_file_size=8192)
    assert_one_line(result, "cannot be used", "check the folder, its rights and the disk")
    assert content(filled) == before


def test_a_plugin_for_which_there_is_no_room(started: ForkServer, site: Path, tmp_path: Path) -> None:
    command = ("new-plugin", "padding", "my-padding")
    assert_one_line(started.run(tmp_path, *command, site=site, max_file_size=100), "my-padding' cannot be made")
    assert not (tmp_path / "my-padding").exists()
    # A folder that exists is left as it is.
    (tmp_path / "my-padding").mkdir()
    (tmp_path / "my-padding" / "README.md").write_text("mine")
    assert_one_line(started.run(tmp_path, *command, site=site), "my-padding' exists")
    assert content(tmp_path / "my-padding") == {"README.md": b"mine"}


@pytest.mark.parametrize("arguments", [("--csv", "-"), ("--json",), ("--markdown", "-"), ()])
def test_standard_output_that_is_full(
    arguments: tuple[str, ...], started: ForkServer, site: Path, filled: Path, tmp_path: Path
) -> None:
    command = started.start(filled, "leaderboard", *arguments, site=site, out=Path("/dev/full"))
    assert command.wait() == 2
    assert command.err == "posbench: standard output cannot be read or written (No space left on device)\n"


def test_the_word_of_what_is_in_hand_needs_room(tmp_path: Path) -> None:
    with JobLocks(tmp_path / "s.db") as locks:
        with (
            limited_file_size(10),
            pytest.raises(UsageError, match=r"s\.db-claims' cannot be written \(.*\): make room"),
        ):
            locks.acquire("ab" * 32)
        assert locks.acquire("cd" * 32)
        assert locks.unfinished() == {"cd" * 32}


def test_features_for_which_there_is_no_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(offload, "IN_MEMORY", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with limited_file_size(1000), pytest.raises(UsageError, match=r"has no room for .* GB of features .*set TMPDIR"):
        offload.empty((100, 100), torch.float32, torch.device("cpu"))
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match=r"nowhere' has no room for .*set TMPDIR"):
        offload.empty((100, 100), torch.float32, torch.device("cpu"))


@pytest.fixture
def read_only(filled: Path) -> Iterator[Path]:
    """Return the same folder, read-only."""
    (filled / "old.db").write_bytes((Path(__file__).parents[1] / "stores" / "schema-2.db").read_bytes())
    filled.chmod(0o555)
    yield filled
    filled.chmod(0o755)


def test_nothing_is_begun_that_could_not_be_stored(
    started: ForkServer, site: Path, read_only: Path, tmp_path: Path
) -> None:
    before = content(read_only)
    output = tmp_path / "output"
    output.mkdir()
    result = started.run(read_only, *MORE, site=site, drop_root=True, output_folder=output)
    assert_one_line(result, "posbench.db-claims', which tells other runs what this one has in hand, cannot be written")
    assert_one_line(
        started.run(read_only, *RUN, "--store", "new.db", site=site, drop_root=True, output_folder=output),
        "cannot be used",
    )
    for option in ("--csv", "--markdown"):
        result = started.run(
            read_only, "leaderboard", option, "new.txt", site=site, drop_root=True, output_folder=output
        )
        assert_one_line(result, f"{option} 'new.txt': nothing can be written to folder")
    for option, name in (("--csv", "table.csv"), ("--markdown", "table.md")):
        result = started.run(read_only, "leaderboard", option, name, site=site, drop_root=True, output_folder=output)
        assert_one_line(result, name, "Permission denied")
    with sqlite3.connect(read_only / "posbench.db") as stored:
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
        assert_one_line(started.run(read_only, *command.split(), site=site, drop_root=True, output_folder=output), name)
    assert content(read_only) == before
    # Existing stores, also of an older schema, can still be read, and a run without anything to compute shows them.
    for command in (
        "leaderboard",
        "measures",
        "report --out {output}/r.html",
        "publish {output}/out",
        "merge old.db -o {output}/a.db",
    ):
        arguments = command.format(output=output).split() + ([] if "merge" in command else ["--store", "old.db"])
        code, _, err = started.run(read_only, *arguments, site=site, drop_root=True, output_folder=output)
        assert code == 0, err
    code, _, err = started.run(
        read_only, *RUN, "--dry-run", "--store", "old.db", site=site, drop_root=True, output_folder=output
    )
    assert code == 0, err
    for arguments in (("leaderboard",), (*RUN, "--dry-run"), RUN):
        code, out, err = started.run(read_only, *arguments, site=site, drop_root=True, output_folder=output)
        assert code == 0, err
        assert out
    assert content(read_only) == before
