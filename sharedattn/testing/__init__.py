"""Contracts for parts of the package, and helpers for plug-ins' tests."""

from __future__ import annotations

from sharedattn.testing.mechanisms import check_mechanism
from sharedattn.testing.registry import registered

__all__ = ["check_mechanism", "registered"]
