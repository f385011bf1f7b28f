"""Texts of Ray 2.60, as it gave them: whose fault a death was, and where it happened."""

import pytest

from sharedattn.search.executors import Lost, Preempted, Raised
from sharedattn.search.executors.ray.errors import death

HEAD = """The actor died unexpectedly before finishing this task.
	class_name: A
	actor_id: a218b12525f5511a05dbff9a01000000
	pid: 3670
	namespace: 9325e7a6-fc6e-453c-8d15-fd455c1b1a7a
	ip: 10.1.2.3
"""
KILLED = (
    "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR "
    "Worker exit detail: Worker unexpectedly exits with a connection error code 2. End of file. "
    "Some common causes include: (1) the process was killed by the OOM killer due to high memory "
    "usage, (2) ray stop --force was called, or (3) the worker crashed unexpectedly due to "
    "SIGSEGV or another unexpected error."
)
ASKED_TO_END = (
    "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR "
    "Worker exit detail: Worker exits unexpectedly. Worker exits with an exit code 1. The process "
    "receives a SIGTERM."
)
NODE = "The actor died because its node has died. Node Id: d76bc3\n"
NODE_KILLED = (
    NODE + "\tthe actor's node was terminated unexpectedly: health check failed due to missing "
    "too many heartbeats"
)
NODE_DRAINED = NODE + "\tthe actor's node was terminated expectedly: received SIGTERM"
NODE_PREEMPTED = NODE + "\tthe actor's node was preempted: idle"
OWNER_GONE = (
    "The actor is dead because its owner has died. Owner Id: 01ff Owner Ip address: 10.1.2.3 "
    "Owner worker exit type: SYSTEM_ERROR Worker exit detail: Owner's node has crashed."
)


def test_a_dead_worker_on_a_living_node_is_lost():
    assert death(f"{HEAD}{KILLED}\n") == Lost(
        "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR "
        "Worker exit detail: Worker unexpectedly exits with a connection error code 2. End of "
        "file. (node 10.1.2.3)"
    )


@pytest.mark.parametrize(
    ("detail", "cause"),
    [
        (ASKED_TO_END, "receives a SIGTERM"),
        (NODE_KILLED, "missing too many heartbeats"),
        (NODE_DRAINED, "terminated expectedly: received SIGTERM"),
        (NODE_PREEMPTED, "was preempted: idle"),
        (OWNER_GONE, "Owner's node has crashed"),
    ],
)
def test_what_took_the_slot_away_is_no_fault_of_the_trial(detail, cause):
    event = death(f"{HEAD}{detail}\n")
    assert isinstance(event, Preempted)
    assert cause in event.reason
    assert event.reason.endswith("(node 10.1.2.3)")


def test_a_worker_that_cannot_be_reached_is_not_the_trials_fault():
    text = "The actor a218 is unavailable: The actor is temporarily unavailable: IOError."
    assert death(text) == Preempted(text)


def test_a_worker_that_cannot_start_would_not_start_again():
    text = (
        "The actor died because of an error raised in its creation task, ray::A.__init__() "
        "(pid=1, ip=10.1.2.3)\nModuleNotFoundError: No module named 'search'"
    )
    assert death(text) == Raised(text)


def test_of_a_text_that_goes_on_for_pages_the_first_line_is_kept():
    low = "1 worker(s) were killed due to the node running low on memory (IP: 10.1.2.3)"
    assert death(f"{low}\nOOM kill reason: ...\nTop 10 memory users: ...\n") == Lost(low)
