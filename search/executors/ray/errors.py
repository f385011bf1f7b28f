"""What Ray says of a worker that died, and whose fault that was."""

from __future__ import annotations

import re

from sharedattn.search.executors.base import Lost, Preempted, Raised

# The trial's worker never came to run it, by an error that it would meet again.
_FAILED_AT_START = "because of an error raised in its creation task"
# The node went, was drained or pre-empted, cannot be reached for now, or somebody asked the worker
# to end: the trial is not to blame. Any other end of a worker may be its doing.
_TAKEN_AWAY = (
    "node has died",
    "owner has died",
    "is unavailable",
    "preempt",
    "receives a SIGTERM",
)
_NODE_ADDRESS = re.compile(r"^\s*ip: (\S+)$", re.MULTILINE)
_DETAIL = re.compile(r"^\s*ip: \S+$\s*(.*)", re.MULTILINE | re.DOTALL)


def death(message: str) -> Lost | Preempted | Raised:
    """The event that an error of an actor stands for.

    Args:
        message: the error's text, as of `ray.exceptions.RayActorError`.
    """
    if _FAILED_AT_START in message:
        return Raised(message)
    address = _NODE_ADDRESS.search(message)
    detail = _DETAIL.search(message)
    cause = " ".join(detail[1].split()) if detail else first_line(message)
    # What may have been the reason is a paragraph long, and the same for each.
    cause = cause.partition(" Some common causes include")[0]
    reason = f"{cause} (node {address[1]})" if address else cause
    if any(sign in message for sign in _TAKEN_AWAY):
        return Preempted(reason)
    return Lost(reason)


def first_line(message: str) -> str:
    """What Ray's texts that go on for pages say first."""
    return message.strip().partition("\n")[0]
