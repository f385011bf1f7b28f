"""Searchers from outside are found by their entry point, and refused where they clash."""

from types import SimpleNamespace

import pytest

from sharedattn.errors import InputError
from sharedattn.search.config import SearchConfig
from sharedattn.search.searchers import SEARCHERS, searchers
from sharedattn.search.searchers.random_search import RandomSearcher


class Other(RandomSearcher):
    name = "other"


@pytest.fixture
def registered(monkeypatch):
    """Lets one distribution register one searcher."""

    def register(loaded):
        point = SimpleNamespace(
            name="it",
            value="it:IT",
            load=lambda: loaded,
            dist=SimpleNamespace(name="outside", version="2"),
        )
        monkeypatch.setattr("sharedattn.plugins.entry_points", lambda group: [point])
        searchers.cache_clear()

    yield register
    searchers.cache_clear()


def test_a_searcher_from_outside_may_be_chosen(registered):
    registered(Other)
    assert searchers() == {**SEARCHERS, "other": Other}
    assert SearchConfig(searcher="other").searcher == "other"


def test_ours_alone_where_nothing_is_installed():
    assert searchers() == SEARCHERS
    with pytest.raises(InputError, match="other"):
        SearchConfig(searcher="other")


@pytest.mark.parametrize(
    ("loaded", "message"),
    [
        (RandomSearcher, "outside 2 takes the name random, which another searcher has"),
        (7, "outside 2 registers 7 as a searcher"),
    ],
)
def test_clashes_are_named(registered, loaded, message):
    registered(loaded)
    with pytest.raises(InputError, match=message):
        searchers()
