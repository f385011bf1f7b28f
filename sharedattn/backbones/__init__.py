"""Backbones: families of timm models whose layers take a placement."""

from __future__ import annotations

from sharedattn.backbones.registry import (
    FAMILIES,
    build,
    build_network,
    canonical,
    describe,
    families,
    resolve,
    timm_num_classes,
    timm_weights,
)

__all__ = [
    "FAMILIES",
    "build",
    "build_network",
    "canonical",
    "describe",
    "families",
    "resolve",
    "timm_num_classes",
    "timm_weights",
]
