"""An evaluator for fault campaigns: deterministic, as slow as requested, with checkable epochs.

It trains nothing. An epoch sleeps and computes the next value of a hash chain that starts with the
placement, so an evaluation resumed from any wrong state ends with another accuracy. Checkpoints
and weights are real, in a search's stores. Each attempt writes to a journal where it began and
which epochs it ran.

Workers import this module by name, so run its users from this folder.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from sharedattn.progress import OnProgress
from sharedattn.results.artifacts.blobs import BlobStore
from sharedattn.results.artifacts.checkpoints import CheckpointStore
from sharedattn.results.artifacts.weights import WeightsStore
from sharedattn.results.records import EpochMetrics, Fidelity
from sharedattn.search.evaluators import Evaluator, Measurement, Task


@dataclass(frozen=True)
class Entry:
    """A line of the journal: an attempt has begun, or has run one more epoch.

    Attributes:
        trial: name of its checkpoint, `<study>/<role>-<number>`.
        attempt: unique name of the attempt.
        pid: the worker's process id.
        epoch: number of finished epochs.
        at: seconds since 1970.
    """

    trial: str
    attempt: str
    pid: int
    epoch: int
    at: float


@dataclass(frozen=True)
class Journal:
    """A record of all attempts, in one file that several processes append to."""

    path: Path

    def write(self, entry: Entry) -> None:
        # A short append is atomic, even with other writers.
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(entry)) + "\n")

    def read(self) -> list[Entry]:
        """All entries, oldest first."""
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8").splitlines()
        return [Entry(**json.loads(line)) for line in lines]


class FillableBlobs(BlobStore):
    """Files in a folder whose disk counts as full while `FOLDER.full` exists."""

    def write(self, name: str, content: bytes) -> None:
        if os.path.exists(f"{self.url}.full"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.shown(name))
        super().write(name, content)


@dataclass(frozen=True)
class EpochEvaluator(Evaluator):
    """Sleeps for each epoch, writing a checkpoint after it, with one rung.

    Attributes:
        blobs: store of weights and checkpoints.
        journal: record of the attempts.
        epochs: number of epochs per evaluation.
        epoch_s: mean seconds per epoch; the placement changes it by up to a half.
    """

    blobs: BlobStore
    journal: Journal
    epochs: int = 5
    epoch_s: float = 0.2

    @property
    def recipe_key(self) -> str:
        return "0" * 64

    @property
    def data_fingerprint(self) -> str:
        return "0" * 64

    @property
    def fidelity(self) -> Fidelity:
        return Fidelity(epochs=self.epochs, image_size=16)

    @property
    def rungs(self) -> tuple[int, ...]:
        return (self.epochs // 2,)

    def evaluate(
        self, task: Task, on_progress: OnProgress | None = None
    ) -> Generator[EpochMetrics, None, Measurement]:
        assert task.checkpoint is not None
        checkpoints = CheckpointStore(self.blobs)
        state = checkpoints.load(task.checkpoint)
        if state is None or state["identity"] != task.identity.key:
            state = {"identity": task.identity.key, "epoch": 0, "chain": task.spec.key}
        attempt = f"{os.getpid()}-{time.time_ns()}"
        epoch_s = self.epoch_s * (0.5 + _fraction(task.spec.key))
        self._note(task.checkpoint, attempt, state["epoch"])
        if state["epoch"] in self.rungs:
            yield _report(state["epoch"], state["chain"])
        while state["epoch"] < self.epochs:
            time.sleep(epoch_s)
            epoch = state["epoch"] + 1
            state |= {
                "epoch": epoch,
                "chain": hashlib.sha256(f"{state['chain']} {epoch}".encode()).hexdigest(),
            }
            self._note(task.checkpoint, attempt, epoch)
            if epoch < self.epochs:
                checkpoints.save(task.checkpoint, state)
            if epoch in self.rungs:
                yield _report(epoch, state["chain"])
        top1 = _fraction(state["chain"])
        sha256 = WeightsStore(self.blobs).save(task.identity.key, {"top1": torch.tensor([top1])})
        return Measurement(
            split="validation",
            top1=top1,
            loss=1.0 - top1,
            num_images=1,
            wall_time_s=epoch_s * self.epochs,
            weights_sha256=sha256,
        )

    def _note(self, trial: str, attempt: str, epoch: int) -> None:
        self.journal.write(Entry(trial, attempt, os.getpid(), epoch, time.time()))


def _report(epoch: int, chain: str) -> EpochMetrics:
    top1 = _fraction(chain)
    return EpochMetrics(epoch=epoch, top1=top1, loss=1.0 - top1)


def _fraction(digest: str) -> float:
    """A number in [0, 1) derived from a hash."""
    return int(digest[:8], 16) / 2**32
