"""Temporary registration of mechanisms."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sharedattn.mechanisms.interface import Branch, Gate
from sharedattn.mechanisms.registry import Registry, clear_registry_caches, registry, with_parts


@contextmanager
def registered(*parts: Branch | Gate) -> Iterator[None]:
    """Register branches and gates in the block, as if a plug-in added them.

    This affects only this process: workers and other nodes see installed plug-ins. Objects made
    with a part in the block, such as placements and spaces, cannot be used after it.

    Args:
        parts: objects of subclasses of `Branch` or `Gate`.

    Raises:
        InputError: a part has a letter, name, rank, code or key that is taken.

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
    """Replace the entries of the global registry by another's."""
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
