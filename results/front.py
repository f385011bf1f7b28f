"""Fronts of equals: one fidelity, then enough seeds for every member.

A front over many single runs flatters itself, since its members are those that were lucky. So
its members are run again with other seeds and the front is taken anew on means, until what is on
it has all its seeds. All of this is computed from the trials alone and depends on what is
complete, not on the order of completion: a search that was killed goes on where it was.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from results.bulk import collector_paused
from results.pareto import FloatArray, Objective, non_dominated, to_losses
from results.records import Fidelity, LatencySource, TrialRole, TrialRow, TrialState
from sharedattn.errors import InputError


@dataclass(frozen=True, slots=True)
class Candidate:
    """A placement with its complete evaluations of one fidelity.

    Attributes:
        runs: the complete trial of each replicate; first replicate 0, the search's own.
    """

    runs: tuple[TrialRow, ...]

    @property
    def number(self) -> int:
        """Of the first search trial that evaluated it; its id in every document."""
        return self.runs[0].number

    @property
    def spec_key(self) -> str:
        """sha256 of the spec."""
        return self.runs[0].spec_key

    @property
    def placement(self) -> str:
        """The placement's text."""
        return self.runs[0].placement

    @property
    def params(self) -> int:
        """Parameters."""
        return self.runs[0].params

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
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
    def latency_ms(self) -> float | None:
        """Milliseconds of a forward, the same for all runs; None where the study measures none."""
        return self.runs[0].latency_ms

    @property
    def latency_source(self) -> LatencySource | None:
        """How the latency is known; None where the study measures none."""
        return self.runs[0].latency_source

    @property
    def is_reused(self) -> bool:
        """Whether the search's own run was there before this study asked for it."""
        return self.runs[0].reused

    @property
    def best_run(self) -> TrialRow:
        """The run of best accuracy, the earliest replicate of several: what is exported."""
        return max(self.runs, key=lambda run: (run.top1 or 0.0, -run.replicate))


@dataclass(frozen=True, slots=True)
class Confirmation:
    """One run that the front still asks for.

    Attributes:
        number: the candidate's search trial.
        spec_key: sha256 of its spec.
        placement: its text.
        replicate: r from 1; the training seed is the study's seed + r.
    """

    number: int
    spec_key: str
    placement: str
    replicate: int


@dataclass(frozen=True, slots=True)
class Front:
    """The front of a study at one moment.

    Attributes:
        members: from the cheapest to the dearest.
        is_confirmed: whether every member has all its seeds and nothing is left to confirm.
        fidelity: of every evaluation here; None of an empty front.
    """

    members: tuple[Candidate, ...]
    is_confirmed: bool
    fidelity: Fidelity | None


def highest_fidelity(rows: Iterable[TrialRow]) -> Fidelity | None:
    """The most faithful fidelity among complete trials; a front is drawn at this one."""
    keys = {row.fidelity_key for row in rows if row.fidelity_key is not None}
    return max((Fidelity.from_key(key) for key in keys), key=lambda f: f.rank, default=None)


def candidates(rows: Sequence[TrialRow], num_seeds: int) -> list[Candidate]:
    """Every placement with a complete search trial at the highest fidelity.

    Args:
        rows: trials of one study, of both roles.
        num_seeds: K; replicates from K on are left out, so that means are over equal seeds.

    Returns:
        Ordered by number; a placement that was proposed twice stands once.
    """
    fidelity = highest_fidelity(rows)
    if fidelity is None:
        return []
    key = fidelity.key
    firsts: dict[str, TrialRow] = {}
    further: dict[str, dict[int, TrialRow]] = defaultdict(dict)
    for row in rows:
        if row.fidelity_key != key:
            continue
        if row.role is TrialRole.SEARCH:
            firsts.setdefault(row.spec_key, row)
        elif row.replicate < num_seeds:
            further[row.spec_key][row.replicate] = row
    with collector_paused():
        pool = [Candidate((first,)) for first in firsts.values() if first.spec_key not in further]
        pool += [
            Candidate((firsts[spec_key], *(runs[replicate] for replicate in sorted(runs))))
            for spec_key, runs in further.items()
            if spec_key in firsts
        ]
    return sorted(pool, key=lambda candidate: candidate.number)


