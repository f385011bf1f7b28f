"""Measure on an export what the papers measured on their networks."""

from __future__ import annotations

from sharedattn.results.analysis.run import (
    Analysis,
    Counterpart,
    Figure,
    Images,
    analyse,
    broadcasting_counterpart,
    check_counterpart,
    random_network,
    read_images,
    unshared,
)

__all__ = [
    "Analysis",
    "Counterpart",
    "Figure",
    "Images",
    "analyse",
    "broadcasting_counterpart",
    "check_counterpart",
    "random_network",
    "read_images",
    "unshared",
]
