"""What the papers measured, measured on an export."""

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
