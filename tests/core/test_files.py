"""Folders and files identified by their content, and files that are written completely or not at all."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posbench.core.errors import UsageError
from posbench.core.files import content_digest, content_hash, write_atomically
from posbench.data.folder import folder_images
from posbench.plugin.components import NAME


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def test_the_label_is_the_name_and_the_content(tmp_path: Path) -> None:
    images = folder_images(fill(tmp_path / "dogs", {"b.png": b"1", "a.jpg": b"2"}))
    hashes = sorted(hashlib.sha256(content).hexdigest() for content in (b"1", b"2"))
    digest = hashlib.sha256("\n".join(hashes).encode()).hexdigest()
    assert images.label == f"folder:dogs@{digest[:8]}"
    assert images.version == digest
    assert images.name == "folder:dogs"
    assert images.photographs is not None
    assert [path.name for path in images.photographs()] == ["a.jpg", "b.png"]


def test_names_order_and_depth_do_not_matter(tmp_path: Path) -> None:
    first = folder_images(fill(tmp_path / "x" / "dogs", {"a.png": b"1", "b.png": b"2"}))
    second = folder_images(
        fill(tmp_path / "y" / "dogs", {"z/b.jpg": b"1", "a.JPEG": b"2", "copy.png": b"2", "readme.txt": b"3"})
    )
    assert first.label == second.label


@pytest.mark.parametrize(
    "files",
    [
        {"a.png": b"1"},
        {"a.png": b"1", "b.png": b"3"},
        {"a.png": b"1", "b.png": b"2", "c.png": b"3"},
        {"a.png": b"12", "b.png": b""},
    ],
)
def test_other_content_is_another_label(files: dict[str, bytes], tmp_path: Path) -> None:
    first = folder_images(fill(tmp_path / "x" / "dogs", {"a.png": b"1", "b.png": b"2"}))
    assert folder_images(fill(tmp_path / "y" / "dogs", files)).label != first.label


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"before")
    before = content_hash(path)
    path.write_bytes(b"behind")
    os.utime(path, ns=(1, 1))
    assert before == hashlib.sha256(b"before").hexdigest()
    assert content_hash(path) == hashlib.sha256(b"behind").hexdigest()


@given(st.permutations(range(4)))
def test_a_digest_is_of_a_set_in_any_order(tmp_path_factory: pytest.TempPathFactory, order: list[int]) -> None:
    folder = tmp_path_factory.mktemp("set")
    fill(folder, {str(i): bytes([i]) for i in range(4)})
    assert content_digest(folder / str(i) for i in order) == content_digest(folder / str(i) for i in range(4))


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "empty", {"notes.txt": b"", "png": b""})
    (tmp_path / "empty" / "folder.png").mkdir()
    (tmp_path / "empty" / "broken.png").symlink_to("nowhere.png")
    with pytest.raises(UsageError, match="holds no image: expected files such as"):
        folder_images(tmp_path / "empty")


def test_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    fill(tmp_path / "dogs", {"a.png": b"1"})
    (tmp_path / "dogs" / "again").symlink_to(tmp_path / "dogs", target_is_directory=True)
    photographs = folder_images(tmp_path / "dogs").photographs
    assert photographs is not None
    assert len(photographs()) == 1


@pytest.mark.parametrize(
    ("name", "shown"),
    [("my dogs", "my-dogs"), ("собаки", "images"), ("=cmd|x", "cmd-x"), ("-a,b-", "a-b"), ("a:b", "a-b")],
)
def test_any_folder_name_makes_a_name_that_can_be_typed(name: str, shown: str, tmp_path: Path) -> None:
    images = folder_images(fill(tmp_path / name, {"a.png": b"1"}))
    assert images.name == f"folder:{shown}"
    assert NAME.match(images.name)


def test_a_relative_path_is_named_by_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(fill(tmp_path / "dogs", {"a.png": b"1"}))
    assert folder_images(Path()).name == "folder:dogs"


def test_a_file_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    write_atomically(path, "é\r\n1\n")
    assert path.read_bytes() == "é\r\n1\n".encode()
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    write_atomically(path, "again")
    assert path.read_text() == "again"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "missing" / "rows.csv", tmp_path / "folder"):
        with pytest.raises(UsageError, match=r"cannot be written \(.*\): check the folder and the disk"):
            write_atomically(place, "text")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(tmp_path / "rows.csv", "\ud800")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.csv").write_text("before")
    (tmp_path / "link.csv").symlink_to("real.csv")
    write_atomically(tmp_path / "link.csv", "after")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text() == "after"


def test_what_is_no_file_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_atomically(pipe, "text")
        assert pipe.is_fifo()
        assert os.read(reading, 100) == b"text"
    finally:
        os.close(reading)
