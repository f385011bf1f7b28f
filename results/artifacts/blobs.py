"""Store named byte strings at a URL: in a local folder, or in any storage that fsspec opens.

A file is whole or absent. It is written under a temporary name beside its place and then moved:

- in a folder (a path, or `file://`), flushed to the disk and renamed, so that not even a power
  cut leaves a part;
- on a server with renames (`sftp://` with POSIX renames), as atomically as the server renames;
- in an object store (`s3://`, `gs://`, `az://`), where an object appears once it is complete and
  a move is a copy, at the price of one more request.

The files of killed writers keep their temporary names until the next `sweep`.

fsspec and its packages look up credentials: the machine's role, the package's own files, or
variables such as `FSSPEC_S3_ENDPOINT_URL` and `FSSPEC_SFTP_PASSWORD`. A password in a URL works as
well, and is neither shown nor stored: see `shown_url`.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from fsspec import available_protocols
from fsspec.core import url_to_fs

from sharedattn.errors import InputError
from sharedattn.results.artifacts.atomic import atomic_write, is_orphan, temporary_name
from sharedattn.results.database.errors import StorageError
from sharedattn.results.redaction import MASK, redacted

RETRY_DELAYS_S = (0.5, 2.0)  # after a server's first and second failure
_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*", re.ASCII)
_PREFIX = re.compile(rf"({_NAME.pattern}/?)?", re.ASCII)

T = TypeVar("T")


def shown_url(url: str) -> str:
    """A URL without its password, for messages and the database."""
    if _local_folder(url) is not None or (parts := urlsplit(url)).password is None:
        return url
    _, _, host = parts.netloc.rpartition("@")
    return redacted(parts._replace(netloc=f"{parts.username}@{host}").geturl())


@dataclass(frozen=True, slots=True, repr=False)
class BlobStore:
    """A folder of named byte strings; pickled to workers.

    Names are letters, digits, `_`, `-` and `.` in parts between `/`, none of which begins with a
    dot or a dash: no name leads out of the folder.

    Attributes:
        url: a path, or a URL that fsspec opens; the first write creates the folder.
    """

    url: str

    def __post_init__(self) -> None:
        _check_url(self.url)

    def __repr__(self) -> str:
        return f"BlobStore({self.shown()!r})"

    def shown(self, name: str = "") -> str:
        """The location of the folder or of a file in it, for messages."""
        folder = shown_url(self.url)
        return f"{folder.removesuffix('/')}/{name}" if name else folder

    @property
    def folder(self) -> Path | None:
        """The folder on this machine, or None for a server's."""
        return _local_folder(self.url)

    def write(self, name: str, content: bytes) -> None:
        """Write a file, replacing an older one.

        Raises:
            OSError: it cannot be written; an older file stays. A full local disk keeps its error
                number, ENOSPC or EDQUOT.
        """
        self._files.write(_checked(name), content)

    def read(self, name: str) -> bytes:
        """Read the contents of a file.

        Raises:
            FileNotFoundError: there is no file of this name.
            OSError: it cannot be read.
        """
        return self._files.read(_checked(name))

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name; see `names`."""
        return name in self.names(_checked(name))

    def delete(self, name: str) -> None:
        """Delete a file if it exists.

        Raises:
            StorageError: it cannot be deleted.
        """
        _checked(name)
        with self._kept():
            self._files.delete(name)

    def names(self, prefix: str = "") -> list[str]:
        """Names that begin with a prefix, sorted.

        Names with a further `/` after the prefix are left out.

        Raises:
            StorageError: the folder cannot be read; an absent folder has no names.
        """
        if not _PREFIX.fullmatch(prefix):
            raise ValueError(f"`prefix`={prefix!r} cannot begin a file's name")
        folder = prefix[: prefix.rfind("/") + 1]
        with self._kept():
            found = self._files.names(folder)
        names = [folder + name for name in found if not name.startswith(".")]
        return sorted(name for name in names if name.startswith(prefix))

    def sweep(self, folder: str = "") -> None:
        """Delete the files of killed writers.

        Args:
            folder: folder to clean, with its last `/`, without its subfolders.

        Raises:
            StorageError: the folder cannot be read, or a file cannot be deleted.
        """
        with self._kept():
            for name in self._files.names(folder):
                if is_orphan(name):
                    self._files.delete(folder + name)

    def check_writable(self) -> None:
        """Write a file and delete it, as a check before a search begins.

        Raises:
            InputError: the check fails; the message names the missing package, if any.
        """
        try:
            self._files.probe(temporary_name("probe"))
        except OSError as error:
            raise InputError(
                f"files cannot be written to {self.shown()}: {error.strerror or error}; name "
                f"another folder by --out or --weights-dir"
            ) from error

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """Turn errors of listing and deleting into storage errors, which fail no trial."""
        try:
            yield
        except OSError as error:
            raise StorageError(
                f"files cannot be listed or deleted in {self.shown()}: "
                f"{error.strerror or error}; run the same command again, nothing is lost"
            ) from error

    @property
    def _files(self) -> _Files:
        folder = _local_folder(self.url)
        return _LocalFiles(folder) if folder is not None else _RemoteFiles(self.url)


class _Files(Protocol):
    """The operations of one kind of storage, on checked names."""

    def write(self, name: str, content: bytes) -> None: ...

    def read(self, name: str) -> bytes: ...

    def delete(self, name: str) -> None: ...

    def names(self, folder: str) -> list[str]:
        """The last parts of all names directly in a folder, including temporaries."""

    def probe(self, name: str) -> None:
        """Write a file and delete it; a local folder is left as it was."""


@dataclass(frozen=True, slots=True)
class _LocalFiles:
    folder: Path

    def write(self, name: str, content: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, content)

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def delete(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)

    def names(self, folder: str) -> list[str]:
        try:
            with os.scandir(self.folder / folder) as entries:
                return [entry.name for entry in entries if entry.is_file()]
        except FileNotFoundError:
            return []

    def probe(self, name: str) -> None:
        made = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
        try:
            self.write(name, b"probe")
            self.delete(name)
        finally:
            for path in made:
                with suppress(OSError):  # the folder existed, or is in use by now
                    path.rmdir()


@dataclass(frozen=True, slots=True)
class _RemoteFiles:
    url: str

    def write(self, name: str, content: bytes) -> None:
        def write(files: Any, path: str) -> None:
            folder, _, last = path.rpartition("/")
            temporary = f"{folder}/{temporary_name(last)}"
            try:
                files.pipe_file(temporary, content)
            except FileNotFoundError:
                # Only when needed: an object store has no folders, and its package would create a
                # bucket for a mistyped name.
                top = "/".join(folder.split("/")[: 2 if folder.startswith("/") else 1])
                if not files.exists(top):
                    raise
                files.makedirs(folder, exist_ok=True)
                files.pipe_file(temporary, content)
            files.mv(temporary, path)

        self._use(name, write)

    def read(self, name: str) -> bytes:
        def read(files: Any, path: str) -> bytes:
            content: bytes = files.cat_file(path)
            return content

        return self._use(name, read)

    def delete(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._use(name, lambda files, path: files.rm_file(path))

    def names(self, folder: str) -> list[str]:
        def names(files: Any, path: str) -> list[str]:
            # Other processes write here, so never list from the cache.
            files.invalidate_cache()
            entries = files.ls(path.rstrip("/"), detail=True)
            return [e["name"].rpartition("/")[2] for e in entries if e["type"] != "directory"]

        try:
            return self._use(folder, names)
        except FileNotFoundError:
            return []

    def probe(self, name: str) -> None:
        self.write(name, b"probe")
        self.delete(name)

    def _use(self, name: str, use: Callable[[Any, str], T]) -> T:
        """Run an idempotent operation, and retry it if the connection fails."""
        for delay_s in RETRY_DELAYS_S:
            try:
                return self._try(name, use)
            except (FileNotFoundError, PermissionError):
                raise
            except OSError:
                time.sleep(delay_s)
        return self._try(name, use)

    def _try(self, name: str, use: Callable[[Any, str], T]) -> T:
        """Run an operation on a file, and turn any failure into an OSError.

        Args:
            name: name of the file.
            use: takes an fsspec file system and the file's path in it.

        Raises:
            InputError: the protocol's package is not installed.
        """
        store = BlobStore(self.url)
        files = None
        try:
            files, root = url_to_fs(self.url)
            return use(files, f"{root.rstrip('/')}/{name}")
        except ImportError as error:
            raise InputError(
                f"the package for the protocol of {store.shown()} is not installed: {error}"
            ) from error
        except FileNotFoundError:
            shown = store.shown(name)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), shown) from None
        except Exception as error:
            if files is not None:
                files.clear_instance_cache()  # it may hold a dead connection
            # Every protocol's package has its own errors. They are not chained, since their text
            # may hold the URL with its password.
            number = error.errno if isinstance(error, OSError) else None
            text = _without_password(f"{type(error).__name__}: {error}", self.url)
            raise OSError(number or errno.EIO, text, store.shown(name)) from None


def _local_folder(url: str) -> Path | None:
    """The folder of a path or a file:// URL, or None for any other URL."""
    if "://" not in url:
        return Path(url)
    return Path(url.removeprefix("file://")) if url.startswith("file://") else None


