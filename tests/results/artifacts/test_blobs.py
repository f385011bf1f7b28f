"""One contract for folders, file:// and servers; memory:// stands for these."""

import errno
import pickle
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from sharedattn.errors import InputError
from sharedattn.results.artifacts.atomic import temporary_name
from sharedattn.results.artifacts.blobs import BlobStore, shown_url
from sharedattn.results.database.errors import StorageError

SECRET_URL = "sftp://me:hunter2@host:22/data"


@pytest.fixture
def memory() -> Iterator[MemoryFileSystem]:
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sharedattn.results.artifacts.blobs.RETRY_DELAYS_S", (0.0, 0.0))


@pytest.fixture(params=["path", "file://", "memory://"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path, memory: MemoryFileSystem) -> BlobStore:
    folder = tmp_path / "not" / "there yet"
    urls = {"path": f"{folder}", "file://": f"file://{folder}/", "memory://": "memory://a/b"}
    return BlobStore(urls[request.param])


def test_what_is_written_is_read_listed_and_deleted(blobs: BlobStore) -> None:
    assert blobs.names() == blobs.names("deep/er/") == []
    blobs.sweep()
    contents = {"b.x": bytes(range(256)), "b-2": b"", "deep/er/b.x": b"1", "deep/er/c": b"2"}
    for name, content in contents.items():
        assert not blobs.exists(name)
        blobs.write(name, b"older, and longer than what comes")
        blobs.write(name, content)
        assert blobs.exists(name)
    elsewhere = pickle.loads(pickle.dumps(blobs))
    assert elsewhere == blobs
    assert {name: elsewhere.read(name) for name in contents} == contents
    assert blobs.names() == blobs.names("b") == ["b-2", "b.x"]
    assert blobs.names("b.") == ["b.x"]
    assert blobs.names("deep") == blobs.names("deep/") == []
    assert blobs.names("deep/er/") == ["deep/er/b.x", "deep/er/c"]
    assert blobs.names("deep/er/c") == ["deep/er/c"]
    for _ in range(2):
        blobs.delete("b.x")
    assert blobs.names() == ["b-2"] and not blobs.exists("b.x")
    with pytest.raises(FileNotFoundError, match=r"No such file.*b\.x"):
        blobs.read("b.x")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../up", "a/../b", "/etc/passwd", "a//b", ".hidden", "a/.b", "-a", "é"]
)
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    blobs = BlobStore(str(tmp_path / "folder"))
    for use in (blobs.read, blobs.delete, blobs.exists, lambda name: blobs.write(name, b"")):
        with pytest.raises(ValueError, match="is not a valid file name; use letters, digits"):
            use(name)
    if name:
        with pytest.raises(ValueError, match="cannot begin a file's name"):
            blobs.names(name)
    assert list(tmp_path.iterdir()) == []


def test_only_what_dead_processes_were_writing_is_swept(
    blobs: BlobStore, orphan_name: Callable[..., str]
) -> None:
    mine = temporary_name("x")
    names = [mine, orphan_name("x"), "y"]
    files, root = fsspec.url_to_fs(blobs.url)
    for folder in ("", "deep/"):
        blobs.write(f"{folder}whole", b"1")
        for name in names:
            files.pipe_file(f"{root}/{folder}{name}", b"half")
    assert blobs.names() == ["whole", "y"]
    blobs.sweep("deep/")

    def left(folder: str) -> set[str]:
        return {path.rpartition("/")[2] for path in files.find(f"{root}/{folder}".rstrip("/"), 1)}

    assert left("deep/") == {mine, "whole", "y"}
    assert left("") == {*names, "whole"}
    blobs.sweep()
    assert left("") == {mine, "whole", "y"}


