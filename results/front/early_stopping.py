"""Summary of a study's early stopping: trials stopped per rung, and compute saved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sharedattn.results.records import Document, RungRow, TrialRole, TrialRow, TrialState


@dataclass(frozen=True, slots=True)
class Stopping:
    """How many of a study's search trials were stopped, and the compute spent.

    Attributes:
        stopped: number of trials stopped at each reached rung, by epoch.
        compute_share: training compute spent (epochs times MACs), divided by that of training the
            same trials to their end, over complete and stopped trials that this study trained
            itself; None without any, or without a complete trial to give a training's length.
    """

    stopped: Mapping[int, int]
    compute_share: float | None

    def to_json(self) -> Document:
        """A plain dictionary, with epochs as text."""
        return {
            "stopped": {str(epoch): count for epoch, count in self.stopped.items()},
            "compute_share": self.compute_share,
        }

    def __str__(self) -> str:
        """Such as "12 trials stopped at epoch 1, 8 at epoch 3; training took 31.2 % of ..."."""
        (first, count), *others = self.stopped.items()
        text = f"{count} trial{'s' if count != 1 else ''} stopped at epoch {first}"
        text += "".join(f", {count} at epoch {epoch}" for epoch, count in others)
        if self.compute_share is not None:
            text += (
                f"; training took {self.compute_share:.1%} of the compute of training all fully"
            )
        return text


def stopping_of(
    rows: Iterable[TrialRow], reports: Iterable[RungRow], epochs: int | None
) -> Stopping | None:
    """Summarise a study's early stopping, or return None if no trial was stopped.

    Args:
        rows: the study's trials.
        reports: its rung reports.
        epochs: epochs of a whole training, or None if not known yet.
    """
    reports = list(reports)
    stopped_at = {report.number: report.metrics.epoch for report in reports if not report.goes_on}
    if not stopped_at:
        return None
    counts = Counter(stopped_at.values())
    search = [row for row in rows if row.role is TrialRole.SEARCH and not row.reused]
    spent, full = 0, 0
    for row in search:
        if epochs is None or row.state not in (TrialState.COMPLETE, TrialState.PRUNED):
            continue
        spent += stopped_at.get(row.number, epochs) * row.macs
        full += epochs * row.macs
    return Stopping(
        stopped={epoch: counts[epoch] for epoch in sorted({r.metrics.epoch for r in reports})},
        compute_share=spent / full if full else None,
    )
