"""Searchers: random, NSGA-II and TPE behind one interface."""

from __future__ import annotations

from sharedattn.search.searchers.base import PastTrial, Proposal, Searcher
from sharedattn.search.searchers.optuna_search import NSGA2Searcher, TPESearcher
from sharedattn.search.searchers.random_search import RandomSearcher

__all__ = ["SEARCHERS", "PastTrial", "Proposal", "Searcher"]

SEARCHERS: dict[str, type[Searcher]] = {
    searcher.name: searcher for searcher in (NSGA2Searcher, TPESearcher, RandomSearcher)
}
