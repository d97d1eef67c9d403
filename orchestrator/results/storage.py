"""Where parts lie: a folder on the local disk, or anywhere that ``pyarrow.fs`` or fsspec can reach by a URL.

Everything above this module needs little of a storage: files that are immutable and appear whole, a listing, deletion,
and the right to be the only one who merges. How each of them is had:

* **Local disk**: a part is written under a hidden name, forced to the disk and renamed. Merging takes an exclusive
  ``flock``, which the system releases when its holder dies.
* **Object stores** (S3 and its kin): an object appears at once and whole when its upload ends, and never if the writer
  dies before; so it is written under its own name.
* **Other file systems** (memory, HDFS, SFTP): like the local disk, with the rename that they have.

Remote storages have no locks that a death releases, and few can create an object only if it is absent. So whoever wants
to merge puts down a *claim*, a small object with a name of its own, lists all claims, and goes on only if there is no
other. Since the claim is there before the listing, of two at the same time at least one sees the other: never do both
go on (they may both give way; the next one merges). This asks for listings that show what was written before, which
S3, Google's and Azure's stores promise. The claim of a merger that was killed lapses after :data:`CLAIM_SECONDS`; a
merger that is about to make its part visible looks again whether its own claim is still young and alone. Writers and
readers never wait for any of this.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, TypeAlias

import pyarrow as pa
from pyarrow import fs

from orchestrator.errors import UserError
from orchestrator.results_url import is_url, shown_url, without_keys

CLAIM_SECONDS = 900.0
"""How long a claim to merge holds: many times what merging the small parts of a table takes."""

OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oci", "oss"})
"""URL schemes of storages in which a file appears when its upload ends."""

_CLAIM_PREFIX = "claim-"

StillAlone = Callable[[], bool]
"""Whether the right to merge still holds."""


class Folder(ABC):
    """A folder of files that never change; its text form is what people call it.

    Methods raise ``OSError`` where the storage fails.

    Attributes:
        is_remote: whether every request takes a while, so that several at once are worth it, and whether one may still
            arrive after its sender gave up: a file that was not written may appear.
    """

    is_remote: ClassVar[bool]

    @abstractmethod
    def __truediv__(self, name: str) -> Folder:
        """A folder in this folder; need not exist."""

    @abstractmethod
    def __str__(self) -> str: ...

    @abstractmethod
    def exists(self) -> bool:
        """Whether there is a folder here; storages without folders say whether anything is in it."""

    @abstractmethod
    def make(self) -> None:
        """Make the folder and those above it, where the storage has folders."""

    @abstractmethod
    def names(self) -> list[str]:
        """Names of the files, in no order; none if the folder does not exist."""

    @abstractmethod
    def write(self, name: str, content: pa.Buffer) -> None:
        """Write a new file so that it appears at once and whole, and stays when this returns."""

    @abstractmethod
    def open(self, name: str) -> pa.NativeFile:
        """Open a file to read anywhere in it.

        Raises:
            FileNotFoundError: there is no such file.
        """

    @abstractmethod
    def has(self, name: str) -> bool:
        """Whether there is such a file."""

    @abstractmethod
    def size(self, name: str) -> int:
        """Bytes of a file.

        Raises:
            FileNotFoundError: there is no such file.
        """

    @abstractmethod
    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""

    def try_writing(self) -> None:
        """Write a small file and delete it, so that whoever is going to need that knows that it works."""
        name = f".probe-{uuid.uuid4().hex}"
        self.make()
        self.write(name, pa.py_buffer(b"can this be written?\n"))
        self.delete(name)

    @abstractmethod
    def clear_temporaries(self, older_than_seconds: float) -> None:
        """Delete what writers that were killed in the middle of a file left behind."""

    @abstractmethod
    def sole_merger(self, table: str) -> contextlib.AbstractContextManager[StillAlone | None]:
        """The right to merge the parts of a table of this folder; None where somebody else has it."""


Place: TypeAlias = str | Path | Folder
"""A folder by its path, its URL, or itself."""


def folder_at(place: Place) -> Folder:
    """The folder at a path or URL; it need not exist.

    Args:
        place: a path; or a URL that ``pyarrow.fs`` knows (``s3://bucket/run/results``, with options such as
            ``?endpoint_override=localhost:9000&scheme=http`` behind it; ``gs://``, ``hdfs://``, ``file://``), or else
            fsspec (``memory://``, ``abfs://``, ``sftp://``, ...; most need a package of their own).

    Raises:
        UserError: nobody knows the URL's scheme, or a package for it is missing.
    """
    if isinstance(place, Folder):
        return place
    if isinstance(place, Path) or not is_url(place):
        return _LocalFolder(Path(place))
    filesystem, path = _filesystem_of(place)
    if isinstance(filesystem, fs.LocalFileSystem):
        return _LocalFolder(Path(path))
    appears_whole = place.partition("://")[0].lower() in OBJECT_STORES
    return _RemoteFolder(filesystem, path.rstrip("/"), shown_url(place), appears_whole)


def _filesystem_of(url: str) -> tuple[fs.FileSystem, str]:
    scheme, shown = url.partition("://")[0], shown_url(url)
    try:
        filesystem, path = fs.FileSystem.from_uri(url)
        return filesystem, str(path)
    except pa.ArrowInvalid as error:
        if "Unrecognized filesystem type" not in str(error):
            raise UserError(f"results: {shown} cannot be opened ({_reason_without(url, error)})") from error
    except OSError as error:
        raise UserError(f"results: {shown} cannot be reached ({_reason_without(url, error)})") from error
    import fsspec  # type: ignore[import-untyped]

    try:
        # What others wrote a moment ago has to be seen.
        found, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except (ValueError, ImportError) as error:
        raise UserError(
            f"results: found a URL of the scheme '{scheme}', expected one that pyarrow or fsspec knows "
            f"({_reason_without(url, error)})"
        ) from error
    except Exception as error:  # each of fsspec's storages has errors of its own
        raise UserError(f"results: {shown} cannot be reached ({_reason_without(url, error)})") from error
    return fs.PyFileSystem(fs.FSSpecHandler(found)), str(path)


def _reason_without(url: str, error: Exception) -> str:
    """What went wrong with a URL, in one line that repeats none of its keys."""
    return without_keys(reason_of(error).replace(url, shown_url(url)))


def reason_of(error: Exception) -> str:
    """What went wrong, in one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(str(text).split())


class _LocalFolder(Folder):
    """A folder on the local disk, or on a network file system that is mounted."""

    is_remote = False

    def __init__(self, path: Path) -> None:
        self._path = path

    def __truediv__(self, name: str) -> _LocalFolder:
        return _LocalFolder(self._path / name)

    def __str__(self) -> str:
        return str(self._path)

    def exists(self) -> bool:
        return self._path.is_dir()

    def make(self) -> None:
        self._path.mkdir(parents=True, exist_ok=True)

    def names(self) -> list[str]:
        try:
            return os.listdir(self._path)  # noqa: PTH208  # names are wanted, and this is read again and again
        except FileNotFoundError:
            return []

    def write(self, name: str, content: pa.Buffer) -> None:
        temporary = self._path / f".{name}.tmp"
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path / name)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise

    def open(self, name: str) -> pa.NativeFile:
        return pa.OSFile(str(self._path / name))

    def has(self, name: str) -> bool:
        return (self._path / name).exists()

    def size(self, name: str) -> int:
        return (self._path / name).stat().st_size

    def delete(self, name: str) -> None:
        (self._path / name).unlink(missing_ok=True)

    def clear_temporaries(self, older_than_seconds: float) -> None:
        for path in self._path.glob(".part-*.tmp"):
            # Another writer may be cleaning as well.
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > older_than_seconds:
                    path.unlink()

    @contextmanager
    def sole_merger(self, table: str) -> Iterator[StillAlone | None]:
        # The lock lies outside the table's folder, where nobody looks for parts.
        with (self._path / f".{table}.compaction.lock").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield None  # somebody holds it, or the file system has no locks
            else:
                yield lambda: True


class _RemoteFolder(Folder):
    """A folder of any file system of Arrow's, which includes fsspec's.

    Args:
        filesystem: where it lies.
        path: within the file system.
        shown: what people call it, without keys.
        appears_whole: whether a file appears only when it is complete; otherwise it is written under a hidden name and
            renamed.
    """

    is_remote = True

    def __init__(self, filesystem: fs.FileSystem, path: str, shown: str, appears_whole: bool) -> None:
        self._filesystem = filesystem
        self._path = path
        self._shown = shown
        self._appears_whole = appears_whole

    def __truediv__(self, name: str) -> _RemoteFolder:
        return _RemoteFolder(self._filesystem, f"{self._path}/{name}", f"{self._shown}/{name}", self._appears_whole)

    def __str__(self) -> str:
        return self._shown

    def exists(self) -> bool:
        with _failing_as_os_errors():
            return bool(self._filesystem.get_file_info(self._path).type == fs.FileType.Directory)

    def make(self) -> None:
        if not self._appears_whole:
            with _failing_as_os_errors():
                self._filesystem.create_dir(self._path, recursive=True)

    def names(self) -> list[str]:
        return [info.base_name for info in self._files()]

    def write(self, name: str, content: pa.Buffer) -> None:
        with _failing_as_os_errors():
            if self._appears_whole:
                self._put(name, content)
                return
            try:
                self._put(f".{name}.tmp", content)
                self._filesystem.move(self._within(f".{name}.tmp"), self._within(name))
            except BaseException:
                with contextlib.suppress(Exception):
                    self._filesystem.delete_file(self._within(f".{name}.tmp"))
                raise

    def open(self, name: str) -> pa.NativeFile:
        with _failing_as_os_errors():
            return self._filesystem.open_input_file(self._within(name))

    def has(self, name: str) -> bool:
        with _failing_as_os_errors():
            return bool(self._filesystem.get_file_info(self._within(name)).type == fs.FileType.File)

    def size(self, name: str) -> int:
        with _failing_as_os_errors():
            info = self._filesystem.get_file_info(self._within(name))
        if info.type != fs.FileType.File:
            raise FileNotFoundError(f"{self}/{name}")
        return int(info.size)

    def delete(self, name: str) -> None:
        with _failing_as_os_errors(), contextlib.suppress(FileNotFoundError):
            self._filesystem.delete_file(self._within(name))

    def clear_temporaries(self, older_than_seconds: float) -> None:
        if self._appears_whole:
            return
        for info in self._files():
            if info.base_name.startswith(".part-") and info.base_name.endswith(".tmp"):
                # Another writer may be cleaning as well; where the storage keeps no times, nothing is cleaned.
                age = 0.0 if info.mtime_ns is None else time.time() - info.mtime_ns / 1e9
                with contextlib.suppress(OSError):
                    if age > older_than_seconds:
                        self.delete(info.base_name)

    @contextmanager
    def sole_merger(self, table: str) -> Iterator[StillAlone | None]:
        claims = self / f".{table}.compaction"
        own = f"{_CLAIM_PREFIX}{time.time_ns():019d}-{uuid.uuid4().hex[:8]}"
        began = time.monotonic()
        claims.make()
        claims.write(own, pa.py_buffer(b"merging parts\n"))

        def still_alone() -> bool:
            return time.monotonic() - began < CLAIM_SECONDS / 2 and claims._valid_claims(own) == [own]

        try:
            yield still_alone if still_alone() else None
        finally:
            claims.delete(own)

    def _valid_claims(self, own: str) -> list[str]:
        """Names of the claims that have not lapsed; those that have are deleted."""
        now = _claimed_at(own)
        valid = []
        for name in self.names():
            if not name.startswith(_CLAIM_PREFIX):
                continue
            if now - _claimed_at(name) > CLAIM_SECONDS:
                self.delete(name)
            else:
                valid.append(name)
        return valid

    def _files(self) -> list[fs.FileInfo]:
        with _failing_as_os_errors():
            listing = self._filesystem.get_file_info(fs.FileSelector(self._path, allow_not_found=True))
        return [info for info in listing if info.type == fs.FileType.File]

    def _put(self, name: str, content: pa.Buffer) -> None:
        # In one call: a stream that is closed after half of it would make half a file.
        with self._filesystem.open_output_stream(self._within(name)) as stream:
            stream.write(content)

    def _within(self, name: str) -> str:
        return f"{self._path}/{name}"


def _claimed_at(claim: str) -> float:
    """When a claim was made, in seconds since 1970; such names come from here only."""
    return int(claim.split("-")[1]) / 1e9


@contextmanager
def _failing_as_os_errors() -> Iterator[None]:
    """Storages that fsspec knows have errors of their own libraries."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
