"""Rungs: whether a trial goes on from one, and what the searcher hears of a trial's accuracy.

The peers of a trial that is judged are those that its proposal might have known of, as far as they
have reached the rung.

With a pruner every trial, complete or pruned, is told to the searcher with its accuracy at the
first rung, the one fidelity that all have reached: told of complete ones alone, NSGA-II would wait
for its generations for ever, and told of final accuracies it would compare unequals.
"""

from __future__ import annotations

from bisect import insort
from collections import defaultdict
from dataclasses import replace

from sharedattn.placement import Placement
from sharedattn.results.records import EvaluationRecord, RungReport, TrialState
from sharedattn.search.evaluators import Report
from sharedattn.search.pruners import Pruner, RungPoint
from sharedattn.search.study.context import StudyContext, Visibility


class RungJudge:
    """Judges search trials at rungs, and commits each judgement.

    Args:
        context: the study.
        pruner: says whether a trial is stopped; None: none is.
        visibility: which trials are a trial's peers.
    """

    def __init__(
        self, context: StudyContext, pruner: Pruner | None, visibility: Visibility
    ) -> None:
        self._context = context
        self._pruner = pruner
        self._visibility = visibility
        self._judged: dict[tuple[int, int], RungReport] = {}  # by number and epoch
        self._points: dict[int, list[RungPoint]] = defaultdict(list)  # by epoch, then number

    def restore(self) -> None:
        """Read the judgements that are stored."""
        for row in self._context.store.trials.rung_reports(self._context.study):
            report = RungReport(row.epoch, row.top1, row.loss, row.goes_on)
            self._note(RungPoint(row.number, row.top1, row.macs), report)

    def lets_on(
        self, number: int, placement: Placement, report: Report, *, trial_id: int, attempt: int
    ) -> bool:
        """Judge a trial that has reached a rung; one that was judged there before stays so.

        Args:
            number: the search trial's number.
            placement: what it evaluates.
            report: what it has measured.
            trial_id: its row.
            attempt: number of its attempt.

        Raises:
            ValueError: the report holds no accuracy.
        """
        known = self._judged.get((number, report.epoch))
        if known is not None:
            return known.goes_on
        judged = RungReport(report.epoch, report.top1, report.loss, goes_on=True)
        point = self._point(number, placement, report.top1)
        if self._pruner is not None and self._pruner.should_prune(
            point, report.epoch, self._peers(number, report.epoch)
        ):
            judged = replace(judged, goes_on=False)
            self._context.driver.prune_trial(trial_id, judged, attempt=attempt)
        else:
            self._context.driver.report_rung(trial_id, judged, attempt=attempt)
        self._note(point, judged)
        return judged.goes_on

    def let_pass(
        self,
        number: int,
        placement: Placement,
        evaluation: EvaluationRecord,
        *,
        trial_id: int,
        attempt: int,
    ) -> None:
        """Let a trial whose evaluation is there already pass its rungs: it costs nothing.

        Args:
            number: the search trial's number.
            placement: what it evaluates.
            evaluation: what was measured.
            trial_id: its row.
            attempt: number of its attempt.
        """
        for epoch in evaluation.learning_curve:
            rung, measured = epoch["epoch"], epoch["validation"]
            if rung in self._context.evaluator.rungs and (number, rung) not in self._judged:
                passed = RungReport(rung, measured["top1"], measured["loss"], goes_on=True)
                self._context.driver.report_rung(trial_id, passed, attempt=attempt)
                self._note(self._point(number, placement, passed.top1), passed)

    def told_top1(self, number: int, state: TrialState, top1: float | None) -> float | None:
        """The accuracy of a trial that the searcher hears.

        Args:
            number: the search trial's number.
            state: what it is.
            top1: of a complete one.

        Returns:
            A fraction; None while it runs, and where it has failed.
        """
        if self._pruner is not None and state in (TrialState.COMPLETE, TrialState.PRUNED):
            return self._judged[number, self._context.evaluator.rungs[0]].top1
        return top1

    def _point(self, number: int, placement: Placement, top1: float) -> RungPoint:
        return RungPoint(number, top1, self._context.costs.totals(placement).macs)

    def _peers(self, number: int, epoch: int) -> list[RungPoint]:
        points = self._points[epoch]
        if not self._visibility.waits:
            return list(points)
        return [point for point in points if point.number <= number - self._visibility.lag]

    def _note(self, point: RungPoint, report: RungReport) -> None:
        self._judged[point.number, report.epoch] = report
        insort(self._points[report.epoch], point, key=lambda point: point.number)
