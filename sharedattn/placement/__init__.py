"""Placements: which attention mechanism stands in which layer, and the specs of networks."""

from __future__ import annotations

from sharedattn.placement.placement import (
    DEFAULT_SLOTS,
    SPEC_FORMAT_VERSION,
    BackboneSpec,
    Envelope,
    Keyword,
    Kind,
    LayerChoice,
    LayerEnvelope,
    MechanismOptions,
    NetworkSpec,
    Placement,
    dia_runs,
    kind_of_form,
    rank_of,
)

__all__ = [
    "BackboneSpec",
    "DEFAULT_SLOTS",
    "Envelope",
    "Keyword",
    "Kind",
    "LayerChoice",
    "LayerEnvelope",
    "MechanismOptions",
    "NetworkSpec",
    "Placement",
    "SPEC_FORMAT_VERSION",
    "dia_runs",
    "kind_of_form",
    "rank_of",
]
