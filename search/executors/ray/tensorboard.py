"""TensorBoard logs of a search: one folder per trial, with quality and loss by epoch."""

from __future__ import annotations

import time
from pathlib import Path, PurePosixPath

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event as Record
from tensorboardX.summary import scalar, text

from sharedattn.search.evaluators import Task
from sharedattn.search.executors.base import Event, Finished, Reported
from sharedattn.tasks import head_kind


class TensorBoardLog:
    """Writes event files, shown by `tensorboard --logdir folder` while the search runs.

    Each event is a separate file in its trial's folder, which TensorBoard joins; no file stays
    open, however a trial ends.

    Args:
        folder: the log folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, task: Task, event: Event) -> None:
        """Write an event's metrics, if it has any.

        Raises:
            OSError: the folder cannot be written.
        """
        if isinstance(event, Reported):
            report = event.metrics
            epoch, top1, loss = report.epoch, report.top1, report.loss
        elif isinstance(event, Finished):
            epoch = task.identity.fidelity.epochs
            top1, loss = event.measurement.top1, event.measurement.loss
        else:
            return
        folder = self.folder / trial_name(task)
        quality = head_kind(task.spec.backbone.head).quality
        summaries = [(epoch, scalar(quality, top1)), (epoch, scalar("loss", loss))]
        if not folder.exists():
            folder.mkdir(parents=True)
            summaries.insert(0, (0, text("network", str(task.spec))))
        # Not `SummaryWriter`, whose thread would hide a full disk's error. The suffix makes names
        # unique within a second.
        writer = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
        try:
            for step, summary in summaries:
                writer.write_event(Record(summary=summary, step=step, wall_time=time.time()))
        finally:
            writer.close()


def trial_name(task: Task) -> str:
    """Folder name of a task: the end of its checkpoint's name, or a part of its key."""
    if task.checkpoint is not None:
        return PurePosixPath(task.checkpoint).name
    return task.identity.key[:16]
