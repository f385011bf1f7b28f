"""The faults of the fault campaign, and how an administrator repairs them.

Each kind is a class, instantiated for each fault.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Protocol

from cutting_proxy import CuttingProxy, Moment
from epoch_evaluator import Journal
from postgresql_server import PostgreSQLServer
from ray_nodes import TwoNodes

EXIT_BAD_INPUT = 2
NODE_AWAY_S = 5.0  # from a node's death to its restart
LINE_HANGS_S = 8.0
_DISK_BYTES = 512 * 1024


class Disk(Protocol):
    """The disk of weights and checkpoints; `kind` describes it."""

    kind: ClassVar[str]

    def fill(self) -> None:
        """Fill it up."""

    def make_room(self) -> None:
        """Free the space again."""


@dataclass(frozen=True)
class SmallDisk:
    """A small file system mounted on `folder`."""

    kind: ClassVar[str] = f"a tmpfs of {_DISK_BYTES // 1024} KiB"

    folder: Path

    def fill(self) -> None:
        with self._filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(512))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def make_room(self) -> None:
        self._filler.unlink(missing_ok=True)

    @property
    def _filler(self) -> Path:
        return self.folder / "filler"


@dataclass(frozen=True)
class MarkedDisk:
    """A folder that pretends to be full, if nothing can be mounted."""

    kind: ClassVar[str] = "told to the writers"

    folder: Path

    def fill(self) -> None:
        self._marker.touch()

    def make_room(self) -> None:
        self._marker.unlink(missing_ok=True)

    @property
    def _marker(self) -> Path:
        return self.folder / "weights.full"


@contextmanager
def small_disk(folder: Path) -> Iterator[Disk]:
    """A disk for `folder/weights` that can be filled, a real one if this user may mount it."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, stderr=subprocess.DEVNULL).returncode != 0:
        yield MarkedDisk(folder)
        return
    try:
        yield SmallDisk(folder)
    finally:
        # Lazily, since an orphan may be writing to it.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@dataclass(frozen=True)
class Surroundings:
    """The targets of faults.

    Attributes:
        nodes: the Ray cluster.
        server: the database's server.
        proxy: the proxy before the database.
        disk: the disk of weights and checkpoints.
        journal: record of the workers, which also shows which are busy.
    """

    nodes: TwoNodes
    server: PostgreSQLServer
    proxy: CuttingProxy
    disk: Disk
    journal: Journal


class Fault(ABC):
    """One fault.

    Attributes:
        lasts_s: seconds until it is repaired, or None for until the driver has ended.
        exit_codes: exit codes of a driver that fails by it and is to be restarted.
    """

    lasts_s: float | None = 0.0
    exit_codes: tuple[int, ...] = ()

    @classmethod
    def summary(cls) -> str:
        """The fault in one sentence."""
        return " ".join((cls.__doc__ or "").split())

    @abstractmethod
    def strike(
        self, around: Surroundings, driver: subprocess.Popen[bytes], rng: random.Random
    ) -> str | None:
        """Cause the fault.

        Args:
            around: the targets.
            driver: the search's process.
            rng: source of the fault's random choices.

        Returns:
            What exactly was done, or None if there is nothing to hit yet.
        """

    def mend(self, around: Surroundings) -> None:  # noqa: B027 (most mend themselves)
        """Repair it as an administrator would."""


class DriverKilled(Fault):
    """SIGKILL to the driver, which is started again by the same command."""

    exit_codes = (-signal.SIGKILL,)

    def strike(
        self, around: Surroundings, driver: subprocess.Popen[bytes], rng: random.Random
    ) -> str:
        driver.kill()
        return "killed"


class WorkerKilled(Fault):
    """SIGKILL to a worker process: one that has run trials, else any of the cluster's."""

    def strike(
        self, around: Surroundings, driver: subprocess.Popen[bytes], rng: random.Random
    ) -> str | None:
        workers = {worker.pid: worker for worker in around.nodes.workers()}
        newest = {entry.pid: entry for entry in around.journal.read()}
        busy = [pid for pid in workers if pid in newest]
        if not workers:
            return None
        pid = rng.choice(sorted(busy or workers))
        workers[pid].kill()
        return f"at epoch {newest[pid].epoch}" if busy else "before its first trial"


class NodeKilled(Fault):
    """SIGKILL to a raylet and its workers at once, as when a machine goes away."""

    lasts_s = NODE_AWAY_S

    def strike(
        self, around: Surroundings, driver: subprocess.Popen[bytes], rng: random.Random
    ) -> str:
        around.nodes.kill_second(with_workers=True)
        return "with its workers"

    def mend(self, around: Surroundings) -> None:
        around.nodes.restart_second()


class RayletKilled(NodeKilled):
    """SIGKILL to a raylet alone; its workers live on and go on with their trials."""

    def strike(
        self, around: Surroundings, driver: subprocess.Popen[bytes], rng: random.Random
    ) -> str:
        around.nodes.kill_second(with_workers=False)
        return f"{around.nodes.num_orphans()} orphans"


class ServerRestarted(Fault):
    """PostgreSQL is restarted by `pg_ctl -m fast`, which ends all sessions."""

    mode: Literal["fast", "immediate"] = "fast"

    def strike(
        self, around: Surroundings, driver: subprocess.Popen[bytes], rng: random.Random
    ) -> str:
        around.server.restart(self.mode)
        return self.mode


class ServerCrashed(ServerRestarted):
    """PostgreSQL is restarted by `pg_ctl -m immediate`: it crashes, and recovers from its log."""

    mode = "immediate"


class DiskFull(Fault):
    """The disk of weights and checkpoints is full, until the search has ended of it."""

    lasts_s = None
    exit_codes = (EXIT_BAD_INPUT,)

    def strike(
        self, around: Surroundings, driver: subprocess.Popen[bytes], rng: random.Random
    ) -> str:
        around.disk.fill()
        return around.disk.kind

    def mend(self, around: Surroundings) -> None:
        around.disk.make_room()


class LineCut(Fault):
    """The line to the database is cut at a message: before it, after it, or on one side only."""

    def strike(
        self, around: Surroundings, driver: subprocess.Popen[bytes], rng: random.Random
    ) -> str:
        moments: list[Moment] = ["before", "after", "half"]
        moment = rng.choice(moments)
        around.proxy.cut(1, moment)
        return moment


class LineHangs(Fault):
    """The line to the database hangs at a message, and is cut only after 8 s."""

    def strike(
        self, around: Surroundings, driver: subprocess.Popen[bytes], rng: random.Random
    ) -> str:
        moments: list[Moment] = ["before", "half"]
        moment = rng.choice(moments)
        around.proxy.cut(1, moment, hangs_s=LINE_HANGS_S)
        return f"{moment}, {LINE_HANGS_S:g} s"


FAULTS: dict[str, type[Fault]] = {
    "driver": DriverKilled,
    "worker": WorkerKilled,
    "node": NodeKilled,
    "raylet": RayletKilled,
    "server-fast": ServerRestarted,
    "server-immediate": ServerCrashed,
    "disk-full": DiskFull,
    "line-cut": LineCut,
    "line-hangs": LineHangs,
}
