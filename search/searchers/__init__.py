"""Searchers: model-based, NSGA-II, TPE, stratified, random, and those of plug-ins."""

from __future__ import annotations

from sharedattn.search.searchers.base import PastTrial, Proposal, Searcher
from sharedattn.search.searchers.registry import (
    DEFAULT_SEARCHER,
    FORMER_DEFAULT,
    SEARCHERS,
    searchers,
)

__all__ = [
    "DEFAULT_SEARCHER",
    "FORMER_DEFAULT",
    "SEARCHERS",
    "PastTrial",
    "Proposal",
    "Searcher",
    "searchers",
]
