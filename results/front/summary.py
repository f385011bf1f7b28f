"""A study's front, warnings and counts, read from the database once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from sharedattn.data.balance import imbalance_warnings
from sharedattn.errors import InputError
from sharedattn.objectives import (
    Objective,
    cost_objective,
    cost_objectives,
    parse_objectives,
    shown_costs,
)
from sharedattn.results.database.retry import retry_on_lost_connection
from sharedattn.results.database.store import Store
from sharedattn.results.failures import Failure, failure_lines, failures_of
from sharedattn.results.front.baselines import (
    Baseline,
    baseline_document,
    baseline_lines,
    baseline_warnings,
    baselines_of,
    in_budget_document,
)
from sharedattn.results.front.confirmation import (
    Candidate,
    Front,
    all_vanilla,
    candidates,
    candidates_at,
    objective_values,
    study_front,
)
from sharedattn.results.front.early_stopping import Stopping, stopping_of
from sharedattn.results.front.guessing import (
    Guessing,
    guessing_of,
    guessing_warnings,
    known_class_counts,
)
from sharedattn.results.front.inheritance import Inheritance, inheritance_of
from sharedattn.results.front.pareto import hypervolume, hypervolume_history, knee
from sharedattn.results.front.ranking import Ranking, ranking_of
from sharedattn.results.front.start import below_start, start_warnings
from sharedattn.results.records import (
    START_NOTE,
    Document,
    LatencySource,
    RungRow,
    Start,
    Study,
    TrialRole,
    TrialRow,
    TrialState,
)

_LIMIT = re.compile(r"(\w+)\s*(<=?)\s*(.+)")


@dataclass(frozen=True)
class StudySummary:
    """A study with its trials and front.

    Attributes:
        study: the study.
        rows: its trials of both roles.
        rung_reports: its search trials' metrics at rungs.
        start: the trained model that it starts from, or None without one.
        baseline_rows: runs of networks that a person would try by hand.
        baselines: those networks that have a complete run.
    """

    study: Study
    rows: list[TrialRow]
    rung_reports: Sequence[RungRow] = ()
    start: Start | None = None
    baseline_rows: Sequence[TrialRow] = ()
    baselines: tuple[Baseline, ...] = ()

    @classmethod
    def read(cls, store: Store, study: Study) -> StudySummary:
        """Read a study and its trials, consistently, from the database."""

        def read_once() -> StudySummary:
            with store.database.consistent():
                start = store.note(study, START_NOTE)
                return cls(
                    store.study(study.record.name),
                    store.trials.of(study),
                    store.trials.rung_reports(study),
                    None if start is None else Start.from_json(start),
                    runs := store.trials.of(study, TrialRole.BASELINE),
                    baselines_of(study, runs, store.trials.parameters(study, TrialRole.BASELINE)),
                )

        return retry_on_lost_connection(read_once)

    @cached_property
    def objectives(self) -> tuple[Objective, ...]:
        """The study's objectives."""
        return parse_objectives(self.study.record.objectives)

    @cached_property
    def candidates(self) -> list[Candidate]:
        """All placements with a complete search trial, by number."""
        return candidates(self.rows, self.study.record.confirm_seeds)

    @cached_property
    def front(self) -> Front:
        """The front to show; see `study_front`."""
        record = self.study.record
        return study_front(
            self.rows, self.objectives, record.confirm_seeds, retrains=record.retrains
        )

    @cached_property
    def stopping(self) -> Stopping | None:
        """The summary of early stopping, or None if no trial was stopped."""
        fidelity = self.front.fidelity
        return stopping_of(
            self.rows, self.rung_reports, None if fidelity is None else fidelity.epochs
        )

    @cached_property
    def inheritance(self) -> Inheritance | None:
        """Supernet scores compared with separate trainings, or None without a supernet."""
        record = self.study.record
        return inheritance_of(
            self.rows,
            self.objectives,
            record.confirm_seeds,
            record.reference_point,
            fine_tuned=record.fine_tunes,
        )

    @cached_property
    def failures(self) -> tuple[Failure, ...]:
        """Reasons for which trials of all roles failed, the most frequent first."""
        return failures_of((*self.rows, *self.baseline_rows))

    @cached_property
    def ranking(self) -> Ranking | None:
        """How the search's trials rank placements that were trained for longer, or None."""
        return ranking_of(self.rows, self.objectives) if self.study.record.retrains else None

    @property
    def failure_lines(self) -> list[str]:
        """The failures, for people."""
        return failure_lines(self.failures)

    @cached_property
    def guessing(self) -> Guessing | None:
        """The accuracy of guessing on the front's images, or None before any evaluation."""
        record, front = self.study.record, self.front
        if front.fidelity is None:
            return None
        pool = candidates_at(self.rows, front.fidelity, record.confirm_seeds)
        num_images = min((m.runs[0].num_images or 0 for m in front.members), default=0)
        return guessing_of(record, num_images, len(pool))

    @cached_property
    def guessers(self) -> tuple[Candidate, ...]:
        """Members of the front that are not significantly above guessing."""
        guessing = self.guessing
        if guessing is None:
            return ()
        return tuple(member for member in self.front.members if member.top1 <= guessing.bar)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about start and front, one sentence each."""
        record = self.study.record
        found = [] if self.start is None else start_warnings(record, self.start)
        if self.guessing is not None:
            found += guessing_warnings(self.front, self.guessers, self.guessing)
        if self.ranking is not None:
            found += self.ranking.warnings
        found += baseline_warnings(self.baselines, self.front.members, record.max_macs)
        names = record.data.get("classes") or ()
        return (*found, *imbalance_warnings(known_class_counts(record.data) or (), names))

    @cached_property
    def hypervolume(self) -> float:
        """The front's hypervolume, a fraction of the box to the reference point."""
        values = objective_values(self.front.members, self.objectives)
        return hypervolume(values, self.objectives, self.study.record.reference_point)

    @cached_property
    def knee(self) -> Candidate | None:
        """The front's knee, or None if the front is empty."""
        members = self.front.members
        if not members:
            return None
        return members[knee(objective_values(members, self.objectives), self.objectives)]

    @cached_property
    def best(self) -> Candidate | None:
        """The front's most accurate member, the cheapest of equals."""
        return most_accurate(self.front.members)

    @cached_property
    def baseline(self) -> Candidate | None:
        """The deepest all-vanilla placement evaluated in the same way as the front's members."""
        pool = self.candidates
        if self.inheritance is not None and self.front.fidelity != self.inheritance.fidelity:
            pool = [gap.trained for gap in self.inheritance.gaps]
        return all_vanilla(pool)

    @cached_property
    def latency_text(self) -> str | None:
        """How latencies were measured, for people, or None without latencies."""
        found = self.study.record.latency
        if found is None:
            return None
        how = {
            LatencySource.TABLE: "summed from parts",
            LatencySource.NETWORK: "each network measured whole",
        }[LatencySource(found["source"])]
        return f"{how}; {found['where']}"

    def count(self, role: TrialRole) -> dict[str, int]:
        """Number of trials of a role by lower-case state."""
        states = Counter(row.state for row in self.rows if row.role is role)
        return {state.value.lower(): states[state] for state in TrialState}

    def pick(self, expression: str) -> Candidate:
        """Find the placement that an expression selects.

        Args:
            expression: `knee`, `best`, the number of a search trial, or a limit on any cost, such
                as `macs<1.2G`, `params<=3M` or `latency_ms<3`, which selects the front's most
                accurate member within it.

        Raises:
            InputError: the expression is invalid, or selects nothing.
        """
        text = expression.strip()
        limit = _LIMIT.fullmatch(text)
        if (text in ("knee", "best") or limit) and not self.front.members:
            raise InputError(
                f"study {self.study.record.name!r} has no complete trial yet: there is nothing "
                f"to pick"
            )
        if text in ("knee", "best"):
            found = self.knee if text == "knee" else self.best
            assert found is not None
            return found
        if limit:
            cost = cost_objective(limit[1])
            return self._pick_within(cost, limit[2] == "<=", cost.unit.parse(limit[3]))
        if re.fullmatch(r"#?\d+", text):
            return self._pick_number(int(text.removeprefix("#")))
        raise InputError(
            f"the pick {expression!r} is unknown; "
            f'write knee, best, an id, or a limit such as "macs<1.2G"'
        )

    def _pick_within(self, cost: Objective, inclusive: bool, bound: float) -> Candidate:
        members = self.front.members
        if any(cost.name not in member.costs for member in members):
            known = ", ".join(o.name for o in cost_objectives() if o.name in members[0].costs)
            raise InputError(
                f"study {self.study.record.name!r} has no {cost.name}; pick by {known}"
            )
        values = [member.costs[cost.name] for member in members]
        within = [
            member
            for member, value in zip(members, values, strict=True)
            if value < bound or (inclusive and value == bound)
        ]
        if not within:
            least = min(values)
            raise InputError(
                f"no member of the front has {cost.name} below {cost.unit.format(bound)}; the "
                f"least is {least} ({cost.unit.format(least)})"
            )
        return max(within, key=lambda member: member.top1)

    def _pick_number(self, number: int) -> Candidate:
        # A placement proposed twice is listed once, under its first number.
        spec_keys = {
            row.spec_key
            for row in self.rows
            if row.role is TrialRole.SEARCH and row.number == number
        }
        trained = [] if self.inheritance is None else [g.trained for g in self.inheritance.gaps]
        for candidate in (*trained, *self.candidates):
            if candidate.spec_key in spec_keys:
                return candidate
        raise InputError(
            f"trial {number} of study {self.study.record.name!r} is "
            f"{'not complete' if spec_keys else 'not there'}; give the id of a complete search "
            f"trial"
        )


