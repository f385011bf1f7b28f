"""Names of what is written beside its place and then renamed, and what kills leave of it.

The process's id in the name keeps two writers of one file apart, and tells later which of them
are gone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path


def temporary_beside(path: Path, what: str = "") -> Path:
    """Where this process makes what will be renamed to `path`, hidden in the same folder.

    Args:
        path: the place.
        what: a word that keeps apart several temporaries of one place.
    """
    return path.with_name(".".join(["", path.name, *([what] if what else []), str(os.getpid())]))


def orphans(folder: Path, name: str) -> Iterator[Path]:
    """Temporaries in a folder whose processes are dead.

    Args:
        folder: where to look; it may be absent.
        name: regular expression of the whole name, without the first dot and the process's id.
    """
    pattern = re.compile(rf"\.(?:{name})\.(?P<process_id>\d+)")
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        match = pattern.fullmatch(path.name)
        if match and not _is_alive(int(match["process_id"])):
            yield path


def _is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True
