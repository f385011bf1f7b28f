"""Searchers: random, NSGA-II, TPE, and those of plug-ins, behind one interface."""

from __future__ import annotations

from sharedattn.search.searchers.base import PastTrial, Proposal, Searcher
from sharedattn.search.searchers.registry import SEARCHERS, searchers

__all__ = ["SEARCHERS", "PastTrial", "Proposal", "Searcher", "searchers"]
