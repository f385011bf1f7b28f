"""The confirmation: runs the front's members with further seeds."""

from __future__ import annotations

from collections.abc import Sequence

from sharedattn.placement import Placement
from sharedattn.results.front.confirmation import Confirmation, next_confirmations
from sharedattn.results.records import TrialRole, TrialRow
from sharedattn.search.study.context import StudyContext
from sharedattn.search.study.recording import StudyFiles
from sharedattn.search.study.running import TrialRunner, TrialStarter


class Confirmer:
    """Confirms a study's front, then keeps only the weights of its members.

    Args:
        context: the study.
        starter: starts the runs.
        runner: runs them.
        files: the study's files.
    """

    def __init__(
        self,
        context: StudyContext,
        starter: TrialStarter,
        runner: TrialRunner,
        files: StudyFiles,
    ) -> None:
        self._context = context
        self._starter = starter
        self._runner = runner
        self._files = files

    @property
    def is_due(self) -> bool:
        """Whether the front, as it stands, asks for a run."""
        rows = self._context.store.trials.of(self._context.study)
        return bool(self._due(rows))

    def run(self) -> None:
        """Run confirmations until every member of the front has all its seeds."""
        context = self._context
        while True:
            rows = context.store.trials.of(context.study)
            due = self._due(rows)
            if not due and self._runner.is_idle:
                break
            first = sum(row.role is TrialRole.CONFIRM for row in rows)
            self._runner.expect(TrialRole.CONFIRM, first + len(due))
            for number, confirmation in enumerate(due, first):
                self._runner.wait_for_slot(TrialRole.CONFIRM)
                self._starter.begin_confirmation(
                    number, Placement.parse(confirmation.placement), confirmation.replicate
                )
            self._runner.wait_until_idle(TrialRole.CONFIRM)
        front = context.front(rows)
        self._files.keep_weights_of({member.spec_key for member in front.members}, rows)

    def _due(self, rows: Sequence[TrialRow]) -> tuple[Confirmation, ...]:
        record = self._context.study.record
        return next_confirmations(
            rows, self._context.objectives, record.confirm_seeds, retrains=record.retrains
        )
