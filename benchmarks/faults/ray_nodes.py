"""A Ray cluster of two nodes on loopback, whose second node can be killed.

    with TwoNodes() as nodes:
        subprocess.run([..., "--executor", "ray", "--address", nodes.address])

A node is a raylet with workers as its children, with one CPU; the first is the head.
"""

from __future__ import annotations

import os
import tempfile
from types import TracebackType
from typing import Any, Self
from unittest.mock import patch

import psutil

ADDRESS = "127.0.0.1"
# For the nodes and their users. Ray sends no usage data. As on systems other than Linux, a
# machine's address is 127.0.0.1, so that nodes listen only there. (Otherwise `ray.init` would look
# for a cluster at the machine's outer address.) Workers keep their priority, which Ray would
# lower. At the end a node need not wait for anything.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_worker_niceness": "0",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
}
_OBJECT_STORE_BYTES = 80 * 2**20


class TwoNodes:
    """A cluster that runs while its `with` block does.

    Attributes:
        address: the head's address, for `--address`.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)
        self._environment = patch.dict(os.environ, _ENVIRONMENT)
        self._dead: list[Any] = []
        self._orphans: list[psutil.Process] = []

    def __enter__(self) -> Self:
        self._environment.start()
        # Imported here: it is slow to import, and reads the environment.
        from ray.cluster_utils import Cluster

        head = self._node_options() | {"include_dashboard": False, "temp_dir": self._folder.name}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address: str = self._cluster.address
        self._second = self._add_second()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.bury()
        self._cluster.shutdown()
        self._environment.stop()
        self._folder.cleanup()

    def workers(self) -> list[psutil.Process]:
        """Worker processes of both nodes, busy or idle."""
        nodes = (self._cluster.head_node, self._second)
        children = [child for node in nodes for child in _raylet(node).children()]
        return [child for child in children if _is_worker(child)]

    def kill_second(self, *, with_workers: bool) -> None:
        """Kill the second node's raylet by SIGKILL, optionally with its workers.

        Otherwise they live on as orphans: the raylet is not waited for, and while its entry stays
        in the process table, they take it to be alive.
        """
        raylet = _raylet(self._second)
        workers = [child for child in raylet.children(recursive=True) if _is_worker(child)]
        raylet.kill()
        if with_workers:
            for worker in workers:
                _kill(worker)
        else:
            self._orphans += workers

    def restart_second(self) -> None:
        """Start a new second node, leaving the remains of the old one."""
        self._dead.append(self._second)
        self._second = self._add_second()

    def num_orphans(self) -> int:
        """Number of workers that live on without their raylet."""
        return sum(
            orphan.is_running() and orphan.status() != psutil.STATUS_ZOMBIE
            for orphan in self._orphans
        )

    def bury(self) -> None:
        """End the remains of killed nodes."""
        for orphan in self._orphans:
            _kill(orphan)
        self._orphans = []
        for node in self._dead:
            self._cluster.remove_node(node, allow_graceful=False)
        self._dead = []

    def _add_second(self) -> Any:
        return self._cluster.add_node(**self._node_options())

    @staticmethod
    def _node_options() -> dict[str, Any]:
        return {
            "num_cpus": 1,
            "node_ip_address": ADDRESS,
            "object_store_memory": _OBJECT_STORE_BYTES,
        }


def _raylet(node: Any) -> psutil.Process:
    return psutil.Process(node.all_processes["raylet"][0].process.pid)


def _is_worker(process: psutil.Process) -> bool:
    """Whether it can run trials; a node also has two agents."""
    try:
        command = " ".join(process.cmdline()).strip()
    except psutil.NoSuchProcess:
        return False
    if command.startswith("ray::"):
        return not command.endswith("Agent")
    return "default_worker.py" in command


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()  # psutil also compares the start time, since process ids recur
    except psutil.NoSuchProcess:
        pass
