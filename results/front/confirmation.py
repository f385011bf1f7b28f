"""Fronts at one fidelity, and the runs that confirm their members with further seeds.

A front over many single runs is optimistic, since its members tend to be the lucky ones. So its
members are run again with other seeds and the front is recomputed with means, until every member
has all its seeds.

A supernet search first has a front of inherited accuracies. Its members, thinned if they are many,
are then trained separately with all seeds, and the final front is taken among those: no front
mixes both. A search whose front is trained for more epochs than its trials works in the same way.
All of this is computed from the trials alone and depends on which are complete, not on the order
of completion, so that a killed search resumes where it was.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sharedattn.errors import InputError
from sharedattn.objectives import Objective
from sharedattn.results.database.bulk import gc_paused
from sharedattn.results.front.pareto import FloatArray, non_dominated, to_losses
from sharedattn.results.records import (
    Fidelity,
    LatencySource,
    TrialRole,
    TrialRow,
    TrialState,
)
from sharedattn.tasks import QUALITIES

_ALL_VANILLA = re.compile(r"V\d+( \| V\d+)*")
MAX_RETRAINED = 12
"""Largest number of members of a front to train separately."""

NUM_CHECKED = 4
"""Number of trials off the front that are trained for longer too, to see how well trials rank: on
a front of accuracy against one cost, they rank as the cost does."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A placement with its complete evaluations of one fidelity.

    Attributes:
        runs: the complete trials, one per replicate, ascending. Replicate 0 is the search trial,
            unless that used inherited weights and these runs are trained.
    """

    number: int
    runs: tuple[TrialRow, ...]

    @property
    def spec_key(self) -> str:
        """sha256 of the spec."""
        return self.runs[0].spec_key

    @property
    def placement(self) -> str:
        """The placement's text."""
        return self.runs[0].placement

    @property
    def costs(self) -> Mapping[str, float]:
        """Its costs by the names of `sharedattn.objectives`, equal for all runs."""
        return self.runs[0].costs

    @property
    def macs(self) -> int:
        """Multiply-accumulates per image."""
        return self.runs[0].macs

    @property
    def top1s(self) -> tuple[float, ...]:
        """Accuracy of each run, a fraction."""
        return tuple(run.top1 for run in self.runs if run.top1 is not None)

    @property
    def top1(self) -> float:
        """Mean accuracy over the runs."""
        return math.fsum(self.top1s) / len(self.runs)

    @property
    def top1_standard_error(self) -> float | None:
        """Sample SD of the accuracies over the square root of their number; None for one run."""
        return (
            None
            if len(self.runs) < 2
            else float(np.std(self.top1s, ddof=1)) / math.sqrt(len(self.runs))
        )

    @property
    def latency_source(self) -> LatencySource | None:
        """The source of the latency, or None if the study measures none."""
        return self.runs[0].latency_source

    @property
    def is_reused(self) -> bool:
        """Whether the search trial reused an existing evaluation."""
        return self.runs[0].reused

    @property
    def best_run(self) -> TrialRow:
        """The run to export: the most accurate, of equal ones the earliest replicate."""
        return max(self.runs, key=lambda run: (run.top1 or 0.0, -run.replicate))


@dataclass(frozen=True, slots=True)
class Confirmation:
    """A run that the front still needs.

    Attributes:
        number: number of the candidate's search trial.
        spec_key: sha256 of the candidate's spec.
        placement: text of the candidate's placement.
        replicate: r from 1; the training seed is the study's seed + r.
    """

    number: int
    spec_key: str
    placement: str
    replicate: int


@dataclass(frozen=True, slots=True)
class Front:
    """A study's front at one moment.

    Attributes:
        members: sorted from the cheapest to the most expensive.
        is_confirmed: whether every member has all its seeds and nothing is left to confirm.
        fidelity: the fidelity of all its evaluations, or None for an empty front.
    """

    members: tuple[Candidate, ...]
    is_confirmed: bool
    fidelity: Fidelity | None


def search_fidelity(rows: Iterable[TrialRow]) -> Fidelity | None:
    """The highest fidelity among complete search trials."""
    return _highest(row for row in rows if row.role is TrialRole.SEARCH)


def retrained_fidelity(rows: Sequence[TrialRow]) -> Fidelity | None:
    """The fidelity of trainings after the search, or None where it is that of the search."""
    searched = search_fidelity(rows)
    found = _highest(row for row in rows if row.role is TrialRole.CONFIRM)
    if searched is None or found is None or found.weights != "trained" or found == searched:
        return None
    return found


def _highest(rows: Iterable[TrialRow]) -> Fidelity | None:
    keys = {row.fidelity_key for row in rows if row.fidelity_key is not None}
    return max((Fidelity.from_key(key) for key in keys), key=lambda f: f.rank, default=None)


def candidates(rows: Sequence[TrialRow], num_seeds: int) -> list[Candidate]:
    """All placements with a complete search trial at the highest fidelity.

    Args:
        rows: trials of one study, of both roles.
        num_seeds: K; replicates from K on are ignored, so that all means use the same seeds.

    Returns:
        Candidates by number, one per placement.
    """
    fidelity = search_fidelity(rows)
    return [] if fidelity is None else candidates_at(rows, fidelity, num_seeds)


