"""Comparison of the papers' printed figures with this library's, one module per paper."""

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
    """A row for each published figure and convention, by paper."""
    return [
        *less_attention.rows(),
        *detectors.rows(),
        *external_attention.rows(),
        *context_broadcasting.rows(),
        *implicit_attention.rows(),
    ]
