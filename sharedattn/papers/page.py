"""The table of papers as a Markdown page."""

from __future__ import annotations

import itertools
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence

from sharedattn.costs.model import CONVENTION
from sharedattn.papers.counting import LEGEND
from sharedattn.papers.figures import RULE, Row

_HEAD = """\
# What the papers printed, beside what we compute

Made by `sharedattn papers --to docs/measurements/papers.md`, from closed forms alone; do not edit.
The same rows as JSON: `sharedattn papers --json`.

Here are the figures of four papers that can be held to their word without training on ImageNet:
parameters, multiply-accumulates, and reductions in per cent. Accuracies and throughputs are not
here.
"""

_MEANING = (
    f"**Status.** {RULE}. A program decides it, from the digits.",
    "**Difference.** Ours less what was printed: of percentages in points (pt), else in per cent.",
    "**Less attention.** A reduction is held against the closest of all placements whose stages "
    "end with less layers, by each way of counting them: no source says which were replaced.",
    "**Rows.** A figure has a row for ours, counted whole, and one for each further convention "
    "that gives what was printed. That a convention gives a figure does not say that the paper "
    "counted so. FLOPs of the papers are multiply-accumulates (MACs).",
)
_WIDTH = 100

_COLUMNS = (
    "model",
    "figure",
    "printed",
    "ours",
    "difference",
    "counted",
    "status",
    "network, note",
)


def convention_text() -> str:
    """Description of what each convention counts."""
    return f"{CONVENTION}. {LEGEND}"


def page(rows: Sequence[Row]) -> str:
    """The meaning of the columns, the number of rows by status, and a table per source."""
    meaning = (*_MEANING[:1], f"**Counted.** {convention_text()}.", *_MEANING[1:])
    items = (textwrap.fill(f"- {text}", _WIDTH, subsequent_indent="  ") for text in meaning)
    parts = [_HEAD, "\n".join(items) + "\n"]
    statuses = Counter(row.status for row in rows)
    counts = ", ".join(f"{count} {status}" for status, count in statuses.most_common())
    parts.append(f"{len(rows)} rows: {counts}.\n")
    for paper, of_paper in itertools.groupby(rows, key=lambda row: row.figure.paper):
        parts.append(f"## {paper}\n")
        for source, group in itertools.groupby(of_paper, key=lambda row: row.figure.source):
            parts.append(f"### {source[0].upper()}{source[1:]}\n")
            parts.append(_table(group))
    return "\n".join(parts)


def _table(rows: Iterable[Row]) -> str:
    lines = [_COLUMNS, ("---",) * len(_COLUMNS), *map(_cells, rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _cells(row: Row) -> tuple[str, ...]:
    network = f"`{row.network}`" if row.network else ""
    cells = (
        row.figure.model,
        row.figure.metric,
        row.figure.printed,
        row.ours_text,
        row.difference_text,
        row.convention,
        row.status,
        ": ".join(filter(None, (network, row.note))),
    )
    # A placement's bars would end the table cell.
    return tuple(cell.replace("|", "\\|") for cell in cells)
