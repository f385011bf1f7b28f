"""Data sets: their configuration, their splits, and their batches."""

from __future__ import annotations

from sharedattn.data.opening import open_data, reopen_data
from sharedattn.data.source import EMBEDDED, DataConfig, DataSource, Split

__all__ = ["EMBEDDED", "DataConfig", "DataSource", "Split", "open_data", "reopen_data"]
