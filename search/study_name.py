"""Names of studies: each also names a folder in `--out`, beside what else is kept there."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

from sharedattn.errors import InputError
from sharedattn.search.paths import DATABASE_NAME, SCANS_NAME, WEIGHTS_NAME

MAX_MADE_LENGTH = 255
"""Letters of a name that the tool makes: as many as a file's name has on most disks."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_OTHER = re.compile(r"[^A-Za-z0-9._-]+")
_SHORT_PART = 80  # letters of the space's and of the data's name, where the whole is too long
# Of checkpoints where `--weights-dir` is `--out`, and of `sharedattn analyze`.
_RESERVED = (WEIGHTS_NAME, "checkpoints", "analysis", SCANS_NAME)
# What a study's folder holds, beside the folders of further exports.
_REPORT, _KNEE, _TUNE = "report.html", "knee", "tune"


def check_name(name: str) -> None:
    """Refuse a name that cannot be a study's.

    Raises:
        InputError: other characters, too many of them, or a name of a file or folder that is not
            the study's.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"`--study` names a folder: up to 200 letters, digits, dots, dashes and underscores "
            f"of ASCII, the first a letter or a digit; got {name!r}"
        )
    if name.lower() in _RESERVED or name.lower().startswith(DATABASE_NAME):
        raise InputError(
            f"`--study` is {name!r}, which names something else in --out: the database and the "
            f"folders of weights and analyses; choose another name"
        )


def made_name(space: str, data: str, key: str) -> str:
    """The name of a study that was given none.

    Args:
        space: the space's name.
        data: the data's name, which may be a folder's.
        key: of the study's fingerprint, in hexadecimal; keeps studies apart whose names are
            equal otherwise.
    """
    name = f"{space}-{_OTHER.sub('-', data)}-{key}"
    if name.isascii() and len(name) <= MAX_MADE_LENGTH:
        return name
    return f"{_plain(space)[:_SHORT_PART]}-{_plain(data)[:_SHORT_PART]}-{key}"


def _plain(text: str) -> str:
    """Letters without their accents, and a dash for each run of what is left."""
    letters = unicodedata.normalize("NFKD", text)
    return _OTHER.sub("-", "".join(c for c in letters if not unicodedata.combining(c)))


def check_folder(folder: Path, database: Path | None, weights: Path | None) -> None:
    """Refuse a study's folder that would be mixed up with the database or the weights.

    Args:
        folder: the study's, in `--out`.
        database: the SQLite database's file; None: it is a server's.
        weights: the folder of the weights; None: there is none on this machine.

    Raises:
        InputError: one of them would lie in the other's place, or something else lies there.
    """
    place = Path(os.path.realpath(folder))
    if database is not None:
        file = Path(os.path.realpath(database))
        # SQLite's and the lock's files have its name with something behind it.
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
            f"the study's folder {folder} is something else there; choose another --study or --out"
        )


def _is_own(path: Path, place: Path) -> bool:
    """Whether a path is, or lies in, what a search writes into its study's folder."""
    if place not in path.parents:
        return False
    first = path.relative_to(place).parts[0]
    return first in (_REPORT, _KNEE) or first.startswith(_TUNE)


def _mixed_up(folder: Path, what: str) -> InputError:
    return InputError(
        f"the study's folder {folder} and {what} would lie in each other's place; choose another "
        f"--study, --out, --storage or --weights-dir"
    )
