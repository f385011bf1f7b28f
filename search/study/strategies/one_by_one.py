"""A search in which each trial is proposed, evaluated and told separately."""

from __future__ import annotations

from collections.abc import Sequence

from sharedattn.results.records import TrialParameters, TrialRole, TrialState
from sharedattn.search.searchers import PastTrial
from sharedattn.search.study.context import StudyContext, placement_of
from sharedattn.search.study.front_tracker import CompleteTrial
from sharedattn.search.study.progress_board import SearchCounts
from sharedattn.search.study.recording import RunningTrial
from sharedattn.search.study.strategies.base import SearchStrategy, StudyParts


class OneByOne(SearchStrategy):
    """Starts a trial when a slot is free and the results that its proposal needs are known.

    Args:
        begins_in_rounds: whether to propose trials for all slots before starting any, needed
            when networks are timed while no trial runs.
    """

    def __init__(self, *, begins_in_rounds: bool = False) -> None:
        self._begins_in_rounds = begins_in_rounds

    def restore(self, parts: StudyParts) -> list[TrialParameters]:
        context = parts.context
        parts.judge.restore()
        running = []
        for row in context.store.trials.parameters(context.study, TrialRole.SEARCH):
            parts.history.restore(
                _past_trial(parts, row), has_ended=row.state is not TrialState.RUNNING
            )
            if "latency_ms" in row.costs:
                context.latency_ms[placement_of(row)] = row.costs["latency_ms"]
            if row.state is TrialState.RUNNING:
                running.append(row)
        parts.history.replay()
        parts.front.restore(_complete_trials(context))
        return running

    def search(
        self, parts: StudyParts, restarted: Sequence[RunningTrial]
    ) -> Sequence[RunningTrial]:
        for trial in restarted:
            # If there are fewer slots than before, some trials wait for a free one.
            parts.runner.start(trial)
        while True:
            while parts.runner.has_room and self._may_begin(parts):
                number = len(parts.history.trials)
                parts.history.tell_before(number)
                proposal = parts.proposer.accept_next()
                if proposal is not None:
                    parts.starter.begin_search(proposal, is_deferred=self._begins_in_rounds)
            parts.runner.launch_deferred()
            if parts.runner.is_idle:
                return ()
            parts.runner.collect(TrialRole.SEARCH)

    def counts(self, parts: StudyParts) -> SearchCounts:
        return SearchCounts(
            num_ended=parts.history.num_ended,
            num_left=parts.proposer.num_left + len(parts.runner.deferred),
        )

    def _may_begin(self, parts: StudyParts) -> bool:
        number = len(parts.history.trials)
        if number >= parts.context.study.record.num_trials or parts.proposer.exhausted:
            return False
        return parts.history.may_start(number)


def _past_trial(parts: StudyParts, row: TrialParameters) -> PastTrial:
    told = parts.judge.told_accuracies(row.number, row.state, row.top1)
    return PastTrial(
        number=row.number,
        placement=placement_of(row),
        attributes=row.sampler_attributes,
        values=parts.context.values(told[0], row.costs) if told else None,
        failed=row.state is TrialState.FAILED,
        accuracies=told,
    )


def _complete_trials(context: StudyContext) -> list[CompleteTrial]:
    found = []
    for row in context.store.trials.of(context.study, TrialRole.SEARCH):
        if row.state is TrialState.COMPLETE:
            assert row.evaluation_key is not None
            assert row.top1 is not None
            values = context.values(row.top1, row.costs)
            found.append(
                CompleteTrial(number=row.number, evaluation_key=row.evaluation_key, values=values)
            )
    return found
