"""Pause the garbage collector while creating many small records."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def gc_paused() -> Iterator[None]:
    """Create many records without repeated garbage collections.

    Records hold no cycles, yet over 50,000 of them the collector takes as long as the database.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
