"""The results of a search hit by a fault, and whether they meet the requirements."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from epoch_evaluator import Entry

from sharedattn.results.front.summary import StudySummary
from sharedattn.results.records import TrialRow, TrialState

# Fields of a finished trial that must not change any more.
_LASTING = ("placement", "state", "created_at", "finished_at", "evaluation_key", "seed", "top1")


@dataclass(frozen=True)
class Result:
    """The required result of every search of a campaign, in lists as in JSON.

    Attributes:
        trials: number, placement, state and accuracy of each trial.
        front: trial number, placement, accuracy and MACs of each member.
        hypervolume: hypervolume of the front.
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
    """Work of a search's workers, from their journal.

    Attributes:
        attempts: number of evaluations begun.
        retries: number of them for a trial begun before.
        from_checkpoint: number of retries resumed from a checkpoint.
        epochs_saved: number of epochs that these did not have to run.
        epochs_again: number of epochs that were repeated.
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
    """Requirements that a finished search violates.

    Args:
        summary: the search in the database.
        demanded: the result of a search without faults.
        seen: trials seen finished before a fault or a restart, by number.
        journal: record of its workers.
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
    """The first entry of each attempt."""
    attempts: dict[str, list[Entry]] = defaultdict(list)
    for entry in journal:
        attempts[entry.attempt].append(entry)
    return [entries[0] for entries in attempts.values()]
