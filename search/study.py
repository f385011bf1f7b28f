"""The study loop: propose, evaluate, record, confirm; and go on after anything.

The database is the truth. Everything here is rebuilt from it when a study is taken up again: a
trial that was in flight keeps its number and its placement, a finished one is never run again.

Which trials a proposal sees: with one slot, all before it. With `deterministic` on W slots,
proposal i sees the results of trials up to i - 2W, those after it stand as running: two rounds of
slack keep every slot busy while the order of completion cannot matter. Else whatever has finished.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from results.driver import StudyDriver
from results.errors import StorageError
from results.front import next_confirmations, study_front
from results.pareto import Objective, hypervolume, non_dominated, to_losses
from results.records import (
    FrontSnapshot,
    SpecRecord,
    Study,
    TrialParameters,
    TrialRole,
    TrialRow,
    TrialState,
)
from results.store import Store
from results.weights import WeightsStore
from search.evaluators import Evaluator, Task, evaluation_record
from search.executors import DiskFull, Executor, Finished, Lost, Outcome
from search.searchers import PastTrial, Proposal, Searcher
from sharedattn.backbones import describe, resolve
from sharedattn.cost import CostModel
from sharedattn.placement import NetworkSpec, Placement
from spaces.budget import CountedSpace

MAX_PROPOSALS = 10  # of a searcher for one trial, before an unseen placement is drawn
MAX_DRAWS = 200  # of unseen placements, before they are listed
MAX_ATTEMPTS = 2  # at a trial whose worker dies


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a study is, for whoever watches.

    Attributes:
        phase: search, or confirm once all search trials are finished.
        num_ended: search trials that are complete, pruned or failed.
        running: placements in flight.
        load_rows: reads every trial with its results from the database.
        wall_time_s: seconds since this run began.
    """

    phase: TrialRole
    num_ended: int
    running: tuple[str, ...]
    load_rows: Callable[[], list[TrialRow]]
    wall_time_s: float


