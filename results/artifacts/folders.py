"""Replace whole folders atomically: make them beside their place, then rename them."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sharedattn.errors import InputError
from sharedattn.results.artifacts.atomic import orphans, temporary_beside


def check_replaceable(folder: Path, what: str, is_one: Callable[[Path], bool]) -> None:
    """Find out before any work that a folder could not be written; nothing is written.

    Args:
        folder: where it would go; a link to a folder stays, and that folder is replaced.
        what: its kind, with its article, for messages.
        is_one: whether an existing folder is of that kind, and may be replaced.

    Raises:
        InputError: the folder holds something else, or the folder above it cannot be made or
            written.
    """
    if os.path.lexists(folder) and not (
        folder.is_dir() and (is_one(folder) or not any(folder.iterdir()))
    ):
        raise InputError(
            f"{folder} is neither {what} nor an empty folder, and is not replaced; name another "
            f"folder"
        )
    place = _place_of(folder)
    above = next(parent for parent in place.parents if os.path.lexists(parent))
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise InputError(
            f"the folder {folder} cannot be written: nothing can be made in {above}; name another "
            f"folder"
        )


@contextmanager
def folder_in_place_of(folder: Path) -> Iterator[Path]:
    """An empty folder to fill, which then takes the place of another.

    What killed processes left of earlier ones is cleared away first. On any error the folder in
    its place stays as it was.

    Args:
        folder: the place; the folder above it is made. Where a link stands there, the place is
            the one it leads to.

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
    """Where a folder is that may be a link: a rename would take the link's own place."""
    return Path(os.path.realpath(folder)) if folder.is_symlink() else folder.absolute()


def _replace(folder: Path, made: Path) -> None:
    """Put a made folder in the place of an older one, which goes last."""
    old = temporary_beside(folder, "old")
    if folder.exists():
        folder.rename(old)
    made.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Clear away what killed processes left, and put back the one whose place they left empty."""
    for old in orphans(folder.parent, rf"{re.escape(folder.name)}\.old"):
        if not folder.exists():
            old.rename(folder)
    for path in orphans(folder.parent, rf"{re.escape(folder.name)}(\.old|\.weights)?"):
        shutil.rmtree(path)
