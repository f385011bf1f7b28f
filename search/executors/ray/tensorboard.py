"""What TensorBoard shows of a search: a folder a trial, with its accuracy and loss by epoch."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from tensorboardX.proto.event_pb2 import Event as Record
from tensorboardX.record_writer import masked_crc32c
from tensorboardX.summary import scalar, text

from sharedattn.search.evaluators import Task
from sharedattn.search.executors.base import Event, Finished, Reported


class TensorBoardLog:
    """Writes event files that `tensorboard --logdir folder` shows while the search runs.

    A trial that is started again by another run writes a second file into its folder; TensorBoard
    joins them.

    Args:
        folder: gets one folder a trial.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file_name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}"

    def write(self, task: Task, event: Event) -> None:
        """Write what an event says of a task, if it says any.

        Raises:
            OSError: the folder cannot be written.
        """
        if isinstance(event, Reported):
            report = event.report
            epoch, top1, loss = report.epoch, report.top1, report.loss
        elif isinstance(event, Finished):
            epoch = task.identity.fidelity.epochs
            top1, loss = event.measurement.top1, event.measurement.loss
        else:
            return
        path = self.folder / trial_name(task) / self._file_name
        records = [
            Record(summary=scalar(metric, value), step=epoch, wall_time=time.time())
            for metric, value in (("top1", top1), ("loss", loss))
        ]
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            records[:0] = _beginning(task)
        # Not by tensorboardX's writers: they keep files open, and sync each to the disk twice.
        with path.open("ab") as file:
            file.write(b"".join(map(_framed, records)))


def trial_name(task: Task) -> str:
    """What a task's folder is called: the last part of its checkpoint's name, or by its key."""
    if task.checkpoint is not None:
        return PurePosixPath(task.checkpoint).name
    return task.identity.key[:16]


def _beginning(task: Task) -> Iterator[Record]:
    yield Record(file_version="brain.Event:2", wall_time=time.time())
    yield Record(summary=text("network", str(task.spec)), step=0, wall_time=time.time())


def _framed(record: Record) -> bytes:
    """A record of a TFRecord file: length and content, each with its checksum."""
    content = record.SerializeToString()
    length = struct.pack("<Q", len(content))
    return b"".join(
        (
            length,
            struct.pack("<I", masked_crc32c(length)),
            content,
            struct.pack("<I", masked_crc32c(content)),
        )
    )
