"""The searchers that there are: ours, and those of other distributions."""

from __future__ import annotations

from functools import cache

from sharedattn.errors import InputError
from sharedattn.plugins import load
from sharedattn.search.searchers.base import Searcher
from sharedattn.search.searchers.optuna_search import NSGA2Searcher, TPESearcher
from sharedattn.search.searchers.random_search import RandomSearcher

# Ours; those of plug-ins come after them, see `searchers`.
SEARCHERS: dict[str, type[Searcher]] = {
    searcher.name: searcher for searcher in (NSGA2Searcher, TPESearcher, RandomSearcher)
}


@cache
def searchers() -> dict[str, type[Searcher]]:
    """Every searcher by name: ours, and entry points of the group `sharedattn.searchers`.

    Raises:
        InputError: a plug-in that cannot be imported, names no searcher, or takes another's name.
    """
    found = dict(SEARCHERS)
    for plugin, loaded in load("sharedattn.searchers"):
        if not (isinstance(loaded, type) and issubclass(loaded, Searcher)):
            raise InputError(
                f"the plug-in {plugin} registers {loaded!r} as a searcher; its entry point names "
                f"a subclass of `sharedattn.search.searchers.Searcher`"
            )
        if loaded.name in found:
            raise InputError(
                f"the plug-in {plugin} takes the name {loaded.name}, which another searcher has; "
                f"give it another, or uninstall {plugin.name}"
            )
        found[loaded.name] = loaded
    return found
