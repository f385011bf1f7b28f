"""Mechanisms that are registered for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sharedattn.mechanisms.interface import Branch, Gate
from sharedattn.mechanisms.registry import Registry, clear_registry_caches, registry, with_parts


@contextmanager
def registered(*parts: Branch | Gate) -> Iterator[None]:
    """Within it, branches and gates are registered as if a plug-in added them.

    In this process alone: workers and other nodes know what is installed. What was made of a part
    within, such as a placement or a space, is of no use afterwards.

    Args:
        parts: objects of subclasses of `Branch` or `Gate`.

    Raises:
        InputError: a part that takes a letter, name, rank, code or key of another.

    Example:
        with registered(MyBranch()):
            Placement.parse("V1M2")
    """
    known = registry()
    before = with_parts(known, ())
    _become(known, with_parts(known, parts))
    try:
        yield
    finally:
        _become(known, before)


def _become(known: Registry, other: Registry) -> None:
    """The registry that everybody has, with the entries of another."""
    pairs: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
        (known.branches, other.branches),
        (known.gates, other.gates),
        (known.plugins, other.plugins),
        (known.channels, other.channels),
    )
    for entries, others in pairs:
        entries.clear()
        entries.update(others)
    clear_registry_caches()
