"""Rungs: whether a trial continues from one, and which accuracies the searcher is told.

A trial is judged against the peers that its proposal could use and that have reached the rung.

With a pruner, the searcher is told every trial, complete or pruned, with its accuracy at the first
rung as its value, the only fidelity that all have reached. Told complete trials alone, NSGA-II
would never fill its generations; told final accuracies, it would compare different fidelities. A
searcher that can compare them is told the later ones besides.
"""

from __future__ import annotations

from bisect import insort
from collections import defaultdict

from sharedattn.placement import Placement
from sharedattn.results.records import EpochMetrics, EvaluationRecord, RungRow, TrialState
from sharedattn.search.pruners import Pruner, RungPoint
from sharedattn.search.study.context import StudyContext, Visibility
from sharedattn.training.tasks.interface import Metrics


class RungJudge:
    """Judges search trials at rungs, and commits each judgement.

    Args:
        context: the study.
        pruner: decides which trials stop, or None to stop none.
        visibility: determines a trial's peers.
    """

    def __init__(
        self, context: StudyContext, pruner: Pruner | None, visibility: Visibility
    ) -> None:
        self._context = context
        self._pruner = pruner
        self._visibility = visibility
        self._judged: dict[tuple[int, int], RungRow] = {}  # by number and epoch
        self._points: dict[int, list[RungPoint]] = defaultdict(list)  # by epoch, then number

    def restore(self) -> None:
        """Read the judgements that are stored."""
        for row in self._context.store.trials.rung_reports(self._context.study):
            self._note(row)

    def lets_on(
        self,
        number: int,
        placement: Placement,
        metrics: EpochMetrics,
        *,
        trial_id: int,
        attempt: int,
    ) -> bool:
        """Judge a trial that has reached a rung; an earlier judgement there stands.

        Args:
            number: the search trial's number.
            placement: what it evaluates.
            metrics: what it has measured.
            trial_id: its row.
            attempt: number of its attempt.
        """
        known = self._judged.get((number, metrics.epoch))
        if known is not None:
            return known.goes_on
        row = RungRow(number, metrics, self._macs(placement), goes_on=True)
        if self._pruner is not None and self._pruner.should_prune(
            _point(row), metrics.epoch, self._peers(number, metrics.epoch)
        ):
            row = row._replace(goes_on=False)
            self._context.driver.prune_trial(trial_id, metrics, attempt=attempt)
        else:
            self._context.driver.report_rung(trial_id, metrics, attempt=attempt)
        self._note(row)
        return row.goes_on

    def let_pass(
        self,
        number: int,
        placement: Placement,
        evaluation: EvaluationRecord,
        *,
        trial_id: int,
        attempt: int,
    ) -> None:
        """Pass all rungs of a trial whose evaluation is already stored, since it costs nothing.

        Args:
            number: the search trial's number.
            placement: the evaluated placement.
            evaluation: the stored evaluation.
            trial_id: id of its row.
            attempt: number of its attempt.
        """
        for epoch in evaluation.learning_curve:
            rung = epoch["epoch"]
            if rung in self._context.evaluator.rungs and (number, rung) not in self._judged:
                measured = Metrics.from_json(epoch["validation"])
                metrics = EpochMetrics(rung, measured.quality, measured.loss)
                self._context.driver.report_rung(trial_id, metrics, attempt=attempt)
                self._note(RungRow(number, metrics, self._macs(placement), goes_on=True))

    def told_accuracies(
        self, number: int, state: TrialState, top1: float | None
    ) -> tuple[float, ...]:
        """The accuracies of a trial that the searcher is told, as in `PastTrial`.

        Args:
            number: the search trial's number.
            state: its state.
            top1: final accuracy, if it is complete.

        Returns:
            Fractions; none while the trial runs and if it failed, the final one alone without a
            pruner.
        """
        if state not in (TrialState.COMPLETE, TrialState.PRUNED):
            return ()
        final = () if top1 is None else (top1,)
        if self._pruner is None:
            return final
        reached = [
            row.metrics.top1
            for rung in self._context.evaluator.rungs
            if (row := self._judged.get((number, rung))) is not None
        ]
        return (*reached, *final)

    def _macs(self, placement: Placement) -> int:
        return self._context.costs.totals(placement).macs

    def _peers(self, number: int, epoch: int) -> list[RungPoint]:
        points = self._points[epoch]
        if not self._visibility.waits:
            return list(points)
        return [point for point in points if point.number <= number - self._visibility.lag]

    def _note(self, row: RungRow) -> None:
        self._judged[row.number, row.metrics.epoch] = row
        insort(self._points[row.metrics.epoch], _point(row), key=lambda point: point.number)


def _point(row: RungRow) -> RungPoint:
    return RungPoint(row.number, row.metrics.top1, row.macs)
