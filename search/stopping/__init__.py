"""Early stopping: which trials are worth their remaining epochs."""

from __future__ import annotations

from search.stopping.base import EarlyStopping, RungPoint

__all__ = ["EarlyStopping", "RungPoint"]