@dataclass(frozen=True, slots=True)
class _Flight:
    """A trial in an executor's slot.

    Attributes:
        trial_id: its row.
        role: search or confirm.
        number: its number within its role.
        task: what is evaluated.
        num_deaths: workers that died under it in this run.
    """

    trial_id: int
    role: TrialRole
    number: int
    task: Task
    num_deaths: int = 0


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
        weights: where the evaluator keeps weights; None: it keeps none.
        on_progress: called whenever something has happened.
    """

    def __init__(
        self,
        *,
        store: Store,
        driver: StudyDriver,
        study: Study,
        space: CountedSpace,
        objectives: Sequence[Objective],
        evaluator: Evaluator,
        searcher: Searcher,
        executor: Executor,
        deterministic: bool,
        weights: WeightsStore | None = None,
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
        self._weights = weights
        self._on_progress = on_progress
        self._backbone = space.space.backbone
        self._costs = CostModel(self._backbone)
        self._waits = deterministic or executor.num_slots == 1
        self._lag = 2 * executor.num_slots if deterministic and executor.num_slots > 1 else 1
        self._tickets = itertools.count()
        self._flights: dict[int, _Flight] = {}
        self._trials: list[PastTrial] = []  # search trials by number
        self._unfinished: set[int] = set()  # numbers of search trials in flight
        self._untold: list[int] = []  # ended search trials that the searcher has not heard of
        self._seen: set[Placement] = set()
        self._front: list[_Member] = []
        self._study_attributes = store.searcher_attributes(study)
        self._started = time.monotonic()

    @property
    def exhausted(self) -> bool:
        """Whether every placement inside the budget has been proposed."""
        return len(self._seen) >= self._space.in_budget

    def run(self) -> None:
        """Run until all asked trials are finished and the front is confirmed.

        Raises:
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
        in_flight: list[TrialParameters] = []
        for row in self._store.trial_parameters(self._study, TrialRole.SEARCH):
            trial = PastTrial(
                number=row.number,
                placement=_placement(row),
                attributes=row.sampler_attributes,
                values=self._values(row.top1, row.macs, row.params),
                failed=row.state in (TrialState.FAILED, TrialState.PRUNED),
            )
            self._trials.append(trial)
            self._seen.add(trial.placement)
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
                self._enter_front(stored.number, stored.evaluation_key)
        in_flight += self._store.trial_parameters(
            self._study, TrialRole.CONFIRM, [TrialState.RUNNING]
        )
        # With fewer slots than before some of them wait for a free one.
        for row in in_flight:
            self._driver.restart_trial(row.id, traceback="the driver went away")
            if row.role is TrialRole.SEARCH:
                self._unfinished.add(row.number)
            self._reuse_or_fly(_Flight(row.id, row.role, row.number, self._task(row)))

    def _task(self, row: TrialParameters) -> Task:
        spec = resolve(NetworkSpec(self._backbone, _placement(row)))
        return self._evaluator.task(spec, self._study.record.seed + row.replicate)

    # The search

    def _search(self) -> None:
        while True:
            while self._executor.num_free and self._may_begin(len(self._trials)):
                self._begin_search_trial(len(self._trials))
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
        trial = PastTrial(
            number=number, placement=proposal.placement, attributes=proposal.attributes
        )
        changed = {
            key: value
            for key, value in proposal.study_attributes.items()
            if self._study_attributes.get(key) != value
        }
        self._study_attributes |= changed
        self._trials.append(trial)
        self._seen.add(trial.placement)
        self._unfinished.add(number)
        self._searcher.begin(trial)
        self._begin(
            TrialRole.SEARCH,
            number,
            trial.placement,
            replicate=0,
            proposal=proposal,
            searcher_attributes=changed,
        )

    def _propose(self, number: int) -> Proposal:
        """The searcher's proposal, unless every one it makes has been evaluated already."""
        proposal = self._searcher.propose(number, 0)
        if number == 0:
            # The backbone as published is the measure of what a placement saves.
            baseline = Placement.all_vanilla(
                [s.max_depth for s in describe(self._backbone).stages]
            )
            if baseline in self._space:
                return self._instead(proposal, baseline)
        for attempt in range(1, MAX_PROPOSALS):
            if proposal.placement not in self._seen:
                return proposal
            proposal = self._searcher.propose(number, attempt)
        if proposal.placement not in self._seen:
            return proposal
        rng = self._searcher.generator(number, MAX_PROPOSALS)
        for _ in range(MAX_DRAWS):
            placement = self._space.sample(rng)
            if placement not in self._seen:
                return self._instead(proposal, placement)
        unseen = [p for p in self._space.enumerate() if p not in self._seen]
        return self._instead(proposal, rng.choice(unseen))

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
        for row in rows:
            if row.evaluation_key is not None and row.spec_key not in members:
                self._forget_weights(row.evaluation_key)

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
        cost = self._costs.cost(placement)
        trial_id = self._driver.begin_trial(
            number=number,
            spec=SpecRecord.of(
                spec,
                params=cost.params,
                macs=cost.macs,
                attention_bytes=cost.attention_bytes,
            ),
            role=role,
            replicate=replicate,
            proposed=dict(proposal.proposed) if proposal else None,
            repaired=self._searcher.encoding.encode(placement) if proposal else None,
            sampler_attributes=dict(proposal.attributes) if proposal else None,
            searcher_attributes=searcher_attributes,
        )
        task = self._evaluator.task(spec, self._study.record.seed + replicate)
        self._reuse_or_fly(_Flight(trial_id, role, number, task))

    def _reuse_or_fly(self, flight: _Flight) -> None:
        """Take a running trial's evaluation from the database, or have it made."""
        known = self._store.find_evaluation(flight.task.identity)
        if known is None:
            self._fly(flight)
            return
        front = self._end(flight, known.record.top1)
        self._driver.reuse_evaluation(flight.trial_id, known, snapshot=self._snapshot(front))
        self._forget_weights_off(front)

    def _fly(self, flight: _Flight) -> None:
        while not self._executor.num_free:
            self._collect(flight.role)
        ticket = next(self._tickets)
        self._flights[ticket] = flight
        self._executor.submit(ticket, flight.task)
        self._report(flight.role)

    def _collect(self, phase: TrialRole) -> None:
        for ticket, outcome in self._executor.wait():
            self._record(self._flights.pop(ticket), outcome)
        self._report(phase)

    def _record(self, flight: _Flight, outcome: Outcome) -> None:
        """Commit what became of a trial, then let searcher and front know."""
        if isinstance(outcome, DiskFull):
            # The trial stays as one in flight: with room again it is run under its number.
            raise StorageError(
                f"`there is room for weights` must hold, but {outcome.reason}; free some and run "
                f"the same command again, all finished trials are kept"
            )
        if isinstance(outcome, Lost) and flight.num_deaths + 1 < MAX_ATTEMPTS:
            self._driver.restart_trial(flight.trial_id, traceback=outcome.reason)
            self._fly(
                _Flight(
                    flight.trial_id,
                    flight.role,
                    flight.number,
                    flight.task,
                    flight.num_deaths + 1,
                )
            )
            return
        if not isinstance(outcome, Finished):
            why = outcome.reason if isinstance(outcome, Lost) else outcome.traceback
            self._fail(flight, why)
            return
        try:
            evaluation = evaluation_record(flight.task, outcome.measurement, outcome.threads)
        except ValueError as error:
            # NaN is no accuracy: the trial is a failed one, and the search goes on.
            self._fail(flight, f"ValueError: {error}")
            if self._weights is not None:
                self._weights.delete(flight.task.identity.key)
            return
        front = self._end(flight, evaluation.top1)
        self._driver.finish_trial(flight.trial_id, evaluation, snapshot=self._snapshot(front))
        self._forget_weights_off(front)

    def _fail(self, flight: _Flight, traceback: str) -> None:
        self._end(flight, None)
        self._driver.fail_trial(flight.trial_id, traceback)

    def _end(self, flight: _Flight, top1: float | None) -> _FrontChange | None:
        """Take a trial's end into account; `top1` is None where it failed.

        Returns:
            How the search's front changes; None where nothing is compared.
        """
        if flight.role is TrialRole.CONFIRM:
            return None
        number = flight.number
        trial = self._trials[number]
        cost = self._costs.totals(trial.placement)
        values = self._values(top1, cost.macs, cost.params)
        self._trials[number] = PastTrial(
            number=number,
            placement=trial.placement,
            attributes=trial.attributes,
            values=values,
            failed=values is None,
        )
        self._unfinished.discard(number)
        self._untold.append(number)
        if values is None:
            return None
        key = flight.task.identity.key
        before = self._front
        self._enter_front(number, key)
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
            num_complete=sum(trial.values is not None for trial in self._trials),
            members=tuple(member.number for member in self._front),
            hypervolume=hypervolume(points, self._objectives, reference),
        )

    def _forget_weights_off(self, change: _FrontChange | None) -> None:
        """Delete the weights of what is not, or no longer, on the front."""
        for key in change.off if change is not None else ():
            self._forget_weights(key)

    def _values(self, top1: float | None, macs: int, params: int) -> tuple[float, ...] | None:
        if top1 is None:
            return None
        by_name = {"top1": top1, "macs": float(macs), "params": float(params)}
        return tuple(by_name[objective.name] for objective in self._objectives)

    def _enter_front(self, number: int, evaluation_key: str) -> None:
        """Make the front anew where trial `number` belongs to it."""
        values = self._trials[number].values
        assert values is not None
        candidates = [*self._front, _Member(number, evaluation_key, values)]
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

    def _report(self, phase: TrialRole) -> None:
        if self._on_progress is not None:
            self._on_progress(
                Progress(
                    phase=phase,
                    num_ended=len(self._trials) - len(self._unfinished),
                    running=tuple(str(f.task.spec.placement) for f in self._flights.values()),
                    load_rows=lambda: self._store.trials(self._study),
                    wall_time_s=time.monotonic() - self._started,
                )
            )


def _placement(row: TrialParameters) -> Placement:
    return NetworkSpec.from_json(row.spec_document).placement
