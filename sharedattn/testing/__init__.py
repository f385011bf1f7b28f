"""Contracts that parts of the package must pass, and what tests of plug-ins need."""

from __future__ import annotations

from sharedattn.testing.mechanisms import check_mechanism
from sharedattn.testing.registry import registered

__all__ = ["check_mechanism", "registered"]
