"""The evaluation of the trained model that a search starts from, before it is trained."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Literal

from sharedattn.data import open_data
from sharedattn.results.records import START_NOTE, Start, TrialRole
from sharedattn.search.evaluators import Measurement
from sharedattn.search.evaluators.supernet import SupernetEvaluator
from sharedattn.search.executors import Executor
from sharedattn.search.executors.retries import run_tasks
from sharedattn.search.study.context import StudyContext
from sharedattn.search.study.progress_board import ProgressBoard


@dataclass(frozen=True, slots=True)
class StartEvaluation:
    """Evaluates the trained model of a supernet once on each split, and stores what it finds.

    Attributes:
        shared: has the trained weights, or none; without them, or where their head is a new one
            that is not trained yet, nothing is evaluated.
        executor: opens what evaluates them.
        on_start: called with the start before anything is trained, or None.
    """

    shared: SupernetEvaluator
    executor: Callable[[], AbstractContextManager[Executor]]
    on_start: Callable[[Start], None] | None = None

    def validate(self, context: StudyContext, board: ProgressBoard) -> None:
        """Evaluate on the validation split unless that was done, and tell what it gave."""
        supernet = self.shared.supernet
        if supernet.start is None or not supernet.start.has_trained_head:
            return
        if START_NOTE not in context.notes:
            measured = self._measured("validation", board)
            cost = context.costs.totals(supernet.largest)
            start = Start(
                weights_sha256=supernet.start.sha256,
                macs=cost.macs,
                params=cost.params,
                top1=measured.top1,
                num_images=measured.num_images,
                head_images=None if supernet.head is None else supernet.head.num_images,
            )
            _save(context, start)
        if self.on_start is not None:
            self.on_start(Start.from_json(context.notes[START_NOTE]))

    def test(self, context: StudyContext, board: ProgressBoard) -> None:
        """Evaluate on the test split, if the data has one, unless that was done."""
        if START_NOTE not in context.notes:
            return
        start = Start.from_json(context.notes[START_NOTE])
        source = open_data(self.shared.scratch.data)
        if start.test_top1 is not None or not source.num_images("test"):
            return
        measured = self._measured("test", board)
        num_images = measured.num_images
        _save(context, replace(start, test_top1=measured.top1, num_test_images=num_images))

    def _measured(self, split: Literal["validation", "test"], board: ProgressBoard) -> Measurement:
        phase = TrialRole.SEARCH if split == "validation" else TrialRole.CONFIRM
        with self.executor() as executor:
            [(_, measured, _)] = run_tasks(
                executor,
                [self.shared.start_task(split)],
                name="start",
                on_running=lambda running: board.show(phase, running),
            )
        return measured


def _save(context: StudyContext, start: Start) -> None:
    note = {START_NOTE: start.to_json()}
    context.driver.save_searcher_attributes(note)
    context.notes |= note
