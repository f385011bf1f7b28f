"""Summarise why trials failed, in one line per reason, without tracebacks and secrets."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sharedattn.results.records import Document, TrialRole, TrialRow, TrialState
from sharedattn.results.redaction import redacted

MAX_LENGTH = 400  # characters of a reason
MAX_SHOWN = 10  # reasons displayed at once
_FRAME = re.compile(r'\s+File ".*", line \d+')


@dataclass(frozen=True, slots=True)
class Failure:
    """Runs that failed for the same reason.

    Attributes:
        reason: one line, without secrets.
        count: number of failed runs, including confirmations and baselines.
        trials: numbers of the search trials that proposed their placements.
    """

    reason: str
    count: int
    trials: tuple[int, ...]

    def to_json(self) -> Document:
        """A plain dictionary of every field."""
        return {"reason": self.reason, "count": self.count, "trials": list(self.trials)}

    def __str__(self) -> str:
        runs = "1 trial" if self.count == 1 else f"{self.count} trials"
        return f"{runs} failed: {self.reason}"


def reason_of(traceback: str) -> str:
    """The line of a traceback that names the exception.

    It is the first line below the last frame: a message may have many lines, of which the last
    says little. For a text without frames it is the last line.

    Args:
        traceback: as Python prints it, or what is known of an end without one.
    """
    lines = [line for line in traceback.strip().splitlines() if line.strip()]
    frames = [i for i, line in enumerate(lines) if _FRAME.match(line)]
    if frames:
        said = (line for line in lines[frames[-1] + 1 :] if not line[0].isspace())
        return next(said, lines[-1])
    return lines[-1] if lines else "unknown error"


def shown_reason(text: str) -> str:
    """A reason for display: one line, without secrets or control characters."""
    line = "".join(c if c.isprintable() else " " for c in redacted(text))
    return line if len(line) <= MAX_LENGTH else f"{line[: MAX_LENGTH - 3]}..."


def failure_lines(failures: Sequence[Failure]) -> list[str]:
    """Failures for display; rare reasons are only counted if there are many."""
    lines = [str(failure) for failure in failures[:MAX_SHOWN]]
    rest = failures[MAX_SHOWN:]
    if rest:
        count = sum(failure.count for failure in rest)
        lines.append(f"{count} more trials failed, for {len(rest)} other reasons")
    return lines


def failures_of(rows: Iterable[TrialRow]) -> tuple[Failure, ...]:
    """Group the failed runs of a study by reason, the most frequent first.

    Args:
        rows: trials of one study, of every role; a baseline that no search trial proposed has no
            number here.
    """
    rows = list(rows)
    number_of: dict[str, int] = {}
    for row in rows:
        if row.role is TrialRole.SEARCH:
            number_of.setdefault(row.spec_key, row.number)
    failed: dict[str, list[int | None]] = defaultdict(list)
    for row in rows:
        if row.state is TrialState.FAILED:
            reason = shown_reason(row.error or "unknown error")
            is_search = row.role is TrialRole.SEARCH
            failed[reason].append(row.number if is_search else number_of.get(row.spec_key))
    return tuple(
        Failure(reason, len(numbers), tuple(sorted({n for n in numbers if n is not None})))
        for reason, numbers in sorted(failed.items(), key=lambda item: -len(item[1]))
    )
