"""Write files and folders atomically: make them beside their place, then rename them.

A temporary's name says who makes it and since when: several hosts may write to one folder, and
each can tell which of its own writers are dead.
"""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

MAX_AGE_S = 24 * 60 * 60  # of another host's temporary, whose process cannot be asked for


def temporary_name(name: str, what: str = "") -> str:
    """The hidden name under which this process makes what will be renamed to `name`.

    Args:
        name: the name in the end.
        what: a word that keeps apart several temporaries of one name.
    """
    parts = ["", name, *([what] if what else []), _host(), str(os.getpid()), str(int(time.time()))]
    return ".".join(parts)


def temporary_beside(path: Path, what: str = "") -> Path:
    """Where this process makes what will be renamed to `path`, in the same folder.

    Args:
        path: the place.
        what: see `temporary_name`.
    """
    return path.with_name(temporary_name(path.name, what))


def is_orphan(name: str, of: str = r".+") -> bool:
    """Whether a name is that of a temporary which nobody will finish.

    This host's processes are looked up; what another host has begun is given up after a day.

    Args:
        name: a file's or folder's, without its path.
        of: regular expression of what `temporary_name` was given, with `.what` where it was.
    """
    pattern = rf"\.(?:{of})\.(?P<host>[\w-]+)\.(?P<process_id>\d+)\.(?P<since_s>\d+)"
    match = re.fullmatch(pattern, name)
    if match is None:
        return False
    if match["host"] == _host():
        return not _is_alive(int(match["process_id"]))
    return time.time() - int(match["since_s"]) > MAX_AGE_S


def orphans(folder: Path, of: str) -> Iterator[Path]:
    """Temporaries in a folder which nobody will finish.

    Args:
        folder: where to look; it may be absent.
        of: see `is_orphan`.
    """
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if is_orphan(path.name, of):
            yield path


def atomic_write(path: Path, content: bytes) -> None:
    """Write a file where it is whole or absent, and outlasts a power cut.

    Args:
        path: the file, in a folder that exists.
        content: all of it.

    Raises:
        OSError: it cannot be written, such as on a full disk; what was there before stays.
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
    """Where process ids mean the same: the host, and the container of equal name on it."""
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
