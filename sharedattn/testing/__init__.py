"""Contracts for parts of the package, and helpers for plug-ins' tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sharedattn.testing.mechanisms import check_mechanism
    from sharedattn.testing.registry import registered

__all__ = ["check_mechanism", "registered"]


def __getattr__(name: str) -> Any:
    """Import an exported name on first use: the tiny backbones do without fvcore."""
    if name == "check_mechanism":
        from sharedattn.testing.mechanisms import check_mechanism

        return check_mechanism
    if name == "registered":
        from sharedattn.testing.registry import registered

        return registered
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
