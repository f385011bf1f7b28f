"""Classification of Ray's errors about dead workers."""

from __future__ import annotations

import re

from sharedattn.search.executors.base import Lost, Preempted, Raised

# The worker could not start, and would fail again.
_FAILED_AT_START = "because of an error raised in its creation task"
# The node is gone, drained, pre-empted or unreachable, or the worker was asked to end: not the
# trial's fault. Any other death may be.
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
    """Classify an actor's error as an event.

    Args:
        message: text of the `ray.exceptions.RayActorError`.
    """
    if _FAILED_AT_START in message:
        return Raised(message)
    address = _NODE_ADDRESS.search(message)
    detail = _DETAIL.search(message)
    cause = " ".join(detail[1].split()) if detail else first_line(message)
    # Drop Ray's list of common causes, always the same long paragraph.
    cause = cause.partition(" Some common causes include")[0]
    reason = f"{cause} (node {address[1]})" if address else cause
    if any(sign in message for sign in _TAKEN_AWAY):
        return Preempted(reason)
    return Lost(reason)


def first_line(message: str) -> str:
    """The first line of an error text; Ray's may be pages long."""
    return message.strip().partition("\n")[0]