def candidates_at(rows: Sequence[TrialRow], fidelity: Fidelity, num_seeds: int) -> list[Candidate]:
    """All placements with a complete search trial and evaluations at a fidelity.

    Args:
        rows: trials of one study, of both roles.
        fidelity: the fidelity of the evaluations.
        num_seeds: K, as in `candidates`.
    """
    key = fidelity.key
    numbers: dict[str, int] = {}
    firsts: dict[str, TrialRow] = {}
    further: dict[str, dict[int, TrialRow]] = defaultdict(dict)
    for row in rows:
        if row.state is not TrialState.COMPLETE:
            continue
        if row.role is TrialRole.SEARCH:
            numbers.setdefault(row.spec_key, row.number)
            if row.fidelity_key == key:
                firsts.setdefault(row.spec_key, row)
        elif row.fidelity_key == key and row.replicate < num_seeds:
            further[row.spec_key][row.replicate] = row
    with gc_paused():
        pool = [
            Candidate(first.number, (first,))
            for first in firsts.values()
            if first.spec_key not in further
        ]
        for spec_key, runs in further.items():
            if spec_key in firsts:
                runs[0] = firsts[spec_key]
            if spec_key in numbers and 0 in runs:
                of_all = tuple(runs[replicate] for replicate in sorted(runs))
                pool.append(Candidate(numbers[spec_key], of_all))
    return sorted(pool, key=lambda candidate: candidate.number)


def objective_values(
    pool: Sequence[Candidate],
    objectives: Sequence[Objective],
    averaged: Collection[str] | None = None,
) -> FloatArray:
    """The objective values of candidates, for `sharedattn.results.front.pareto`.

    Args:
        pool: n candidates.
        objectives: m objectives.
        averaged: spec keys of the candidates whose accuracy is the mean over all runs, while the
            others' is that of their first run; None averages all of them.

    Returns:
        (n, m).

    Raises:
        InputError: an objective was not measured.
    """
    columns = []
    for objective in objectives:
        if objective.name not in QUALITIES.values():
            column = [c.costs.get(objective.name) for c in pool]
        else:
            column = [
                c.runs[0].top1
                if len(c.runs) == 1 or (averaged is not None and c.spec_key not in averaged)
                else c.top1
                for c in pool
            ]
        if None in column:
            raise InputError(
                f"trial {pool[column.index(None)].number} has no {objective.name}, which the "
                f"study compares"
            )
        columns.append(column)
    return np.array(columns, dtype=float).reshape(len(objectives), len(pool)).T


def pareto_members(
    pool: Sequence[Candidate],
    objectives: Sequence[Objective],
    averaged: Collection[str] | None = None,
) -> tuple[Candidate, ...]:
    """The non-dominated candidates, including ties, from the cheapest to the most expensive.

    Args:
        pool: candidates.
        objectives: the objectives.
        averaged: as in `objective_values`.
    """
    if not pool:
        return ()
    losses = to_losses(objective_values(pool, objectives, averaged), objectives)
    members = np.flatnonzero(non_dominated(losses)).tolist()
    # Sort by cost, in the order of the objectives, then by accuracy, then by trial number.
    ranks = sorted(members, key=lambda i: (*losses[i, 1:], losses[i, 0], pool[i].number))
    return tuple(pool[i] for i in ranks)


def is_inherited(rows: Iterable[TrialRow]) -> bool:
    """Whether the search's accuracies use inherited weights."""
    searched = search_fidelity(rows)
    return searched is not None and searched.weights == "inherited"


def all_vanilla(pool: Iterable[Candidate]) -> Candidate | None:
    """The deepest all-vanilla placement: the unmodified backbone, if it is at full depth."""
    found = [c for c in pool if _ALL_VANILLA.fullmatch(c.placement)]
    return max(found, key=lambda c: c.macs, default=None)


def to_retrain(
    members: Sequence[Candidate],
    objectives: Sequence[Objective],
    baseline: Candidate | None = None,
) -> tuple[Candidate, ...]:
    """The placements to train separately after a supernet search.

    These are the members of the inherited front; if they exceed `MAX_RETRAINED`, that many, spread
    evenly from the cheapest to the most expensive, since neighbours differ by less than shared
    weights can resolve. Of members equal in every objective only the first is trained: often they
    compute the same, as context broadcasting before a mean over all tokens changes nothing. The
    baseline is added to show what a placement saves.

    Args:
        members: sorted from the cheapest to the most expensive.
        objectives: the objectives to compare for equality.
        baseline: a candidate to train as well, last, or None.
    """
    values = map(tuple, objective_values(members, objectives).tolist())
    firsts: dict[tuple[float, ...], Candidate] = {}
    for member, value in zip(members, values, strict=True):
        firsts.setdefault(value, member)
    chosen = list(firsts.values())
    count = len(chosen)
    if count > MAX_RETRAINED:
        places = (round(i * (count - 1) / (MAX_RETRAINED - 1)) for i in range(MAX_RETRAINED))
        chosen = [chosen[place] for place in places]
    if baseline is not None and baseline not in chosen:
        chosen.append(baseline)
    return tuple(chosen)


