"""The study loop: propose, evaluate, record, confirm; and go on after anything.

The database is the truth. Everything here is rebuilt from it when a study is taken up again: a
trial that was in flight keeps its number and its placement, a finished one is never run again.

Which trials a proposal sees: with one slot, all before it. With `deterministic` on W slots,
proposal i sees the results of trials up to i - 2W, those after it stand as running: two rounds of
slack keep every slot busy while the order of completion cannot matter. Else whatever has finished.
The same trials are the peers of a trial that is judged at a rung.

Latencies are obtained when a placement is proposed, and one that takes too long is refused then. A
network is timed only while no trial runs.

With early stopping every trial, complete or stopped, is told to the searcher with its accuracy at
the first rung, the one fidelity that all have reached: told of complete ones alone, NSGA-II would
wait for its generations for ever, and told of final accuracies it would compare unequals.
"""

from __future__ import annotations

import itertools
import time
from bisect import insort
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sharedattn.backbones import describe, resolve
from sharedattn.costs.model import CostModel
from sharedattn.errors import InputError
from sharedattn.objectives import ACCURACY, Objective, costs_of
from sharedattn.placement import NetworkSpec, Placement
from sharedattn.results.artifacts.checkpoints import CheckpointStore
from sharedattn.results.artifacts.weights import WeightsStore
from sharedattn.results.database.store import Store
from sharedattn.results.database.writer import StudyWriter
from sharedattn.results.failures import reason_of, shown_reason
from sharedattn.results.front.confirmation import next_confirmations, study_front
from sharedattn.results.front.pareto import hypervolume, non_dominated, to_losses
from sharedattn.results.records.records import (
    AttemptOutcome,
    EvaluationRecord,
    FrontSnapshot,
    RungReport,
    SpecRecord,
    Study,
    TrialParameters,
    TrialRole,
    TrialState,
)
from sharedattn.search.evaluators import Evaluator, Report, Task, evaluation_record
from sharedattn.search.executors import (
    Event,
    Executor,
    Finished,
    Lost,
    Preempted,
    Progressed,
    Raised,
    Reported,
)
from sharedattn.search.executors.retries import TICK_S, Retries, check_room
from sharedattn.search.pruners import EarlyStopping, RungPoint
from sharedattn.search.searchers import PastTrial, Proposal, Searcher
from sharedattn.search.status import Failed, Progress, Running
from sharedattn.search.study.latency import Latencies
from sharedattn.spaces.budget import BudgetedSpace

MAX_PROPOSALS = 10  # of a searcher for one trial, before an unseen placement is drawn
MAX_DRAWS = 200  # of unseen placements, before they are listed
MAX_LISTED = 1000  # placements that are all timed before a bound on latency ends a search


@dataclass(frozen=True, slots=True)
class Flight:
    """A trial in an executor's slot.

    Attributes:
        trial_id: its row.
        attempt: number of the attempt; a result of an earlier one is refused.
        role: search or confirm.
        number: its number within its role.
        task: what is evaluated.
        retries: how often it has lost its worker or its slot in this run.
    """

    trial_id: int
    attempt: int
    role: TrialRole
    number: int
    task: Task
    retries: Retries = Retries()

    @property
    def name(self) -> str:
        """What it is, for people: a confirmation is of a placement, and told by its seed."""
        if self.role is TrialRole.SEARCH:
            return f"search {self.number}"
        return f"seed {self.task.seed}"


@dataclass(frozen=True, slots=True)
class _Member:
    """A member of the search's front: trial number, evaluation, values by objective."""

    number: int
    evaluation_key: str
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _FrontChange:
    """What a finished trial does to the front.

    Attributes:
        entered: whether it is on the front now.
        off: evaluations off the front: its own, or those of the members it dominates.
    """

    entered: bool
    off: tuple[str, ...]


