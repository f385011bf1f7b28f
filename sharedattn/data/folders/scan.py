"""Decode every image file once before anything depends on it.

Results are cached by size and time, so that a second scan of 50,000 files reads none of them
again. The caller decides where to keep the cache.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sharedattn.data.folders.decode import ImageReadError, check_header, read_image, shown
from sharedattn.data.folders.listing import Listing, Problem
from sharedattn.errors import InputError

DECODE_ALL_UP_TO = 100_000
"""Largest folder in which every file is decoded by default; in larger ones, headers are read."""

MAX_SHOWN = 12  # rows of the table of problems
_BATCH = 64  # files per task of a thread
# A file changed within this time before the scan may change again without a new time stamp, since
# file clocks are coarse.
_SETTLED_NS = 2 * 10**9
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Seen:
    """A cached result: a file's size and time, and what was wrong with it, or empty."""

    size: int
    time_ns: int
    reason: str


@dataclass(slots=True)
class ScanMemory:
    """Results of earlier scans of a folder, by path below it.

    Attributes:
        decoded: results for completely decoded files.
        headers: results for files of which only the header was read.
    """

    decoded: dict[str, Seen] = field(default_factory=dict)
    headers: dict[str, Seen] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A document that `from_json` reads."""
        return {
            "format": _FORMAT,
            **{
                name: {shown(p): [s.size, s.time_ns, s.reason] for p, s in seen.items()}
                for name, seen in (("decoded", self.decoded), ("headers", self.headers))
            },
        }

    @classmethod
    def from_json(cls, document: Any) -> ScanMemory:
        """Invert `to_json`; an unreadable document gives an empty memory."""
        try:
            if document["format"] != _FORMAT:
                return cls()
            return cls(
                *(
                    {path: Seen(*seen) for path, seen in document[name].items()}
                    for name in ("decoded", "headers")
                )
            )
        except (AttributeError, KeyError, TypeError):
            return cls()


def scan(
    listing: Listing,
    *,
    whole: bool,
    memory: ScanMemory,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Problem, ...]:
    """Check every image of a folder.

    Args:
        listing: the folder's listing.
        whole: whether to decode each image, rather than only read its header.
        memory: results of earlier scans; new results are added.
        on_progress: called from time to time with the number of checked files, and the total.

    Returns:
        The problems of the listing and of the images, by path.
    """
    known = memory.decoded if whole else memory.headers | memory.decoded
    files = [
        (path, int(size), int(time_ns))
        for split in listing.splits.values()
        for path, size, time_ns in zip(split.paths, split.sizes, split.times_ns, strict=True)
    ]
    new = [file for file in files if not _is_known(file, known)]
    found: dict[str, Seen] = {}
    settled_ns = time.time_ns() - _SETTLED_NS
    look = _decode if whole else _read_header
    workers = len(os.sched_getaffinity(0))

    def look_at(batch: Sequence[tuple[str, int, int]]) -> list[Seen]:
        return [Seen(size, at, look(listing.root / path)) for path, size, at in batch]

    # Threads suffice, since decoding releases the interpreter's lock.
    batches = [new[i : i + _BATCH] for i in range(0, len(new), _BATCH)]
    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
        # Pillow warns of damaged metadata and of large pictures, both of which are read anyway.
        warnings.simplefilter("ignore")
        for batch, seen in zip(batches, pool.map(look_at, batches), strict=True):
            found.update((shown(file[0]), what) for file, what in zip(batch, seen, strict=True))
            if on_progress is not None:
                on_progress(len(found), len(new))
    known = known | found
    names = [shown(path) for path, *_ in files]
    bad = [Problem(name, known[name].reason) for name in names if known[name].reason]
    # Results for deleted files are dropped.
    kept = {name: known[name] for name in names if known[name].time_ns < settled_ns}
    if whole:
        memory.decoded = kept
    else:
        memory.headers = kept
    return tuple(sorted((*listing.problems, *bad), key=lambda problem: problem.path))


def problems_text(problems: Sequence[Problem]) -> str:
    """A table of problems, one line per file; beyond `MAX_SHOWN`, their number."""
    lines = [f"  {p.path}  {p.reason}" for p in problems[:MAX_SHOWN]]
    if len(problems) > MAX_SHOWN:
        lines.append(f"  and {len(problems) - MAX_SHOWN:,} more")
    return "\n".join(lines)


def refuse_problems(problems: Sequence[Problem]) -> None:
    """Raise if there are images that cannot be used.

    Raises:
        InputError: there are some; the message has a table of them.
    """
    if problems:
        files = "file" if len(problems) == 1 else "files"
        raise InputError(
            f"`--data`: {len(problems):,} {files} cannot be used:\n{problems_text(problems)}\n"
            f"mend them or take them out, or give --on-bad-image skip to go on without them"
        )


def _is_known(file: tuple[str, int, int], known: Mapping[str, Seen]) -> bool:
    path, size, time_ns = file
    seen = known.get(shown(path))
    return seen is not None and (seen.size, seen.time_ns) == (size, time_ns)


def _decode(path: Path) -> str:
    try:
        read_image(path, "RGB")
    except ImageReadError as error:
        return _without_path(error, path)
    return ""


def _read_header(path: Path) -> str:
    try:
        check_header(path)
    except ImageReadError as error:
        return _without_path(error, path)
    return ""


def _without_path(error: ImageReadError, path: Path) -> str:
    return str(error).removeprefix(f"{shown(path)}: ")