def test_whether_files_can_be_written_is_asked_without_a_trace(
    tmp_path: Path, memory: MemoryFileSystem, at_once: None
) -> None:
    BlobStore("memory://a/b").check_writable()
    assert memory.store == {}
    BlobStore(str(tmp_path / "not" / "there")).check_writable()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"files cannot be written to .*/file: File exists"):
        BlobStore(str(tmp_path / "file")).check_writable()
    with pytest.raises(InputError, match=r"cannot be written to .*/file/deep: Not a directory"):
        BlobStore(str(tmp_path / "file" / "deep")).check_writable()
    with pytest.raises(InputError, match=r"files cannot be written to .*/proc/1/none: "):
        BlobStore("/proc/1/none").check_writable()
    with pytest.raises(InputError, match="data://x: ValueError: Read only"):
        BlobStore("data://x").check_writable()


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(InputError, match="package .* s3://bucket is not installed: Install s3fs"):
        BlobStore("s3://bucket").check_writable()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "is neither a folder nor a URL"),
        ("file://relative/x", "is neither a folder nor a URL"),
        ("s4://bucket/x", "fsspec does not know the protocol s4://"),
        ("simplecache::s3://bucket", "fsspec does not know the protocol"),
        (
            "s3://bucket/x?key=hunter2",
            r"s3:// contains one of \? # \* \[.*FSSPEC_S3_ENDPOINT_URL",
        ),
        ("memory://a*", r"contains one of \? # \* \["),
        ("sftp://me:hun/ter2@host/x", "does not have the form PROTOCOL://.*FSSPEC_SFTP_PASSWORD"),
    ],
)
def test_urls_that_mean_nothing_are_refused(url: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        BlobStore(url)
    assert "hun" not in "".join(traceback.format_exception(caught.value))


def test_passwords_are_not_shown(at_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown_url(SECRET_URL) == "sftp://me@host:22/data"
    for url in (
        "/data/x:y@z",
        "//x:y@z/[",
        "s3://bucket/x:y@z",
        "sftp://me@host/x",
        "file:///data",
    ):
        assert shown_url(url) == url
    blobs = BlobStore(SECRET_URL)
    assert repr(blobs) == f"{blobs}" == "BlobStore('sftp://me@host:22/data')"
    assert blobs.shown("a/b") == "sftp://me@host:22/data/a/b"

    def refuse(url: str) -> None:
        raise RuntimeError(f"cannot log in to {url}")

    monkeypatch.setattr("sharedattn.results.artifacts.blobs.url_to_fs", refuse)
    for use, kind in (
        (blobs.names, StorageError),
        (blobs.check_writable, InputError),
        (lambda: blobs.write("a", b""), OSError),
    ):
        with pytest.raises(kind, match="RuntimeError: cannot log in") as caught:
            use()
        assert "hunter2" not in "".join(traceback.format_exception(caught.value))


class Failing:
    """In place of a method of a server's: fails a few times, then does what it should."""

    def __init__(self, real: Callable[..., Any], *errors: Exception) -> None:
        self.real = real
        self.errors = list(errors)

    def __get__(self, files: object, _: type) -> Callable[..., Any]:
        return lambda *args, **named: self.call(files, *args, **named)

    def call(self, *args: Any, **named: Any) -> Any:
        if self.errors:
            raise self.errors.pop(0)
        return self.real(*args, **named)


def test_a_line_that_is_cut_is_made_anew(
    memory: MemoryFileSystem, at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = BlobStore("memory://a")

    def cut(*methods: str) -> None:
        for method in methods:
            real = getattr(MemoryFileSystem, method)
            monkeypatch.setattr(MemoryFileSystem, method, Failing(real, EOFError("cut")))

    before = fsspec.filesystem("memory")
    cut("pipe_file", "mv")
    blobs.write("x", b"1")
    assert fsspec.filesystem("memory") is not before
    cut("cat_file", "ls", "rm_file")
    assert blobs.read("x") == b"1" and blobs.names() == ["x"]
    blobs.delete("x")
    assert blobs.names() == []


def test_errors_of_a_server_keep_their_number_and_what_was_there(
    memory: MemoryFileSystem, at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = BlobStore("memory://a")
    blobs.write("x", b"old")
    full = Failing(MemoryFileSystem.pipe_file, *[OSError(errno.ENOSPC, "no room")] * 3)
    monkeypatch.setattr(MemoryFileSystem, "pipe_file", full)
    with pytest.raises(OSError, match=r"no room.*memory://a/x") as caught:
        blobs.write("x", b"new")
    assert caught.value.errno == errno.ENOSPC and full.errors == []
    assert blobs.read("x") == b"old" and blobs.names() == ["x"]

    refused = Failing(MemoryFileSystem.pipe_file, PermissionError(errno.EACCES, "not yours"))
    monkeypatch.setattr(MemoryFileSystem, "pipe_file", refused)
    with pytest.raises(PermissionError, match="not yours"):  # and is not asked again
        blobs.write("x", b"new")


def test_keeping_house_fails_as_the_storage(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    blobs = BlobStore(str(tmp_path / "file"))
    message = (
        "files cannot be listed or deleted in .*/file: Not a directory; run the same command again"
    )
    for use in (blobs.names, blobs.sweep, lambda: blobs.delete("x"), lambda: blobs.exists("x")):
        with pytest.raises(StorageError, match=message):
            use()


class Folders(MemoryFileSystem):
    """A server that has folders, as sftp: nothing is written in one that is not made."""

    protocol = "folders"
    store = {}
    pseudo_dirs = ["", "/home"]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("folders://").strip("/")

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: object) -> None:
        if self._parent(path) not in self.pseudo_dirs:
            raise FileNotFoundError(path)
        super().pipe_file(path, value, mode)


def test_folders_of_a_server_are_made_below_one_that_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fsspec.register_implementation("folders", Folders, clobber=True)
    monkeypatch.setattr(
        "sharedattn.results.artifacts.blobs.available_protocols", lambda: ["folders"]
    )
    blobs = BlobStore("folders://home/me/weights")
    blobs.write("deep/x", b"1")
    assert blobs.read("deep/x") == b"1"
    assert list(Folders.store) == ["/home/me/weights/deep/x"]
    # A mistyped name, or a bucket that is not there.
    with pytest.raises(InputError, match="folders://hoem/me: No such file"):
        BlobStore("folders://hoem/me").check_writable()
    assert "/hoem" not in Folders.pseudo_dirs
