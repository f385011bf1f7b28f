"""Write files and folders atomically: write them beside their place, then rename them.

A temporary name holds its writer and its time: several hosts may write to one folder, and each can
tell which of its own writers are dead.
"""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

MAX_AGE_S = 24 * 60 * 60  # of another host's temporary, whose process cannot be looked up


def temporary_name(name: str, what: str = "") -> str:
    """The hidden name under which this process writes what it will rename to `name`.

    Args:
        name: the final name.
        what: a word that distinguishes several temporaries of one name.
    """
    parts = ["", name, *([what] if what else []), _host(), str(os.getpid()), str(int(time.time()))]
    return ".".join(parts)


def temporary_beside(path: Path, what: str = "") -> Path:
    """The path at which this process writes what it will rename to `path`, in the same folder.

    Args:
        path: the final path.
        what: as in `temporary_name`.
    """
    return path.with_name(temporary_name(path.name, what))


def is_orphan(name: str, of: str = r".+") -> bool:
    """Whether a name is that of an abandoned temporary.

    This host's processes are looked up; another host's temporaries are abandoned after a day.

    Args:
        name: name of a file or folder, without its path.
        of: regular expression of the `name` given to `temporary_name`, with `.what` if given.
    """
    pattern = rf"\.(?:{of})\.(?P<host>[\w-]+)\.(?P<process_id>\d+)\.(?P<since_s>\d+)"
    match = re.fullmatch(pattern, name)
    if match is None:
        return False
    if match["host"] == _host():
        return not _is_alive(int(match["process_id"]))
    return time.time() - int(match["since_s"]) > MAX_AGE_S


def orphans(folder: Path, of: str) -> Iterator[Path]:
    """Yield the abandoned temporaries in a folder.

    Args:
        folder: the folder; it may be absent.
        of: as in `is_orphan`.
    """
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if is_orphan(path.name, of):
            yield path


def atomic_write(path: Path, content: bytes) -> None:
    """Write a file so that it is whole or absent, even after a power cut.

    Args:
        path: the file, in an existing folder.
        content: its whole content.

    Raises:
        OSError: it cannot be written, such as on a full disk; an older file stays.
    """
    temporary = temporary_beside(path)
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _flush_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Make a rename last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@cache
def _host() -> str:
    """The scope of process ids: the host, and the container if several share its name."""
    name = re.sub(r"[^A-Za-z0-9]", "-", platform.node())[:32]
    return f"{name}-{os.stat('/proc/self/ns/pid').st_ino:x}"


def _is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True
