"""Compare what the papers printed with what this library computes, one paper a file."""

from __future__ import annotations

from sharedattn.papers import (
    context_broadcasting,
    detectors,
    external_attention,
    implicit_attention,
    less_attention,
)
from sharedattn.papers.figures import RULE, Row

__all__ = ["RULE", "Row", "rows"]


def rows() -> list[Row]:
    """A row for each published figure and convention, paper by paper."""
    return [
        *less_attention.rows(),
        *detectors.rows(),
        *external_attention.rows(),
        *context_broadcasting.rows(),
        *implicit_attention.rows(),
    ]
