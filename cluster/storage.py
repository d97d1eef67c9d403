"""Files that are whole or absent, disks that may be full, and the signatures of inputs."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.errors import ClusterError, ClusterUserError

_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}
_FORBIDDEN = {
    errno.EACCES: "no permission to write there",
    errno.EPERM: "no permission to write there",
    errno.EROFS: "the file system is read-only",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EEXIST: "a file of that name is in the way of a folder",
    errno.EISDIR: "it is a folder, not a file",
    errno.ENAMETOOLONG: "the name is too long for the file system",
}


def write_atomically(path: Path, content: bytes | str | Callable[[Path], object]) -> None:
    """Write a file so that a reader, at any moment and after any crash, sees the old file or the new, never a part.

    Args:
        path: the file; its folder is made if it is absent.
        content: the bytes, the text (UTF-8), or a function that writes the file it is given the path of
            (such as ``lambda path: save_file(tensors, path)``).

    Raises:
        ClusterError: the disk is full or failed; the old file is untouched.
        ClusterUserError: the place cannot be written to.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"
        try:
            _fill(partial, content)
            _flush_to_disk(partial)
            partial.replace(path)
            _flush_to_disk(path.parent)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's errors about a disk into one line that names the path and says what to do.

    A full disk or quota, or a failing device, is a `ClusterError`; a place nobody may write to is a
    `ClusterUserError`. Other errors pass unchanged.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise _full(path, _FULL[error.errno]) from error
        if error.errno == errno.EIO:
            raise ClusterError(
                f"cannot write {path}: the device reports an input/output error; check the disk"
            ) from error
        if error.errno in _FORBIDDEN:
            raise ClusterUserError(f"cannot write {path}: {_FORBIDDEN[error.errno]}; choose another place") from error
        raise
    except Exception as error:
        # Libraries of another language (safetensors) have errors of their own, and the system's number in their text.
        for number, meaning in _FULL.items():
            if f"(os error {number})" in str(error):
                raise _full(path, meaning) from error
        raise


def _full(path: Path, meaning: str) -> ClusterError:
    return ClusterError(
        f"cannot write {path}: {meaning}; free some space and give the same command again, what is finished is kept"
    )


def free_bytes(path: Path) -> int:
    """Free bytes on the disk that holds ``path``, which need not exist yet."""
    return shutil.disk_usage(_nearest_existing(path)).free


def require_free_space(path: Path, needed_bytes: int, what: str) -> None:
    """Raise `ClusterError` unless the disk of ``path`` has ``needed_bytes`` free for ``what``, the work named."""
    free = free_bytes(path)
    if free < needed_bytes:
        raise ClusterError(
            f"{what} needs {readable_bytes(needed_bytes)} on the disk of {path}, {readable_bytes(free)} are free; "
            "free some space or give another --run-dir"
        )


def readable_bytes(count: int) -> str:
    """A size as people write it, in binary units: ``1536`` is ``1.5 KiB``."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal; read as a stream, so of any size."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_folder(folder: Path) -> str:
    """SHA-256 over the relative names and contents of all files below ``folder``, links followed; in hexadecimal.

    Times, permissions, empty folders and the folder's own name do not count: a copy has the same signature.
    """
    total = hashlib.sha256()
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    for name in sorted(files):
        total.update(f"{len(name.encode())}:{name}:{sha256_of_file(files[name])}\n".encode())
    return total.hexdigest()


def _fill(partial: Path, content: bytes | str | Callable[[Path], object]) -> None:
    if isinstance(content, str):
        partial.write_text(content, encoding="utf-8", newline="")
    elif isinstance(content, bytes):
        partial.write_bytes(content)
    else:
        content(partial)


def _flush_to_disk(path: Path) -> None:
    """Ask the disk for what the kernel still holds: a file's bytes, or a folder's list of names."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open a folder
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _nearest_existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
