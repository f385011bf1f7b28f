"""The registry of searchers, built in and from plug-ins."""

from __future__ import annotations

from functools import cache

from sharedattn.plugins import added
from sharedattn.search.searchers.base import Searcher
from sharedattn.search.searchers.model_search import ModelSearcher
from sharedattn.search.searchers.optuna_search import NSGA2Searcher, TPESearcher
from sharedattn.search.searchers.random_search import RandomSearcher
from sharedattn.search.searchers.stratified_search import StratifiedSearcher

# The built-in ones; `searchers` adds those of plug-ins.
SEARCHERS: dict[str, type[Searcher]] = {
    searcher.name: searcher
    for searcher in (ModelSearcher, TPESearcher, NSGA2Searcher, StratifiedSearcher, RandomSearcher)
}

DEFAULT_SEARCHER = ModelSearcher.name
"""On real trainings and on most tables its fronts are the best: docs/guide/searchers.md."""

FORMER_DEFAULT = NSGA2Searcher.name
"""The default before: studies that it began go on without `--searcher`."""


@cache
def searchers() -> dict[str, type[Searcher]]:
    """Every searcher by name: built in, or an entry point of the group `sharedattn.searchers`.

    Raises:
        InputError: a plug-in cannot be imported, is not a searcher, or reuses a name.
    """
    others = added(
        "sharedattn.searchers",
        SEARCHERS,
        what="a searcher",
        wanted="a subclass of `sharedattn.search.searchers.Searcher`",
        fits=lambda loaded: isinstance(loaded, type) and issubclass(loaded, Searcher),
        names_of=lambda _, loaded: [loaded.name],
    )
    return SEARCHERS | dict(others)
