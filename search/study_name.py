"""Names of studies, each of which also names a folder in `--out`."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

from sharedattn.errors import InputError
from sharedattn.search.paths import DATABASE_NAME, SCANS_NAME, WEIGHTS_NAME

MAX_MADE_LENGTH = 255
"""Longest name that this module makes: the longest file name on most disks."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_OTHER = re.compile(r"[^A-Za-z0-9._-]+")
_SHORT_PART = 80  # letters of the space's and of the data's name, if the whole is too long
# Folders of checkpoints if `--weights-dir` is `--out`, and of `sharedattn analyze`.
_RESERVED = (WEIGHTS_NAME, "checkpoints", "analysis", SCANS_NAME)
# Contents of a study's folder, besides the folders of further exports.
_REPORT, _KNEE, _TUNE = "report.html", "knee", "tune"


def check_name(name: str) -> None:
    """Check that a name can be a study's.

    Raises:
        InputError: invalid characters, too many of them, or the name of another file or folder
            in `--out`.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"`--study` is {name!r}; give up to 200 ASCII letters, digits, dots, dashes and "
            f"underscores, the first a letter or a digit"
        )
    if name.lower() in _RESERVED or name.lower().startswith(DATABASE_NAME):
        raise InputError(
            f"`--study` is {name!r}, which is reserved for the database and the folders of "
            f"weights and analyses in --out; choose another name"
        )


def made_name(space: str, data: str, key: str) -> str:
    """Make a name for a study that was given none.

    Args:
        space: the space's name.
        data: the data's name, which may be a folder's.
        key: key of the study's fingerprint, in hexadecimal; distinguishes studies of equal names.
    """
    name = f"{space}-{_OTHER.sub('-', data)}-{key}"
    if name.isascii() and len(name) <= MAX_MADE_LENGTH:
        return name
    return f"{_plain(space)[:_SHORT_PART]}-{_plain(data)[:_SHORT_PART]}-{key}"


def _plain(text: str) -> str:
    """Strip accents, and replace each run of other characters by a dash."""
    letters = unicodedata.normalize("NFKD", text)
    return _OTHER.sub("-", "".join(c for c in letters if not unicodedata.combining(c)))


def check_folder(folder: Path, database: Path | None, weights: Path | None) -> None:
    """Check that a study's folder does not overlap with the database or the weights.

    Args:
        folder: the study's folder in `--out`.
        database: the SQLite database's file, or None for a server.
        weights: the weights folder, or None if it is not on this machine.

    Raises:
        InputError: they overlap, or the folder's path is taken by a file.
    """
    place = Path(os.path.realpath(folder))
    if database is not None:
        file = Path(os.path.realpath(database))
        # SQLite's and the lock's files extend the database's name.
        is_beside = place.parent == file.parent and place.name.startswith(file.name)
        if is_beside or file in place.parents or _is_own(file, place):
            raise _mixed_up(folder, f"the database {database}")
    if weights is not None:
        other = Path(os.path.realpath(weights))
        checkpoints = other / "checkpoints"
        if place in (other, checkpoints) or checkpoints in place.parents or _is_own(other, place):
            raise _mixed_up(folder, f"the weights in {weights}")
    if os.path.lexists(folder) and not folder.is_dir():
        raise InputError(
            f"the study's folder {folder} is not a folder; choose another --study or --out"
        )


def _is_own(path: Path, place: Path) -> bool:
    """Whether a path is among the files that a search writes into its study's folder."""
    if place not in path.parents:
        return False
    first = path.relative_to(place).parts[0]
    return first in (_REPORT, _KNEE) or first.startswith(_TUNE)


def _mixed_up(folder: Path, what: str) -> InputError:
    return InputError(
        f"the study's folder {folder} and {what} would overlap; choose another "
        f"--study, --out, --storage or --weights-dir"
    )
