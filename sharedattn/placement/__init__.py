"""Placements, which give each layer its attention mechanism, and specs of networks."""

from __future__ import annotations

from sharedattn.mechanisms.options import MechanismOptions
from sharedattn.placement.envelope import Envelope, LayerEnvelope, layer_union
from sharedattn.placement.layer import (
    GateCell,
    LayerChoice,
    gate_runs,
    num_present,
    numbered_cells,
    trimmed,
    with_stage_options,
)
from sharedattn.placement.placement import Placement, makers_of
from sharedattn.placement.spec import (
    ANCHOR_SCALE,
    SPEC_FORMAT_VERSION,
    BackboneSpec,
    Keyword,
    NetworkSpec,
    ResolvedSpec,
)
from sharedattn.placement.text import parse_layer

__all__ = [
    "ANCHOR_SCALE",
    "SPEC_FORMAT_VERSION",
    "BackboneSpec",
    "Envelope",
    "GateCell",
    "Keyword",
    "LayerChoice",
    "LayerEnvelope",
    "MechanismOptions",
    "NetworkSpec",
    "Placement",
    "ResolvedSpec",
    "gate_runs",
    "layer_union",
    "makers_of",
    "num_present",
    "numbered_cells",
    "parse_layer",
    "trimmed",
    "with_stage_options",
]