def start_lines(summary: StudySummary) -> list[str]:
    """What a search's start scores, and what is below it by how much; none without a start."""
    start, inherited = summary.start, summary.inheritance
    if start is None:
        return []
    lines = [str(start)]
    if inherited is not None:
        best = most_accurate(inherited.front)
        lines += below_start("the supernet's best score", best, start)
    if inherited is None or summary.front.fidelity != inherited.fidelity:
        lines += below_start("the front's best", summary.best, start)
    return lines


def comparison_lines(summary: StudySummary) -> list[str]:
    """How the front compares with networks made by hand; none without any."""
    return baseline_lines(summary.baselines, summary.front.members, summary.study.record.max_macs)


def most_accurate(candidates: Sequence[Candidate]) -> Candidate | None:
    """The first of the most accurate candidates; None of none."""
    return max(candidates, key=lambda candidate: candidate.top1, default=None)


def hypervolume_rises(summary: StudySummary) -> tuple[list[int], list[float]]:
    """Numbers of the search trials that raised the hypervolume, and the values after them.

    The hypervolume is that of single runs, without confirmations.
    """
    values = objective_values(summary.candidates, summary.objectives, averaged=())
    reference_point = summary.study.record.reference_point
    history = hypervolume_history(values, summary.objectives, reference_point)
    rises = np.flatnonzero(np.diff(history, prepend=0.0) > 0)
    return [summary.candidates[i].number for i in rises], history[rises].tolist()


