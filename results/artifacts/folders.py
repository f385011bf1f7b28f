"""Replace whole folders atomically: write them beside their place, then rename them."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sharedattn.errors import InputError
from sharedattn.results.artifacts.atomic import orphans, temporary_beside


def check_replaceable(folder: Path, what: str, is_one: Callable[[Path], bool]) -> None:
    """Check that a folder can be written, before any work and without leaving anything.

    Args:
        folder: the folder to write; for a link, the folder that it points to.
        what: its kind, with an article, for messages.
        is_one: whether an existing folder is of that kind, and may be replaced.

    Raises:
        InputError: the folder holds something else, or its parent cannot be created or written.
    """
    if os.path.lexists(folder) and not (
        folder.is_dir() and (is_one(folder) or not any(folder.iterdir()))
    ):
        raise InputError(
            f"{folder} is neither {what} nor an empty folder, and is not replaced; give another "
            f"folder"
        )
    place = _place_of(folder)
    above = next(parent for parent in place.parents if os.path.lexists(parent))
    try:
        # Permissions do not tell: root may write everywhere, but not below /proc.
        os.rmdir(tempfile.mkdtemp(prefix=".writable-", dir=above))
    except OSError as error:
        raise InputError(
            f"the folder {folder} cannot be written: nothing can be created in {above}: "
            f"{error.strerror}; give another folder"
        ) from error


@contextmanager
def folder_in_place_of(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to fill, which then replaces another.

    Abandoned folders of killed processes are deleted first. On any error the existing folder stays
    as it was.

    Args:
        folder: the folder to replace; its parent is created. For a link, the folder that it points
            to is replaced.

    Yields:
        The folder to fill.

    Raises:
        InputError: it cannot be written.
    """
    place = _place_of(folder)
    temporary = temporary_beside(place)
    try:
        _sweep(folder)
        if place != folder:
            _sweep(place)
        temporary.mkdir(parents=True)
        yield temporary
        _replace(place, temporary)
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a file and flush it to the disk."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _place_of(folder: Path) -> Path:
    """The path of a folder with links resolved: a rename would replace the link itself."""
    return Path(os.path.realpath(folder)) if folder.is_symlink() else folder.absolute()


def _replace(folder: Path, made: Path) -> None:
    """Rename a new folder into the place of an older one, which is deleted last."""
    old = temporary_beside(folder, "old")
    if folder.exists():
        folder.rename(old)
    made.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Delete what killed processes left, and restore a folder whose place they left empty."""
    for old in orphans(folder.parent, rf"{re.escape(folder.name)}\.old"):
        if not folder.exists():
            old.rename(folder)
    for path in orphans(folder.parent, rf"{re.escape(folder.name)}(\.old|\.weights)?"):
        shutil.rmtree(path)
