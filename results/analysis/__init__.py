"""Repeat on a network the measurements of the papers."""

from __future__ import annotations

from sharedattn.results.analysis.run import (
    Analysis,
    Figure,
    Images,
    TrainedNetwork,
    analyse,
    broadcasting_counterpart,
    check_counterpart,
    random_network,
    read_images,
    unshared,
)

__all__ = [
    "Analysis",
    "TrainedNetwork",
    "Figure",
    "Images",
    "analyse",
    "broadcasting_counterpart",
    "check_counterpart",
    "random_network",
    "read_images",
    "unshared",
]