def front_document(
    summary: StudySummary, *, report: Path | None = None, wall_time_s: float | None = None
) -> Document:
    """The document that `search --json` and `front --json` print.

    Args:
        summary: the study.
        report: path of its report, if there is one.
        wall_time_s: wall time of this run; defaults to that of the whole study, from its start
            to its last finished trial, including pauses.
    """
    front, quality = summary.front, summary.study.record.quality
    if wall_time_s is None:
        ends = [row.finished_at for row in summary.rows if row.finished_at is not None]
        wall_time_s = (max(ends) - summary.study.created_at).total_seconds() if ends else 0.0
    return {
        "study": summary.study.record.name,
        "fingerprint": summary.study.record.fingerprint,
        "start": None if summary.start is None else summary.start.summary(quality),
        "trials": summary.count(TrialRole.SEARCH),
        "failures": [failure.to_json() for failure in summary.failures],
        "warnings": list(summary.warnings),
        "stopping": None if summary.stopping is None else summary.stopping.to_json(),
        "confirmations": summary.count(TrialRole.CONFIRM),
        "objectives": list(summary.study.record.objectives),
        "front": [_member_document(member, summary.objectives) for member in front.members],
        "baselines": [baseline_document(b, front.members, quality) for b in summary.baselines],
        "in_budget": in_budget_document(
            summary.baselines, front.members, summary.study.record.max_macs
        ),
        "confirmed": front.is_confirmed,
        "ranking": None if summary.ranking is None else summary.ranking.to_json(quality),
        "inherited": None if summary.inheritance is None else summary.inheritance.to_json(),
        "knee": None if summary.knee is None else summary.knee.number,
        "hypervolume": summary.hypervolume,
        "reference_point": dict(summary.study.record.reference_point),
        "latency": _latency_document(summary.study),
        "fidelity": None if front.fidelity is None else front.fidelity.to_json(),
        "report": None if report is None else str(report),
        "wall_time_s": wall_time_s,
    }


def _latency_document(study: Study) -> Document | None:
    """How latencies were measured, or None without latencies.

    Leaves out the layer times that studies of earlier versions have.
    """
    found = study.record.latency
    if found is None:
        return None
    return {name: value for name, value in found.items() if name != "parts"}


def _member_document(member: Candidate, objectives: Sequence[Objective]) -> Document:
    quality = objectives[0].name
    return {
        "id": member.number,
        "placement": member.placement,
        quality: member.top1,
        f"{quality}_standard_error": member.top1_standard_error,
        f"{quality}_by_seed": {
            str(run.seed): top1 for run, top1 in zip(member.runs, member.top1s, strict=True)
        },
        **{cost.name: member.costs.get(cost.name) for cost in shown_costs(objectives)},
        "latency_source": None if member.latency_source is None else member.latency_source.value,
        "seeds": len(member.runs),
        "reused": member.is_reused,
        "spec_key": member.spec_key,
    }