def objective_values(
    pool: Sequence[Candidate],
    objectives: Sequence[Objective],
    averaged: Collection[str] | None = None,
) -> FloatArray:
    """Values of candidates, ready for `results.pareto`.

    Args:
        pool: n candidates.
        objectives: m objectives.
        averaged: spec keys whose mean over all runs is meant, while the others are taken by
            their first run alone; None: all of them.

    Returns:
        (n, m).

    Raises:
        InputError: an objective that was not measured.
    """
    columns = []
    for objective in objectives:
        column = [
            c.runs[0].top1
            if objective.name == "top1"
            and (len(c.runs) == 1 or (averaged is not None and c.spec_key not in averaged))
            else getattr(c, objective.name)
            for c in pool
        ]
        if None in column:
            raise InputError(
                f"`every evaluation has the objectives` must hold, but trial "
                f"{pool[column.index(None)].number} has no {objective.name}"
            )
        columns.append(column)
    return np.array(columns, dtype=float).reshape(len(objectives), len(pool)).T


def pareto_members(
    pool: Sequence[Candidate],
    objectives: Sequence[Objective],
    averaged: Collection[str] | None = None,
) -> tuple[Candidate, ...]:
    """The non-dominated candidates, ties kept, from the cheapest to the dearest.

    Args:
        pool: candidates.
        objectives: what is compared.
        averaged: as in `objective_values`.
    """
    if not pool:
        return ()
    losses = to_losses(objective_values(pool, objectives, averaged), objectives)
    members = np.flatnonzero(non_dominated(losses)).tolist()
    # Costs first, in the order of the objectives, then accuracy, then the earlier trial.
    ranks = sorted(members, key=lambda i: (*losses[i, 1:], losses[i, 0], pool[i].number))
    return tuple(pool[i] for i in ranks)


def next_confirmations(
    rows: Sequence[TrialRow], objectives: Sequence[Objective], num_seeds: int
) -> tuple[Confirmation, ...]:
    """The runs of the current round of confirmation that have not been begun.

    Rounds are replayed from the start. In each, the front is taken with the means of those whom
    earlier rounds have chosen and the single runs of everybody else; its members that were not
    chosen yet are chosen, and need K runs. It ends when a round chooses nobody, or when twice
    the size of the first front has been chosen. A placement with a failed run is out: it can
    never have K, and another takes its place.

    Args:
        rows: trials of one study, of both roles.
        objectives: what is compared.
        num_seeds: K, runs per member with the search's own; 1 asks for nothing.

    Returns:
        The runs in the order of the front. Empty means that confirmation is over, or that it
        waits for running confirmations where there are some.
    """
    begun = {
        (row.spec_key, row.replicate): row.state for row in rows if row.role is TrialRole.CONFIRM
    }
    pool = candidates(rows, num_seeds)
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


def study_front(
    rows: Sequence[TrialRow], objectives: Sequence[Objective], num_seeds: int
) -> Front:
    """The front to show: the confirmed one where confirmation is over, else the one of means.

    The confirmed front is taken among the placements with all K runs. Until then a placement
    enters with the mean of what it has, one run of most; with K = 1 that is all there is.

    Args:
        rows: trials of one study, of both roles.
        objectives: what is compared.
        num_seeds: K, runs per member with the search's own.
    """
    pool = candidates(rows, num_seeds)
    is_over = num_seeds > 1 and not any(
        row.role is TrialRole.CONFIRM and row.state is TrialState.RUNNING for row in rows
    )
    if is_over and not next_confirmations(rows, objectives, num_seeds):
        confirmed = [c for c in pool if len(c.runs) == num_seeds]
        if confirmed:
            members = pareto_members(confirmed, objectives)
            return Front(members, True, highest_fidelity(rows))
    return Front(pareto_members(pool, objectives), False, highest_fidelity(rows))
