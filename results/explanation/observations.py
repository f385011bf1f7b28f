"""The trainings of a study that its explanation learns from: those of one fidelity that all share.

These are all search trials of one fidelity: complete ones, with weights trained for them or
inherited from the supernet; and with early stopping complete and pruned ones, by their accuracy at
the first rung, which all have reached. Further seeds of the front's members are trainings as well,
if they are of that fidelity: the same placement again, with another noise. A table that answers
every seed alike has no other noise, so its answers count once. Trainings for more
epochs, or by themselves after a supernet's scores, are of another fidelity and left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sharedattn.results.front.confirmation import search_fidelity
from sharedattn.results.front.ranking import epochs_text
from sharedattn.results.front.summary import StudySummary
from sharedattn.results.records import TrialRole, TrialRow, TrialState


@dataclass(frozen=True, slots=True)
class Observations:
    """Trainings of one fidelity.

    Attributes:
        placements: n placements, as text.
        macs: n, per image.
        top1: n accuracies.
        what: what these accuracies are, such as "accuracies after 6 epochs".
    """

    placements: tuple[str, ...]
    macs: tuple[int, ...]
    top1: tuple[float, ...]
    what: str

    @classmethod
    def of(cls, pairs: Sequence[tuple[TrialRow, float | None]], what: str) -> Observations:
        """Those of trials with their accuracies; trials of None are left out."""
        found = [(row, top1) for row, top1 in pairs if top1 is not None]
        return cls(
            tuple(row.placement for row, _ in found),
            tuple(row.macs for row, _ in found),
            tuple(top1 for _, top1 in found),
            what,
        )

    @property
    def num_placements(self) -> int:
        """Number of different placements."""
        return len(set(self.placements))


def observations_of(summary: StudySummary) -> Observations:
    """The trainings of a study that its explanation learns from, the search's trials first."""
    if summary.study.record.fingerprint_document.get("early_stopping") is not None:
        return _at_first_rung(summary)
    fidelity = search_fidelity(summary.rows)
    if fidelity is None:
        return Observations((), (), (), "accuracies")
    what = (
        "accuracies by shared weights"
        if fidelity.weights == "inherited"
        else f"accuracies after {epochs_text(fidelity.epochs)}"
    )
    searched = {row.spec_key: row.top1 for row in summary.rows if row.role is TrialRole.SEARCH}
    pairs = [
        (row, row.top1)
        for role in (TrialRole.SEARCH, TrialRole.CONFIRM)
        for row in summary.rows
        if row.role is role
        and row.state is TrialState.COMPLETE
        and row.fidelity_key == fidelity.key
        and (role is TrialRole.SEARCH or row.num_images or row.top1 != searched.get(row.spec_key))
    ]
    return Observations.of(pairs, what)


def _at_first_rung(summary: StudySummary) -> Observations:
    first = min((report.metrics.epoch for report in summary.rung_reports), default=1)
    top1 = {
        report.number: report.metrics.top1
        for report in summary.rung_reports
        if report.metrics.epoch == first
    }
    pairs = [
        (row, top1.get(row.number))
        for row in summary.rows
        if row.role is TrialRole.SEARCH and row.state in (TrialState.COMPLETE, TrialState.PRUNED)
    ]
    return Observations.of(pairs, f"accuracies after {epochs_text(first)}, the first rung")
