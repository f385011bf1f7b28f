"""Searchers from outside are found by their entry point, and refused where they clash."""

import pytest

from sharedattn.errors import InputError
from sharedattn.search.config import SearchConfig
from sharedattn.search.searchers import SEARCHERS, searchers
from sharedattn.search.searchers.random_search import RandomSearcher

GROUP = "sharedattn.searchers"


class Other(RandomSearcher):
    name = "other"


@pytest.fixture(autouse=True)
def asked_anew():
    searchers.cache_clear()
    yield
    searchers.cache_clear()


def test_a_searcher_from_outside_may_be_chosen(entry_point):
    entry_point(GROUP, "it", Other)
    assert searchers() == {**SEARCHERS, "other": Other}
    assert SearchConfig.of(searcher="other").searcher == "other"


def test_ours_alone_where_nothing_is_installed():
    assert searchers() == SEARCHERS
    with pytest.raises(InputError, match="`--searcher` is one of .*, but got 'other'"):
        SearchConfig.of(searcher="other")


@pytest.mark.parametrize(
    ("loaded", "message"),
    [
        (RandomSearcher, "outside 2 takes the name random, which another searcher has"),
        (7, "outside 2 registers 7 as a searcher; its entry point names a subclass of"),
    ],
)
def test_clashes_are_named(entry_point, loaded, message):
    entry_point(GROUP, "it", loaded)
    with pytest.raises(InputError, match=message):
        searchers()
