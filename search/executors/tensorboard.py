"""What TensorBoard shows of a search: a folder a trial, with its accuracy and loss by epoch."""

from __future__ import annotations

import time
from pathlib import Path, PurePosixPath

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event as Record
from tensorboardX.summary import scalar, text

from search.evaluators import Task
from search.executors.base import Event, Finished, Reported


class TensorBoardLog:
    """Writes event files that `tensorboard --logdir folder` shows while the search runs.

    A trial that is started again writes a second file into its folder; TensorBoard joins them.

    Args:
        folder: gets one folder a trial.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Not a SummaryWriter: each has a thread and a queue of its own, and takes milliseconds.
        self._writers: dict[str, EventsWriter] = {}

    def write(self, task: Task, event: Event) -> None:
        """Write what an event says of a task; any but a report is its last.

        Raises:
            OSError: the folder cannot be written.
        """
        name = trial_name(task)
        if isinstance(event, Reported):
            report = event.report
            self._add(name, task, report.epoch, report.top1, report.loss)
            return
        if isinstance(event, Finished):
            measured = event.measurement
            epochs = task.identity.fidelity.epochs
            self._add(name, task, epochs, measured.top1, measured.loss)
        self.end(task)

    def end(self, task: Task) -> None:
        """Close the file of a task of which nothing more comes."""
        writer = self._writers.pop(trial_name(task), None)
        if writer is not None:
            writer.close()

    def close(self) -> None:
        """Close all files."""
        while self._writers:
            self._writers.popitem()[1].close()

    def _add(self, name: str, task: Task, epoch: int, top1: float, loss: float) -> None:
        writer = self._writers.get(name)
        if writer is None:
            folder = self.folder / name
            folder.mkdir(parents=True, exist_ok=True)
            writer = self._writers[name] = EventsWriter(str(folder / "events"))
            writer.write_event(_record(text("network", str(task.spec)), 0))
        for metric, value in (("top1", top1), ("loss", loss)):
            writer.write_event(_record(scalar(metric, value), epoch))
        writer.flush()


def trial_name(task: Task) -> str:
    """What a task's folder is called: the last part of its checkpoint's name, or by its key."""
    if task.checkpoint is not None:
        return PurePosixPath(task.checkpoint).name
    return task.identity.key[:16]


def _record(summary: object, step: int) -> Record:
    return Record(summary=summary, step=step, wall_time=time.time())
