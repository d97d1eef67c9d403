"""Atomic files, full disks and signatures, on the real file system."""

from __future__ import annotations

import errno
import hashlib
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import ClusterError, ClusterUserError
from cluster.storage import (
    disk_errors,
    free_bytes,
    readable_bytes,
    require_free_space,
    sha256_of_file,
    sha256_of_folder,
    write_atomically,
)


def test_bytes_text_and_writers_arrive_whole_and_leave_no_temporary_file(tmp_path: Path):
    folder = tmp_path / "new" / "folder"
    write_atomically(folder / "bytes", b"\x00\r\n")
    write_atomically(folder / "text", "grüße\r\n")
    write_atomically(folder / "writer", lambda path: path.write_bytes(b"written"))
    assert (folder / "bytes").read_bytes() == b"\x00\r\n"
    assert (folder / "text").read_bytes() == "grüße\r\n".encode()
    assert (folder / "writer").read_bytes() == b"written"
    assert sorted(path.name for path in folder.iterdir()) == ["bytes", "text", "writer"]


def test_a_failed_write_keeps_the_old_file_and_cleans_up(tmp_path: Path):
    path = tmp_path / "file"
    write_atomically(path, "old")

    def fail(partial: Path) -> None:
        partial.write_text("half of the n")
        assert path.read_text() == "old"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_files_get_the_usual_permissions(tmp_path: Path):
    write_atomically(tmp_path / "ours", "x")
    (tmp_path / "usual").write_text("x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full (Linux)")
def test_a_full_disk_is_one_line_that_names_the_path(tmp_path: Path):
    def overfill(partial: Path) -> None:
        with Path("/dev/full").open("wb") as disk:
            disk.write(b"x")

    with pytest.raises(ClusterError) as full:
        write_atomically(tmp_path / "part.parquet", overfill)
    assert "the disk is full" in str(full.value)
    assert "part.parquet" in str(full.value)
    assert "\n" not in str(full.value)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EDQUOT, ClusterError),
        (errno.EIO, ClusterError),
        (errno.EACCES, ClusterUserError),
        (errno.EROFS, ClusterUserError),
        (errno.ENOENT, FileNotFoundError),
    ],
)
def test_each_error_of_a_disk_gets_its_class(number: int, kind: type[Exception]):
    with pytest.raises(kind), disk_errors(Path("somewhere")):
        raise OSError(number, "what the system says")


def test_writing_below_a_file_is_the_users_mistake(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ClusterUserError, match="in the way"):
        write_atomically(tmp_path / "file" / "below", "x")
    with pytest.raises(ClusterUserError, match="a part of the path is a file"):
        write_atomically(tmp_path / "file" / "deeper" / "below", "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ClusterUserError, match="it is a folder"):
        write_atomically(tmp_path / "folder", "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_free_space_is_asked_for_the_disk_of_a_path_that_does_not_exist_yet(tmp_path: Path):
    place = tmp_path / "not" / "yet"
    assert free_bytes(place) > 0
    require_free_space(place, 1, "training")
    with pytest.raises(ClusterError, match=r"training needs 1024\.0 TiB on the disk of .*yet, .* are free"):
        require_free_space(place, 1024**5, "training")


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 * 1024**3, "5.0 GiB"), (1024**4, "1.0 TiB")]
)
def test_sizes_read_as_people_write_them(size: int, text: str):
    assert readable_bytes(size) == text


def test_a_folders_signature_follows_names_and_contents_alone(tmp_path: Path):
    original, copy = tmp_path / "original", tmp_path / "copy"
    write_atomically(original / "a" / "one", b"1")
    write_atomically(original / "two", b"2")
    shutil.copytree(original, copy)
    (copy / "two").touch()
    signature = sha256_of_folder(original)
    assert sha256_of_folder(copy) == signature
    (copy / "two").rename(copy / "three")
    assert sha256_of_folder(copy) != signature
    (copy / "three").rename(copy / "two")
    (copy / "two").write_bytes(b"3")
    assert sha256_of_folder(copy) != signature


@given(content=st.binary(max_size=10_000))
def test_a_files_signature_is_its_sha256(tmp_path_factory: pytest.TempPathFactory, content: bytes):
    path = tmp_path_factory.getbasetemp() / "signature"
    write_atomically(path, content)
    assert sha256_of_file(path) == hashlib.sha256(content).hexdigest()
