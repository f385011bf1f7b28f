"""What a search that was struck by a fault has come to, and whether that is what was demanded."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from epoch_evaluator import Entry

from sharedattn.results.front.summary import StudySummary
from sharedattn.results.records import TrialRow, TrialState

# Of a finished trial, what nothing that comes after may change.
_LASTING = ("placement", "state", "created_at", "finished_at", "evaluation_key", "seed", "top1")


@dataclass(frozen=True)
class Result:
    """What every search of a campaign must come to, in lists as JSON has them.

    Attributes:
        trials: number, placement, state and accuracy of each.
        front: trial number, placement, accuracy and MACs of each member.
        hypervolume: of the front.
    """

    trials: list[list[Any]]
    front: list[list[Any]]
    hypervolume: float

    @classmethod
    def of(cls, summary: StudySummary) -> Result:
        return cls(
            [[row.number, row.placement, row.state.value, row.top1] for row in summary.rows],
            [[m.number, m.placement, m.top1, m.macs] for m in summary.front.members],
            summary.hypervolume,
        )


@dataclass(frozen=True)
class Work:
    """What workers did for a search, by their journal.

    Attributes:
        attempts: evaluations begun.
        retries: those of them at a trial that had been begun before.
        from_checkpoint: retries that went on from a checkpoint.
        epochs_saved: epochs which those did not have to run.
        epochs_again: epochs that were run more than once.
    """

    attempts: int
    retries: int
    from_checkpoint: int
    epochs_saved: int
    epochs_again: int

    @classmethod
    def of(cls, journal: Sequence[Entry]) -> Work:
        firsts = _first_entries(journal)
        saved = [entry.epoch for entry in firsts if entry.epoch]
        begun = {entry.attempt: entry.epoch for entry in firsts}
        runs = Counter(
            (entry.trial, entry.epoch) for entry in journal if entry.epoch > begun[entry.attempt]
        )
        return cls(
            attempts=len(firsts),
            retries=len(firsts) - len({entry.trial for entry in firsts}),
            from_checkpoint=len(saved),
            epochs_saved=sum(saved),
            epochs_again=sum(runs.values()) - len(runs),
        )


def violations(
    summary: StudySummary,
    demanded: Result,
    seen: Mapping[int, TrialRow],
    journal: Sequence[Entry],
    stored_weights: Collection[str],
) -> list[str]:
    """What a search that has ended breaks of what is demanded; empty: nothing.

    Args:
        summary: what the database holds of it.
        demanded: what an undisturbed search comes to.
        seen: trials that were seen finished before a fault or a restart, by number.
        journal: what its workers did.
        stored_weights: evaluation keys that have weights.
    """
    found = []
    rows = {row.number: row for row in summary.rows}
    ends = {n: row.finished_at for n, row in rows.items() if row.finished_at is not None}
    states = dict(Counter(row.state.value for row in summary.rows))
    if states != {TrialState.COMPLETE.value: len(demanded.trials)}:
        found.append(f"not {len(demanded.trials)} complete trials, but {states}")
    if summary.study.finished_at is None:
        found.append("the study is not marked as finished")
    repeated = len(summary.rows) - len({row.placement for row in summary.rows})
    if repeated:
        found.append(f"{repeated} placements repeated")
    for number, row in seen.items():
        if number not in rows:
            found.append(f"trial {number} is lost")
        elif _lasting(rows[number]) != _lasting(row):
            found.append(f"trial {number} was finished and is changed")
    for entry in _first_entries(journal):
        end = ends.get(int(entry.trial.rpartition("-")[2]))
        if end is not None and entry.at > end.replace(tzinfo=UTC).timestamp():
            found.append(f"{entry.trial} was begun again after its end")
    result = Result.of(summary)
    if result.trials != demanded.trials:
        found.append("the trials are not those of an undisturbed search")
    if (result.front, result.hypervolume) != (demanded.front, demanded.hypervolume):
        found.append("the front is not that of an undisturbed search")
    lost = [m.number for m in summary.front.members if not _has_weights(m.runs[0], stored_weights)]
    if lost:
        found.append(f"trials {lost} are on the front and their weights are lost")
    return found


def _lasting(row: TrialRow) -> list[Any]:
    return [getattr(row, name) for name in _LASTING]


def _has_weights(row: TrialRow, stored: Collection[str]) -> bool:
    return row.weights_sha256 is not None and row.evaluation_key in stored


def _first_entries(journal: Sequence[Entry]) -> list[Entry]:
    """Where each attempt began."""
    attempts: dict[str, list[Entry]] = defaultdict(list)
    for entry in journal:
        attempts[entry.attempt].append(entry)
    return [entries[0] for entries in attempts.values()]
