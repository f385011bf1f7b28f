"""Runs trials in slots: starts them, judges them at rungs, records their ends, retries them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sharedattn.placement import Placement, ResolvedSpec
from sharedattn.results.records import AttemptOutcome, EpochMetrics, TrialParameters, TrialRole
from sharedattn.search.evaluators import Task
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
from sharedattn.search.executors.retries import TICK_S, check_can_go_on
from sharedattn.search.status import Running
from sharedattn.search.study.context import StudyContext, naive_network_of, placement_of
from sharedattn.search.study.judging import RungJudge
from sharedattn.search.study.progress_board import ProgressBoard
from sharedattn.search.study.proposing import AcceptedProposal
from sharedattn.search.study.recording import RunningTrial, TrialRecorder
from sharedattn.spaces.naive import NaiveNetwork


class TrialRunner:
    """Runs trials in an executor's slots.

    Args:
        context: the study.
        executor: runs evaluations.
        judge: judges search trials at rungs.
        recorder: commits outcomes of trials.
        board: shows what runs.

    Attributes:
        deferred: trials that start at the next `launch_deferred`.
    """

    def __init__(
        self,
        context: StudyContext,
        executor: Executor,
        judge: RungJudge,
        recorder: TrialRecorder,
        board: ProgressBoard,
    ) -> None:
        self.deferred: list[RunningTrial] = []
        self._context = context
        self._executor = executor
        self._judge = judge
        self._recorder = recorder
        self._board = board
        self._tickets = itertools.count()
        self._in_slots: dict[int, RunningTrial] = {}  # by ticket

    @property
    def is_idle(self) -> bool:
        """Whether no trial is in a slot."""
        return not self._in_slots

    @property
    def has_room(self) -> bool:
        """Whether a slot is free beyond those for deferred trials."""
        return self._executor.num_free > len(self.deferred)

    def start(self, trial: RunningTrial, *, is_deferred: bool = False) -> None:
        """Complete a trial from a stored evaluation, or run it, now or at `launch_deferred`."""
        known = self._context.store.find_evaluation(trial.task.identity)
        if known is not None:
            self._recorder.reuse(trial, known)
        elif is_deferred:
            self.deferred.append(trial)
        else:
            self._launch(trial)

    def launch_deferred(self) -> None:
        """Put the deferred trials into slots."""
        while self.deferred:
            self._launch(self.deferred.pop(0))

    def expect(self, role: TrialRole, num_trials: int) -> None:
        """Tell the display how many trials of a role are asked for in all."""
        self._board.num_asked[role] = num_trials

    def wait_for_slot(self, phase: TrialRole) -> None:
        """Block until a slot is free."""
        while not self._executor.num_free:
            self.collect(phase)

    def wait_until_idle(self, phase: TrialRole) -> None:
        """Block until no trial is in a slot."""
        while self._in_slots:
            self.collect(phase)

    def collect(self, phase: TrialRole) -> None:
        """Wait until something happens to a trial, and record it.

        Progress messages do not end the wait, so that they cannot affect the proposals.

        Args:
            phase: current phase of the study, for the display.

        Raises:
            StorageError: the database failed, or the disk is full.
        """
        waits = True
        while waits:
            for ticket, event in self._executor.wait(TICK_S):
                if isinstance(event, Progressed):
                    self._board.progressed(ticket, event.progress)
                    continue
                waits = False
                if isinstance(event, Reported):
                    self._board.reported(ticket, event.metrics.top1)
                    self._at_rung(ticket, event.metrics)
                else:
                    has_ended = not isinstance(event, Lost | Preempted)
                    self._record(self._take_out(ticket, has_ended=has_ended), event)
            self._board.show(phase)

    def _launch(self, trial: RunningTrial) -> None:
        self.wait_for_slot(trial.role)
        ticket = next(self._tickets)
        self._in_slots[ticket] = trial
        self._board.launched(
            ticket,
            Running(
                name=trial.name,
                placement=str(trial.task.spec.placement),
                role=trial.role,
                number=trial.number,
                started_at=time.monotonic(),
            ),
        )
        self._executor.submit(ticket, trial.task)
        self._board.show(trial.role)

    def _take_out(self, ticket: int, *, has_ended: bool = True) -> RunningTrial:
        self._board.left_slot(ticket, has_ended=has_ended)
        return self._in_slots.pop(ticket)

    def _record(self, trial: RunningTrial, event: Event) -> None:
        # The trial stays recorded as running: once that is mended, it is retried by its number.
        check_can_go_on(event)
        if isinstance(event, Lost | Preempted):
            self._launch_again(trial, event)
        elif isinstance(event, Raised):
            self._recorder.fail(trial, event.traceback)
        else:
            assert isinstance(event, Finished)
            self._recorder.finish(trial, event)

    def _launch_again(self, trial: RunningTrial, event: Lost | Preempted) -> None:
        """Start the next attempt at a trial that lost its worker, or give it up."""
        lost = isinstance(event, Lost)
        outcome = AttemptOutcome.LOST if lost else AttemptOutcome.PREEMPTED
        again = replace(trial, retries=trial.retries.after(event))
        if again.retries.exhausted:
            self._recorder.fail(trial, event.reason, outcome)
            return
        attempt = self._context.driver.restart_trial(
            trial.trial_id, attempt=trial.attempt, outcome=outcome, traceback=event.reason
        )
        self._launch(replace(again, attempt=attempt))

    def _at_rung(self, ticket: int, metrics: EpochMetrics) -> None:
        """Let a trial that has reached a rung go on, or stop it for good."""
        trial = self._in_slots[ticket]
        goes_on = trial.role is not TrialRole.SEARCH or self._judge.lets_on(
            trial.number,
            trial.task.spec.placement,
            metrics,
            trial_id=trial.trial_id,
            attempt=trial.attempt,
        )
        if goes_on:
            self._executor.go_on(ticket)
            return
        # Its end is committed by now: a late result cannot make it complete.
        self._take_out(ticket)
        self._executor.stop(ticket)
        self._recorder.prune(trial)


class TrialStarter:
    """Creates the rows of trials, and starts them.

    Args:
        context: the study.
        runner: runs them.
        adapt: maps an evaluator's task to the task to run, with the same seed and checkpoint.
    """

    def __init__(
        self, context: StudyContext, runner: TrialRunner, adapt: Callable[[Task], Task]
    ) -> None:
        self._context = context
        self._runner = runner
        self._adapt = adapt

    def begin_search(self, proposal: AcceptedProposal, *, is_deferred: bool) -> None:
        """Record the next search trial as running, and start it."""
        self._begin(
            TrialRole.SEARCH,
            proposal.number,
            proposal.placement,
            is_deferred=is_deferred,
            proposed=dict(proposal.proposed),
            repaired=dict(proposal.parameters),
            sampler_attributes=dict(proposal.attributes),
            searcher_attributes=dict(proposal.changed_notes),
        )

    def begin_confirmation(self, number: int, placement: Placement, replicate: int) -> None:
        """Record a run with another seed as running, and start it.

        Args:
            number: its number among the confirmations.
            placement: the placement to run.
            replicate: r from 1; the training seed is the study's seed + r.
        """
        self._begin(TrialRole.CONFIRM, number, placement, replicate=replicate)

    def begin_baseline(self, number: int, network: NaiveNetwork, replicate: int) -> None:
        """Record the training of a network made by hand as running, and start it.

        Args:
            number: its number among the baselines' trainings.
            network: the network.
            replicate: r; the training seed is the study's seed + r.
        """
        trial_id = self._context.driver.begin_trial(
            number=number,
            spec=self._context.spec_record_elsewhere(network.spec),
            role=TrialRole.BASELINE,
            replicate=replicate,
            proposed={"kind": network.kind.value},
        )
        task = self._baseline_task(network, replicate, number)
        self._runner.start(RunningTrial(trial_id, 1, TrialRole.BASELINE, number, task))

    def restart(self, row: TrialParameters) -> RunningTrial:
        """The next attempt at a trial that ran when the driver ended; not started yet."""
        attempt = self._context.driver.restart_trial(
            row.id, attempt=row.num_attempts, traceback="the driver went away"
        )
        if row.role is TrialRole.BASELINE:
            task = self._baseline_task(naive_network_of(row), row.replicate, row.number)
        else:
            spec = self._context.resolved(placement_of(row))
            task = self._task(spec, row.replicate, row.role, row.number)
        return RunningTrial(row.id, attempt, row.role, row.number, task)

    def _begin(
        self,
        role: TrialRole,
        number: int,
        placement: Placement,
        *,
        replicate: int = 0,
        is_deferred: bool = False,
        proposed: dict[str, Any] | None = None,
        repaired: dict[str, Any] | None = None,
        sampler_attributes: dict[str, Any] | None = None,
        searcher_attributes: dict[str, Any] | None = None,
    ) -> None:
        spec = self._context.resolved(placement)
        trial_id = self._context.driver.begin_trial(
            number=number,
            spec=self._context.spec_record(spec, placement),
            role=role,
            replicate=replicate,
            proposed=proposed,
            repaired=repaired,
            sampler_attributes=sampler_attributes,
            searcher_attributes=searcher_attributes,
        )
        task = self._task(spec, replicate, role, number)
        trial = RunningTrial(trial_id, 1, role, number, task)
        self._runner.start(trial, is_deferred=is_deferred)

    def _baseline_task(self, network: NaiveNetwork, replicate: int, number: int) -> Task:
        return self._context.evaluator.baseline_task(
            network,
            self._context.study.record.seed + replicate,
            checkpoint=f"{self._context.name}/{TrialRole.BASELINE.value}-{number}",
        )

    def _task(self, spec: ResolvedSpec, replicate: int, role: TrialRole, number: int) -> Task:
        evaluator = self._context.evaluator
        make = evaluator.task if role is TrialRole.SEARCH else evaluator.final_task
        return self._adapt(
            make(
                spec,
                self._context.study.record.seed + replicate,
                checkpoint=f"{self._context.name}/{role.value}-{number}",
            )
        )
