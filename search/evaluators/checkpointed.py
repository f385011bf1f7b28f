"""Training with reports at rungs, resumed from its last checkpoint."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass

from sharedattn.distributed import ALONE, Rank
from sharedattn.results.artifacts.checkpoints import CheckpointStore
from sharedattn.results.records import EpochMetrics
from sharedattn.search.evaluators.base import Task
from sharedattn.training.trainer import Epoch, EpochTrainer


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointedTraining:
    """Runs the trainers of tasks to their end, writing checkpoints on the way.

    Attributes:
        checkpoints: store of unfinished trainings, or None to keep none.
        rank: rank of this process among those that train one network together.
        every_s: minimum seconds between checkpoints of a training, except at rungs: a large
            network takes long to write.
    """

    checkpoints: CheckpointStore | None = None
    rank: Rank = ALONE
    every_s: float = 15.0

    def run(
        self, trainer: EpochTrainer, task: Task, rungs: tuple[int, ...] = ()
    ) -> Generator[EpochMetrics, None, None]:
        """Train to the end, from the task's checkpoint if there is one.

        Args:
            trainer: a new trainer.
            task: gives the checkpoint's name and the identity stored in it.
            rungs: epochs to report after.

        Yields:
            A report at each rung; when resumed at a rung, that report again.
        """
        self._restore(task, trainer)
        saved_at = time.monotonic()
        if trainer.epoch in rungs:
            # The driver may have died before it recorded its decision at this rung.
            yield _report(trainer.curve[-1])
        while not trainer.finished:
            epoch = trainer.run_epoch(validate=trainer.epoch + 1 in rungs)
            at_rung = epoch.epoch in rungs
            due = at_rung or time.monotonic() - saved_at >= self.every_s
            if due and not trainer.finished:
                self._save(task, trainer)
                saved_at = time.monotonic()
            if at_rung:
                yield _report(epoch)

    def _restore(self, task: Task, trainer: EpochTrainer) -> None:
        if self.checkpoints is None or task.checkpoint is None:
            return
        state = self.checkpoints.load(task.checkpoint)
        if state is not None and state["identity"] == task.identity.key:
            trainer.load_state_dict(state["trainer"])

    def _save(self, task: Task, trainer: EpochTrainer) -> None:
        if self.checkpoints is None or task.checkpoint is None or not self.rank.is_first:
            return
        # Store the identity, since new studies may use the name again.
        state = {"identity": task.identity.key, "trainer": trainer.state_dict()}
        self.checkpoints.save(task.checkpoint, state)


def _report(epoch: Epoch) -> EpochMetrics:
    assert epoch.validation is not None
    metrics = epoch.validation
    return EpochMetrics(epoch=epoch.epoch, top1=metrics.quality, loss=metrics.loss)
