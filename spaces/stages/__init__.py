"""The members of one stage, given by counts of kinds or by choices layer by layer."""

from __future__ import annotations

from sharedattn.spaces.stages.counted_language import StageGroups
from sharedattn.spaces.stages.counted_stage import CountedStage, LastLayers
from sharedattn.spaces.stages.language import StageLanguage, Symbol, symbol_key
from sharedattn.spaces.stages.listed_stage import ListedStage
from sharedattn.spaces.stages.reading import Stage, read_stage
from sharedattn.spaces.stages.score_reuse import HandOver
from sharedattn.spaces.stages.trimmed import without_trailing

__all__ = [
    "CountedStage",
    "HandOver",
    "LastLayers",
    "ListedStage",
    "Stage",
    "StageGroups",
    "StageLanguage",
    "Symbol",
    "read_stage",
    "symbol_key",
    "without_trailing",
]
