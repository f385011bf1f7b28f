"""The study loop: search, record, confirm, and resume after any interruption.

The database is the single source of truth. A resumed study is rebuilt from it: a running trial
keeps its number and placement, and a finished one is never run again.

The loop connects parts that do one job each. A strategy creates the search trials: one by one, or
as scores of a supernet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sharedattn.objectives import Objective
from sharedattn.results.artifacts.checkpoints import CheckpointStore
from sharedattn.results.artifacts.weights import WeightsStore
from sharedattn.results.database.store import Store
from sharedattn.results.database.writing import StudyWriter
from sharedattn.results.records import Study, TrialRole, TrialState
from sharedattn.search.evaluators import Evaluator
from sharedattn.search.executors import Executor
from sharedattn.search.pruners import Pruner
from sharedattn.search.searchers import Searcher
from sharedattn.search.status import Progress
from sharedattn.search.study.baselines import BaselineTrainer
from sharedattn.search.study.confirming import Confirmer
from sharedattn.search.study.context import StudyContext, Visibility
from sharedattn.search.study.front_tracker import FrontTracker
from sharedattn.search.study.history import SearchHistory
from sharedattn.search.study.judging import RungJudge
from sharedattn.search.study.latency import Latencies
from sharedattn.search.study.progress_board import ProgressBoard
from sharedattn.search.study.proposing import CheckedBounds, Proposer
from sharedattn.search.study.recording import RunningTrial, StudyFiles, TrialRecorder
from sharedattn.search.study.running import TrialRunner, TrialStarter
from sharedattn.search.study.strategies import OneByOne, SearchStrategy, StudyParts
from sharedattn.spaces.budget import BudgetedSpace


class StudyLoop:
    """Drives one study to its requested number of trials, then confirms its front.

    Args:
        store: the database.
        driver: the study's writer.
        study: the study.
        space: the legal placements inside the budget.
        objectives: the objectives to optimise.
        evaluator: measures placements, and identifies evaluations.
        searcher: a new searcher; the loop feeds it from the database.
        executor: runs evaluations.
        deterministic: whether results must not depend on the order of completion.
        strategy: creates the search trials; defaults to one by one.
        pruner: judges trials at the evaluator's rungs, or None to stop none.
        weights: store of the evaluator's weights, or None if it keeps none.
        checkpoints: store of unfinished trainings, or None to keep none.
        latencies: latencies of placements, or None if no objective or bound needs them.
        trains_baselines: whether to train what a person would try by hand, for comparison.
        on_progress: called after every event, and every `TICK_S` without one.
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
        strategy: SearchStrategy | None = None,
        pruner: Pruner | None = None,
        weights: WeightsStore | None = None,
        checkpoints: CheckpointStore | None = None,
        latencies: Latencies | None = None,
        trains_baselines: bool = False,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        chosen = strategy or OneByOne(begins_in_rounds=latencies is not None)
        context = StudyContext(
            store=store,
            driver=driver,
            study=study,
            space=space,
            objectives=tuple(objectives),
            evaluator=evaluator,
        )
        visibility = Visibility.of(deterministic=deterministic, num_slots=executor.num_slots)
        history = SearchHistory(searcher, visibility)
        judge = RungJudge(context, pruner, visibility)
        front = FrontTracker(context.objectives, study.record.reference_point)
        files = StudyFiles(context, weights, checkpoints)
        board = ProgressBoard(
            context, executor.num_slots, lambda: chosen.counts(self._parts), on_progress
        )
        recorder = TrialRecorder(context, history, judge, front, files, board)
        runner = TrialRunner(context, executor, judge, recorder, board)
        starter = TrialStarter(context, runner, lambda task: chosen.adapt(task, context))
        bounds = CheckedBounds(
            context, latencies, lambda: runner.wait_until_idle(TrialRole.SEARCH)
        )
        self._strategy = chosen
        self._baselines = BaselineTrainer(context, starter, runner) if trains_baselines else None
        self._parts = StudyParts(
            context=context,
            history=history,
            proposer=Proposer(context, searcher, history, bounds),
            judge=judge,
            front=front,
            files=files,
            board=board,
            runner=runner,
            starter=starter,
            confirmer=Confirmer(context, starter, runner, files),
        )

    def run(self) -> None:
        """Run until all requested trials are finished and the front is confirmed.

        Raises:
            InputError: no drawn placement meets a bound that is only checked after the draw.
            StorageError: the database failed; what it had committed is kept.
        """
        parts, strategy = self._parts, self._strategy
        left = strategy.search(parts, self._restore())
        strategy.prepare_confirmation(parts, left)
        for trial in left:
            parts.runner.start(trial)
        parts.confirmer.run()
        if self._baselines is not None:
            self._baselines.run()
        strategy.finish(parts)
        context = parts.context
        if context.store.study(context.name).finished_at is None:
            context.driver.finish_study()

    def _restore(self) -> list[RunningTrial]:
        """Restore the parts from the database; return running trials as their next attempts."""
        parts, context = self._parts, self._parts.context
        rows = self._strategy.restore(parts)
        for role in (TrialRole.CONFIRM, TrialRole.BASELINE):
            rows += context.store.trials.parameters(context.study, role, [TrialState.RUNNING])
            counts = context.store.trials.counts(context.study, role)
            parts.board.num_asked[role] = sum(counts.values())
            parts.board.num_ended[role] = sum(counts.values()) - counts[TrialState.RUNNING]
        restarted = [parts.starter.restart(row) for row in rows]
        kept = {t.task.checkpoint for t in restarted if t.task.checkpoint is not None}
        parts.files.sweep_checkpoints(kept | self._strategy.shared_checkpoints(context))
        return restarted