class StudyLoop:
    """Drives one study to its asked number of trials, then confirms its front.

    Args:
        store: the database.
        driver: the right to write to the study.
        study: the study.
        space: the legal placements inside the budget.
        objectives: what is optimised.
        evaluator: measures placements; also names evaluations.
        searcher: proposes; new, as it is fed from the database here.
        executor: runs evaluations.
        deterministic: whether the order of completion must not matter.
        stopping: judges trials at the evaluator's rungs; None: none is stopped.
        weights: where the evaluator keeps weights; None: it keeps none.
        checkpoints: where it keeps unfinished trainings; None: nowhere.
        latencies: those of placements; None: no objective or bound asks for them.
        on_progress: called whenever something has happened, and every `TICK_S` where nothing has.
    """

    def __init__(
        self,
        *,
        store: Store,
        driver: StudyWriter,
        study: Study,
        space: BudgetedSpace,
        objectives: Sequence[Objective],
        evaluator: Evaluator,
        searcher: Searcher,
        executor: Executor,
        deterministic: bool,
        stopping: EarlyStopping | None = None,
        weights: WeightsStore | None = None,
        checkpoints: CheckpointStore | None = None,
        latencies: Latencies | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self._store = store
        self._driver = driver
        self._study = study
        self._space = space
        self._objectives = tuple(objectives)
        self._evaluator = evaluator
        self._searcher = searcher
        self._executor = executor
        self._stopping = stopping
        self._weights = weights
        self._checkpoints = checkpoints
        self._latencies = latencies
        self._on_progress = on_progress
        self._backbone = space.space.backbone
        self._costs = CostModel(self._backbone)
        self._waits = deterministic or executor.num_slots == 1
        self._lag = 2 * executor.num_slots if deterministic and executor.num_slots > 1 else 1
        self._tickets = itertools.count()
        self._flights: dict[int, Flight] = {}
        self._running: dict[int, Running] = {}  # by ticket, of the flights
        self._failed: list[Failed] = []
        self._held: list[Flight] = []  # search trials that begin once all of a round are timed
        self._trials: list[PastTrial] = []  # search trials by number
        self._unfinished: set[int] = set()  # numbers of search trials in flight
        self._untold: list[int] = []  # ended search trials that the searcher has not heard of
        self._seen: set[Placement] = set()
        self._latency_ms: dict[Placement, float] = {}
        self._least_costs: dict[str, float] = {}  # the least found of costs that are checked
        self._is_over = False  # nothing within the bounds that are checked is left to propose
        self._rungs: dict[int, list[RungPoint]] = defaultdict(list)  # by epoch, then number
        self._judged: dict[tuple[int, int], RungReport] = {}  # by number and epoch
        self._front: list[_Member] = []
        self._num_complete = 0
        self._num_confirmed = 0
        self._num_timed = 0  # search trials that ended in this run, and their seconds in slots
        self._timed_s = 0.0
        self._study_attributes = store.searcher_attributes(study)
        self._started = time.monotonic()

    @property
    def exhausted(self) -> bool:
        """Whether no placement inside the budget is left to be proposed."""
        return self._is_over or len(self._seen) >= self._space.in_budget

    def run(self) -> None:
        """Run until all asked trials are finished and the front is confirmed.

        Raises:
            InputError: no placement is within a bound that is checked once it was drawn.
            StorageError: the database failed; what it had committed is kept.
        """
        self._recover()
        self._search()
        self._confirm()
        if self._store.study(self._study.record.name).finished_at is None:
            self._driver.finish_study()

    # Taking a study up again

    def _recover(self) -> None:
        """Feed the searcher from the database, and start again what was in flight."""
        in_flight = self._recover_search()
        in_flight += self._store.trial_parameters(
            self._study, TrialRole.CONFIRM, [TrialState.RUNNING]
        )
        self._num_confirmed = sum(
            number
            for state, number in self._store.counts(self._study, TrialRole.CONFIRM).items()
            if state is not TrialState.RUNNING
        )
        flights = [self._restarted(row) for row in in_flight]
        if self._checkpoints is not None:
            kept = {f.task.checkpoint for f in flights if f.task.checkpoint is not None}
            self._checkpoints.sweep(kept | self._shared_checkpoints, f"{self._study.record.name}/")
        self._resume(flights)

    def _resume(self, flights: list[Flight]) -> None:
        """Run what was in flight; with fewer slots than before some wait for a free one."""
        for flight in flights:
            self._reuse_or_fly(flight)

    @property
    def _shared_checkpoints(self) -> frozenset[str]:
        """Checkpoints of what is no trial."""
        return frozenset()

    def _recover_search(self) -> list[TrialParameters]:
        """Feed the searcher from the search trials; those that were in flight."""
        for report in self._store.rung_reports(self._study):
            self._note_rung(
                report.number,
                report.macs,
                RungReport(report.epoch, report.top1, report.loss, report.goes_on),
            )
        in_flight: list[TrialParameters] = []
        for row in self._store.trial_parameters(self._study, TrialRole.SEARCH):
            trial = PastTrial(
                number=row.number,
                placement=placement_of(row),
                attributes=row.sampler_attributes,
                values=self._told(row.number, row.state, row.top1, row.costs),
                failed=row.state is TrialState.FAILED,
            )
            self._trials.append(trial)
            self._seen.add(trial.placement)
            if "latency_ms" in row.costs:
                self._latency_ms[trial.placement] = row.costs["latency_ms"]
            if row.state is TrialState.RUNNING:
                in_flight.append(row)
            else:
                self._untold.append(row.number)
        for trial in self._trials:
            # As in a run that was never stopped: each is begun after what it had heard of.
            self._tell_before(trial.number)
            self._searcher.begin(trial)
        for stored in self._store.trials(self._study, TrialRole.SEARCH):
            if stored.state is TrialState.COMPLETE:
                assert stored.evaluation_key is not None
                assert stored.top1 is not None
                values = self._values(stored.top1, stored.costs)
                self._enter_front(_Member(stored.number, stored.evaluation_key, values))
                self._num_complete += 1
        return in_flight

    def _restarted(self, row: TrialParameters) -> Flight:
        """A trial that was in flight when the driver went away, under its next attempt."""
        attempt = self._driver.restart_trial(
            row.id, attempt=row.num_attempts, traceback="the driver went away"
        )
        if row.role is TrialRole.SEARCH:
            self._unfinished.add(row.number)
        spec = resolve(NetworkSpec(self._backbone, placement_of(row)))
        task = self._task(spec, row.replicate, row.role, row.number)
        return Flight(row.id, attempt, row.role, row.number, task)

    def _task(self, spec: NetworkSpec, replicate: int, role: TrialRole, number: int) -> Task:
        return self._evaluator.task(
            spec,
            self._study.record.seed + replicate,
            checkpoint=f"{self._study.record.name}/{role.value}-{number}",
        )

    # The search

    def _search(self) -> None:
        while True:
            while self._executor.num_free > len(self._held) and self._may_begin(len(self._trials)):
                self._begin_search_trial(len(self._trials))
            while self._held:
                self._fly(self._held.pop(0))
            if not self._flights:
                return
            self._collect(TrialRole.SEARCH)

    def _may_begin(self, number: int) -> bool:
        if number >= self._study.record.num_trials or self.exhausted:
            return False
        return not self._waits or min(self._unfinished, default=number) > number - self._lag

    def _tell_before(self, number: int) -> None:
        """Tell the searcher what the proposal of trial `number` may know, by number."""
        known = sorted(n for n in self._untold if n <= number - self._lag)
        for ended in known:
            self._searcher.finish(self._trials[ended])
        self._untold = [n for n in self._untold if n > number - self._lag]

    def _begin_search_trial(self, number: int) -> None:
        self._tell_before(number)
        proposal = self._propose(number)
        if proposal is None:
            self._is_over = True
            return
        changed = self._take(number, proposal)
        self._unfinished.add(number)
        self._begin(
            TrialRole.SEARCH,
            number,
            proposal.placement,
            replicate=0,
            proposal=proposal,
            searcher_attributes=changed,
        )

    def _take(self, number: int, proposal: Proposal) -> dict[str, object]:
        """Let a proposal be the next trial; the searcher's notes on the study that it changes."""
        changed = {
            key: value
            for key, value in proposal.study_attributes.items()
            if self._study_attributes.get(key) != value
        }
        self._study_attributes |= changed
        trial = PastTrial(
            number=number, placement=proposal.placement, attributes=proposal.attributes
        )
        self._trials.append(trial)
        self._seen.add(trial.placement)
        self._searcher.begin(trial)
        return changed

    def _propose(self, number: int) -> Proposal | None:
        """The searcher's proposal, unless every one it makes has been evaluated, or is refused.

        Returns:
            The proposal; None: no placement within the bounds that are checked once a placement
            was drawn, as on latency, was found any more.

        Raises:
            InputError: there is none for the first trial.
        """
        proposal = self._searcher.propose(number, 0)
        if number == 0:
            # The backbone as published is the measure of what a placement saves.
            baseline = Placement.all_vanilla(
                [s.max_depth for s in describe(self._backbone).stages]
            )
            if baseline in self._space and self._admit(baseline):
                return self._instead(proposal, baseline)
        for attempt in range(1, MAX_PROPOSALS):
            if self._admit(proposal.placement):
                return proposal
            proposal = self._searcher.propose(number, attempt)
        if self._admit(proposal.placement):
            return proposal
        rng = self._searcher.generator(number, MAX_PROPOSALS)
        for _ in range(MAX_DRAWS):
            placement = self._space.sample(rng)
            if self._admit(placement):
                return self._instead(proposal, placement)
        if not self._checked_bounds:
            unseen = [p for p in self._space.enumerate() if p not in self._seen]
            return self._instead(proposal, rng.choice(unseen))
        if self._space.in_budget <= MAX_LISTED:
            rest = filter(self._admit, self._space.enumerate())
        else:
            cheapest = self._space.cheapest  # of the whole space: perhaps outside the budget
            rest = filter(self._admit, [cheapest] if cheapest in self._space else [])
        last = next(rest, None)
        if last is not None:
            return self._instead(proposal, last)
        if number == 0:
            raise InputError(
                f"no placement that was drawn is within {' and '.join(self._checked_bounds)}; "
                f"{self._least_found}; raise the bound"
            )
        return None

    @property
    def _checked_bounds(self) -> list[str]:
        """The bounds that a placement is checked against once it was drawn, for people."""
        bounds = [f"--max {o.name}={bound:g}" for o, bound in self._space.budget.uncounted]
        if self._latencies is not None and self._latencies.max_ms is not None:
            bounds.append(f"--max-latency-ms {self._latencies.max_ms:g}")
        return bounds

    @property
    def _least_found(self) -> str:
        """The least of each cost in `_checked_bounds` among the placements drawn, for people."""
        texts = [f"the least {name} is {least:g}" for name, least in self._least_costs.items()]
        if self._latency_ms:
            fastest = min(self._latency_ms.values())
            texts.append(f"the fastest of {len(self._latency_ms)} takes {fastest:.3g} ms")
        return ", ".join(texts)

    def _is_within_checked(self, placement: Placement) -> bool:
        """Whether a placement keeps the bounds that its space does not count with."""
        bounds = self._space.budget.uncounted
        costs = costs_of(self._costs, placement, (objective for objective, _ in bounds))
        for name, value in costs.items():
            self._least_costs[name] = min(value, self._least_costs.get(name, value))
        return self._space.budget.admits(costs)

    def _admit(self, placement: Placement) -> bool:
        """Time a placement that is new, and say whether it may become a trial.

        It may where it was not proposed before, costs no more than is allowed, and is fast enough.
        """
        if placement in self._seen or not self._is_within_checked(placement):
            return False
        if self._latencies is None:
            return True
        if placement not in self._latency_ms:
            spec = resolve(NetworkSpec(self._backbone, placement))
            if self._latencies.needs_quiet(spec):
                while self._flights:
                    self._collect(TrialRole.SEARCH)
            record = self._spec_record(spec, placement)
            self._latency_ms[placement] = self._latencies.of(spec, record)
        max_ms = self._latencies.max_ms
        return max_ms is None or self._latency_ms[placement] <= max_ms

    def _spec_record(self, spec: NetworkSpec, placement: Placement) -> SpecRecord:
        cost = self._costs.cost(placement)
        return SpecRecord.of(
            spec, params=cost.params, macs=cost.macs, attention_bytes=cost.attention_bytes
        )

    @staticmethod
    def _instead(proposal: Proposal, placement: Placement) -> Proposal:
        return Proposal(
            placement=placement,
            attributes=proposal.attributes,
            study_attributes=proposal.study_attributes,
        )

    # The confirmation

    def _confirm(self) -> None:
        seeds = self._study.record.confirm_seeds
        while True:
            rows = self._store.trials(self._study)
            due = next_confirmations(rows, self._objectives, seeds)
            if not due and not self._flights:
                break
            number = sum(row.role is TrialRole.CONFIRM for row in rows)
            for confirmation in due:
                while not self._executor.num_free:
                    self._collect(TrialRole.CONFIRM)
                self._begin(
                    TrialRole.CONFIRM,
                    number,
                    Placement.parse(confirmation.placement),
                    replicate=confirmation.replicate,
                )
                number += 1
            while self._flights:
                self._collect(TrialRole.CONFIRM)
        members = {
            member.spec_key for member in study_front(rows, self._objectives, seeds).members
        }
        if self._weights is None:
            return
        kept = self._weights.keys()
        for row in rows:
            if row.evaluation_key is None or row.evaluation_key not in kept:
                continue
            if row.spec_key not in members:
                self._forget_weights(row.evaluation_key)
            elif row.weights_sha256 is not None:
                # What an attempt that was given up has written, perhaps after the trial's end.
                self._weights.delete(row.evaluation_key, but=row.weights_sha256)

    # One trial's way

    def _begin(
        self,
        role: TrialRole,
        number: int,
        placement: Placement,
        *,
        replicate: int,
        proposal: Proposal | None = None,
        searcher_attributes: dict[str, object] | None = None,
    ) -> None:
        """Record a trial as running, and start it or take its evaluation from the database."""
        spec = resolve(NetworkSpec(self._backbone, placement))
        trial_id = self._driver.begin_trial(
            number=number,
            spec=self._spec_record(spec, placement),
            role=role,
            replicate=replicate,
            proposed=dict(proposal.proposed) if proposal else None,
            repaired=self._searcher.encoding.encode(placement) if proposal else None,
            sampler_attributes=dict(proposal.attributes) if proposal else None,
            searcher_attributes=searcher_attributes,
        )
        task = self._task(spec, replicate, role, number)
        # Trials begin in rounds where networks are timed: all slots' placements are timed while
        # none runs.
        is_held = role is TrialRole.SEARCH and self._latencies is not None
        self._reuse_or_fly(Flight(trial_id, 1, role, number, task), is_held=is_held)

    def _reuse_or_fly(self, flight: Flight, *, is_held: bool = False) -> None:
        """Take a running trial's evaluation from the database, or have it made, or hold it."""
        known = self._store.find_evaluation(flight.task.identity)
        if known is None:
            if is_held:
                self._held.append(flight)
            else:
                self._fly(flight)
            return
        if flight.role is TrialRole.SEARCH:
            self._note_rungs_of(flight, known.record)
        front = self._end(flight, TrialState.COMPLETE, known.record.top1)
        self._driver.reuse_evaluation(
            flight.trial_id, known, attempt=flight.attempt, snapshot=self._snapshot(front)
        )
        self._forget_after(flight, front)

    def _fly(self, flight: Flight) -> None:
        while not self._executor.num_free:
            self._collect(flight.role)
        ticket = next(self._tickets)
        self._flights[ticket] = flight
        self._running[ticket] = Running(
            name=flight.name,
            placement=str(flight.task.spec.placement),
            role=flight.role,
            number=flight.number,
            started_at=time.monotonic(),
        )
        self._executor.submit(ticket, flight.task)
        self._report(flight.role)

    def _collect(self, phase: TrialRole) -> None:
        """Wait until something happens to a trial, and record it.

        What trials say of their progress ends no wait: whether they do makes no difference to
        what is proposed when.
        """
        waits = True
        while waits:
            for ticket, event in self._executor.wait(TICK_S):
                if isinstance(event, Progressed):
                    self._note(ticket, progress=event.progress)
                    continue
                waits = False
                if isinstance(event, Reported):
                    self._note(ticket, top1=event.report.top1)
                    self._at_rung(ticket, event.report)
                else:
                    is_end = not isinstance(event, Lost | Preempted)
                    self._record(self._land(ticket, is_end=is_end), event)
            self._report(phase)

    def _note(self, ticket: int, **changes: Any) -> None:
        self._running[ticket] = replace(self._running[ticket], **changes)

    def _land(self, ticket: int, *, is_end: bool = True) -> Flight:
        """Take a trial out of the flights; `is_end`: it is not begun again."""
        running = self._running.pop(ticket)
        if is_end and running.role is TrialRole.SEARCH:
            self._num_timed += 1
            self._timed_s += time.monotonic() - running.started_at
        return self._flights.pop(ticket)

    def _record(self, flight: Flight, event: Event) -> None:
        """Commit what became of a trial, then let searcher and front know."""
        # With room again a trial that had none is run under its number: it stays in flight.
        check_room(event)
        if isinstance(event, Lost | Preempted):
            self._fly_again(flight, event)
            return
        if isinstance(event, Raised):
            self._fail(flight, event.traceback)
            return
        assert isinstance(event, Finished)
        try:
            evaluation = evaluation_record(flight.task, event.measurement, event.threads)
        except ValueError as error:
            # NaN is no accuracy: the trial is a failed one, and the search goes on.
            self._fail(flight, f"ValueError: {error}")
            if self._weights is not None:
                self._weights.delete(flight.task.identity.key)
            return
        front = self._end(flight, TrialState.COMPLETE, evaluation.top1)
        self._driver.finish_trial(
            flight.trial_id,
            evaluation,
            attempt=flight.attempt,
            snapshot=self._snapshot(front),
        )
        self._forget_after(flight, front)

    def _fly_again(self, flight: Flight, event: Lost | Preempted) -> None:
        """Begin the next attempt at a trial that lost its worker, or give it up."""
        lost = isinstance(event, Lost)
        outcome = AttemptOutcome.LOST if lost else AttemptOutcome.PREEMPTED
        again = replace(flight, retries=flight.retries.after(event))
        if again.retries.exhausted:
            self._fail(flight, event.reason, outcome)
            return
        attempt = self._driver.restart_trial(
            flight.trial_id, attempt=flight.attempt, outcome=outcome, traceback=event.reason
        )
        self._fly(replace(again, attempt=attempt))

    def _fail(
        self, flight: Flight, traceback: str, outcome: AttemptOutcome = AttemptOutcome.FAILED
    ) -> None:
        reason = shown_reason(reason_of(traceback))
        placement = str(flight.task.spec.placement)
        self._failed.append(Failed(name=flight.name, placement=placement, reason=reason))
        self._end(flight, TrialState.FAILED)
        self._driver.fail_trial(
            flight.trial_id, traceback, attempt=flight.attempt, outcome=outcome
        )
        self._forget_after(flight, None)

    # Rungs

    def _at_rung(self, ticket: int, report: Report) -> None:
        """Let a trial that has reached a rung go on, or stop it for good."""
        flight = self._flights[ticket]
        try:
            goes_on = flight.role is TrialRole.CONFIRM or self._judge(flight, report)
        except ValueError as error:
            # As at the end: a rung without a number makes the trial a failed one.
            self._land(ticket)
            self._executor.stop(ticket)
            self._fail(flight, f"ValueError: {error}")
            return
        if goes_on:
            self._executor.go_on(ticket)
            return
        # Its end is in the database by now: what ends it afterwards cannot make it complete.
        self._land(ticket)
        self._executor.stop(ticket)
        self._end(flight, TrialState.PRUNED)
        self._forget_after(flight, None)

    def _judge(self, flight: Flight, report: Report) -> bool:
        """Whether a search trial goes on from a rung; the judgement is committed."""
        known = self._judged.get((flight.number, report.epoch))
        if known is not None:
            return known.goes_on
        judged = RungReport(report.epoch, report.top1, report.loss, goes_on=True)
        macs = self._costs.totals(flight.task.spec.placement).macs
        newest = flight.number - self._lag if self._waits else len(self._trials)
        peers = [peer for peer in self._rungs[report.epoch] if peer.number <= newest]
        point = RungPoint(flight.number, report.top1, macs)
        if self._stopping is None or self._stopping.goes_on(point, report.epoch, peers):
            self._driver.report_rung(flight.trial_id, judged, attempt=flight.attempt)
        else:
            judged = replace(judged, goes_on=False)
            self._driver.prune_trial(flight.trial_id, judged, attempt=flight.attempt)
        self._note_rung(flight.number, macs, judged)
        return judged.goes_on

    def _note_rungs_of(self, flight: Flight, evaluation: EvaluationRecord) -> None:
        """Let a trial whose evaluation is there already pass its rungs: it costs nothing."""
        macs = self._costs.totals(flight.task.spec.placement).macs
        for epoch in evaluation.learning_curve:
            rung, measured = epoch["epoch"], epoch["validation"]
            if rung in self._evaluator.rungs and (flight.number, rung) not in self._judged:
                passed = RungReport(rung, measured["top1"], measured["loss"], goes_on=True)
                self._driver.report_rung(flight.trial_id, passed, attempt=flight.attempt)
                self._note_rung(flight.number, macs, passed)

    def _note_rung(self, number: int, macs: int, report: RungReport) -> None:
        self._judged[number, report.epoch] = report
        point = RungPoint(number, report.top1, macs)
        insort(self._rungs[report.epoch], point, key=lambda point: point.number)

    def _told(
        self, number: int, state: TrialState, top1: float | None, costs: Mapping[str, float]
    ) -> tuple[float, ...] | None:
        """What the searcher hears of a trial; None while it runs and where it has failed."""
        if self._stopping is not None and state in (TrialState.COMPLETE, TrialState.PRUNED):
            top1 = self._judged[number, self._evaluator.rungs[0]].top1
        return None if top1 is None else self._values(top1, costs)

    # What a trial's end changes

    def _end(
        self, flight: Flight, state: TrialState, top1: float | None = None
    ) -> _FrontChange | None:
        """Take a trial's end into account.

        Args:
            flight: the trial.
            state: what it has become.
            top1: of a complete one.

        Returns:
            How the search's front changes; None where nothing is compared.
        """
        if flight.role is TrialRole.CONFIRM:
            self._num_confirmed += 1
            return None
        number = flight.number
        trial = self._trials[number]
        costs = self._costs_of(trial.placement)
        told = self._told(number, state, top1, costs)
        self._trials[number] = replace(trial, values=told, failed=state is TrialState.FAILED)
        self._unfinished.discard(number)
        self._untold.append(number)
        if top1 is None:
            return None
        self._num_complete += 1
        key = flight.task.identity.key
        before = self._front
        self._enter_front(_Member(number, key, self._values(top1, costs)))
        if self._front is before:
            return _FrontChange(entered=False, off=(key,))
        left = tuple(m.evaluation_key for m in before if m not in self._front)
        return _FrontChange(entered=True, off=left)

    def _snapshot(self, change: _FrontChange | None) -> FrontSnapshot | None:
        """The front as it stands, where it has changed."""
        if change is None or not change.entered:
            return None
        points = np.array([member.values for member in self._front])
        reference = self._study.record.reference_point
        return FrontSnapshot(
            num_complete=self._num_complete,
            members=tuple(member.number for member in self._front),
            hypervolume=hypervolume(points, self._objectives, reference),
        )

    def _forget_after(self, flight: Flight, change: _FrontChange | None) -> None:
        """Delete an ended trial's checkpoint, and the weights of what is not on the front."""
        if self._checkpoints is not None and flight.task.checkpoint is not None:
            self._checkpoints.delete(flight.task.checkpoint)
        for key in change.off if change is not None else ():
            self._forget_weights(key)

    def _costs_of(self, placement: Placement) -> dict[str, float]:
        """The costs of a placement that the study compares, by name."""
        costs = costs_of(self._costs, placement, self._objectives)
        if placement in self._latency_ms:
            costs["latency_ms"] = self._latency_ms[placement]
        return costs

    def _values(self, top1: float, costs: Mapping[str, float]) -> tuple[float, ...]:
        by_name = {**costs, ACCURACY: top1}
        return tuple(float(by_name[objective.name]) for objective in self._objectives)

    def _enter_front(self, member: _Member) -> None:
        """Make the front anew where a member belongs to it."""
        candidates = [*self._front, member]
        losses = to_losses(np.array([member.values for member in candidates]), self._objectives)
        stays = non_dominated(losses)
        if stays[-1]:
            self._front = [m for m, s in zip(candidates, stays, strict=True) if s]

    def _forget_weights(self, evaluation_key: str) -> None:
        """Delete weights that left the front, unless another study may have them on its own.

        The database says so first.
        """
        if (
            self._weights is not None
            and self._weights.has(evaluation_key)
            and not self._store.other_studies_with(evaluation_key, self._study)
        ):
            self._driver.record_weights(evaluation_key, None)
            self._weights.delete(evaluation_key)

    @property
    def _num_ended(self) -> int:
        return len(self._trials) - len(self._unfinished)

    @property
    def _search_left_s(self) -> float | None:
        """Seconds until the last search trial ends, if the others take as long as those so far.

        None before a trial has ended or said how long it takes, and once none is left.
        """
        now = time.monotonic()
        running = [r for r in self._running.values() if r.role is TrialRole.SEARCH]
        known = {
            r.number: r.progress.left_s
            for r in running
            if r.progress is not None and r.progress.left_s is not None
        }
        num_timed, timed_s = self._num_timed, self._timed_s
        if not num_timed:
            estimated = [r for r in running if r.number in known]
            num_timed = len(estimated)
            timed_s = sum(now - r.started_at + known[r.number] for r in estimated)
        total = min(self._study.record.num_trials, self._space.in_budget)
        num_left = 0 if self._is_over else total - len(self._trials) + len(self._held)
        if not num_timed or (num_left <= 0 and not running):
            return None
        mean_s = timed_s / num_timed
        lefts = [known.get(r.number, max(0.0, mean_s - now + r.started_at)) for r in running]
        in_turn_s = (max(0, num_left) * mean_s + sum(lefts)) / self._executor.num_slots
        return max([in_turn_s, *lefts])

    def _report(self, phase: TrialRole, shared: tuple[Running, ...] = ()) -> None:
        """Tell whoever watches how far the study is.

        Args:
            phase: where it is.
            shared: what runs that is no trial.
        """
        if self._on_progress is not None:
            self._on_progress(
                Progress(
                    phase=phase,
                    num_ended=self._num_ended,
                    num_confirmed=self._num_confirmed,
                    running=(*shared, *self._running.values()),
                    failed=self._failed,
                    search_left_s=self._search_left_s if phase is TrialRole.SEARCH else None,
                    load_rows=lambda: self._store.trials(self._study),
                    wall_time_s=time.monotonic() - self._started,
                )
            )


def placement_of(row: TrialParameters) -> Placement:
    """The placement of a trial."""
    return NetworkSpec.from_json(row.spec_document).placement