def _check_url(url: str) -> None:
    """Check that a URL names a folder; error messages leave out anything secret."""
    folder = _local_folder(url)
    if folder is not None:
        if not url or (url.startswith("file://") and not folder.is_absolute()):
            raise InputError(
                f"{url!r} is neither a folder nor a URL; "
                f"write for example /data/weights or file:///data/weights"
            )
        return
    protocol = url.partition("://")[0]
    if protocol not in available_protocols():
        raise InputError(
            f"fsspec does not know the protocol {protocol}://; "
            f"write for example s3://bucket/weights"
        )
    try:
        _ = urlsplit(url).port
    except ValueError:
        raise InputError(
            f"the URL of {protocol}:// does not have the form "
            f"PROTOCOL://[USER[:PASSWORD]@]HOST[:PORT]/FOLDER; set "
            f"FSSPEC_{protocol.upper()}_PASSWORD for a password with special characters"
        ) from None
    if any(text in url for text in ("?", "#", "*", "[", "::")):
        raise InputError(
            f"the URL of {protocol}:// contains one of ? # * [ and ::; set options of a protocol "
            f"by variables such as FSSPEC_S3_ENDPOINT_URL"
        )
    if ":" in (parts := urlsplit(url)).netloc and parts.password is None and redacted(url) != url:
        # Parsed literally it would have no password, and all of it would be shown.
        raise InputError(
            f"the URL of {protocol}:// may have a password with a / in it; set "
            f"FSSPEC_{protocol.upper()}_PASSWORD instead, and avoid @ and : in the folder's name"
        )


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"`name`={name!r} is not a valid file name; use letters, digits, _ - . and /, and "
            f"begin no part with . or -"
        )
    return name


def _without_password(text: str, url: str) -> str:
    password = urlsplit(url).password
    for written in filter(None, (password, unquote(password or ""))):
        text = text.replace(written, MASK)
    return text