def to_check(pool: Sequence[Candidate], members: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Candidates off the front to train for longer, spread evenly over MACs.

    Args:
        pool: all candidates.
        members: those that are trained for longer in any case.
    """
    chosen = {member.spec_key for member in members}
    others = sorted(
        (c for c in pool if c.spec_key not in chosen), key=lambda c: (c.macs, c.number)
    )
    count = min(NUM_CHECKED, len(others))
    return tuple(others[(2 * i + 1) * len(others) // (2 * count)] for i in range(count))


def next_confirmations(
    rows: Sequence[TrialRow],
    objectives: Sequence[Objective],
    num_seeds: int,
    *,
    retrains: bool = False,
) -> tuple[Confirmation, ...]:
    """The runs of the current confirmation round that have not begun.

    After a supernet search, or if the front is trained for more epochs, there is one round: K
    trainings of each member that `to_retrain` chooses, all of them new. With more epochs, one
    training of each candidate that `to_check` chooses follows.

    Otherwise rounds are replayed from the start. In each, the front is computed with means for the
    placements chosen in earlier rounds and with single runs for all others; members not chosen
    yet are chosen, and need K runs. This ends when a round chooses none, or when twice the size
    of the first front has been chosen. A placement with a failed run is excluded: it can never
    have K, and another takes its place.

    Args:
        rows: trials of one study, of both roles.
        objectives: the objectives.
        num_seeds: K, runs per member including the search's own; 1 requests no confirmation, as
            does 0 after a supernet search.
        retrains: whether the front is trained for more epochs than the search's trials.

    Returns:
        The runs in the order of the front. If empty, confirmation is over or waits for running
        confirmations.
    """
    begun = {
        (row.spec_key, row.replicate): row.state for row in rows if row.role is TrialRole.CONFIRM
    }
    pool = candidates(rows, num_seeds)
    if retrains or is_inherited(rows):
        return tuple(
            Confirmation(one.number, one.spec_key, one.placement, replicate)
            for one, replicate in _new_trainings(pool, objectives, num_seeds, checks=retrains)
            if (one.spec_key, replicate) not in begun
        )
    limit = 2 * len(pareto_members(pool, objectives, averaged=()))
    chosen: set[str] = set()
    while num_seeds > 1:
        front = pareto_members(pool, objectives, averaged=chosen)
        elected = [member for member in front if member.spec_key not in chosen]
        elected = elected[: limit - len(chosen)]
        due = [
            Confirmation(member.number, member.spec_key, member.placement, replicate)
            for member in elected
            for replicate in range(1, num_seeds)
            if (member.spec_key, replicate) not in begun
        ]
        running = any(
            begun.get((member.spec_key, replicate)) is TrialState.RUNNING
            for member in elected
            for replicate in range(1, num_seeds)
        )
        if due or running or not elected:
            return tuple(due)
        chosen |= {member.spec_key for member in elected}
        pool = [c for c in pool if c.spec_key not in chosen or len(c.runs) == num_seeds]
    return ()


def _new_trainings(
    pool: Sequence[Candidate], objectives: Sequence[Objective], num_seeds: int, *, checks: bool
) -> list[tuple[Candidate, int]]:
    """The candidates to train anew, each with a replicate; `checks` adds those of `to_check`."""
    members = to_retrain(pareto_members(pool, objectives), objectives, all_vanilla(pool))
    runs = [(member, replicate) for member in members for replicate in range(num_seeds)]
    return runs + ([(one, 0) for one in to_check(pool, members)] if checks else [])


def study_front(
    rows: Sequence[TrialRow],
    objectives: Sequence[Objective],
    num_seeds: int,
    *,
    retrains: bool = False,
) -> Front:
    """The front to show: the confirmed one once confirmation is over, until then one of means.

    The confirmed front is taken among the placements with all K runs. Until then each placement
    enters with the mean of its runs so far, mostly one; with K = 1 that is final. After a
    supernet search the front has inherited accuracies until all trainings of its members have
    ended, then trained accuracies alone; in the same way those of the search's trials, if it is
    trained for more epochs.

    Args:
        rows: trials of one study, of both roles.
        objectives: the objectives.
        num_seeds: K, runs per member including the search's own.
        retrains: as in `next_confirmations`.
    """
    pool = candidates(rows, num_seeds)
    fidelity = search_fidelity(rows)
    retrained = retrained_fidelity(rows)
    asks = retrained is not None or (num_seeds > 1 and not retrains and not is_inherited(rows))
    is_over = asks and not any(
        row.role is TrialRole.CONFIRM and row.state is TrialState.RUNNING for row in rows
    )
    if is_over and not next_confirmations(rows, objectives, num_seeds, retrains=retrains):
        at = pool if retrained is None else candidates_at(rows, retrained, num_seeds)
        confirmed = [c for c in at if len(c.runs) == num_seeds]
        if confirmed:
            members = pareto_members(confirmed, objectives)
            return Front(members, num_seeds > 1, retrained or fidelity)
    return Front(pareto_members(pool, objectives), False, fidelity)
