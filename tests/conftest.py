"""One thread a process and repeatable examples, so that tests mean the same on every machine.

And a PostgreSQL server, started for the first test that asks for one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import settings

if TYPE_CHECKING:
    from postgresql_server import PostgreSQLServer

torch.set_num_threads(1)
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")

_database_numbers = itertools.count()


@pytest.fixture(autouse=True)
def data_is_opened_anew(request: pytest.FixtureRequest) -> Iterator[None]:
    """Data that was opened before or while a test had it smaller is of no use afterwards."""
    if "monkeypatch" not in request.fixturenames:
        yield
        return
    from sharedattn.data import open_data

    open_data.cache_clear()
    yield
    open_data.cache_clear()


@pytest.fixture
def entry_point(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets one entry point of a distribution `outside 2` stand for all that are installed.

    Its arguments: the group, the name, and the object that it loads, or the error that it raises.
    What remembers plug-ins is to be cleared by who asks.
    """

    def install(group: str, name: str, loaded: object) -> None:
        def load() -> object:
            if isinstance(loaded, Exception):
                raise loaded
            return loaded

        dist = SimpleNamespace(name="outside", version="2")
        point = SimpleNamespace(name=name, value=f"outside:{name}", load=load, dist=dist)
        found = {group: [point]}
        monkeypatch.setattr("sharedattn.plugins.entry_points", lambda group: found.get(group, []))

    return install


@pytest.fixture
def trials_run_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials run in this process; worker processes are tested by themselves."""
    from commands import run_trials_here

    run_trials_here(monkeypatch)


@pytest.fixture
def few_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """`digit-pairs` with few images, in this process alone."""
    monkeypatch.setattr("sharedattn.data.digit_pairs.PAIRS_PER_EPOCH", 448)
    monkeypatch.setattr("sharedattn.data.digit_pairs.EVAL_PAIRS", 400)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgreSQLServer]:
    """A server of these tests' own; mark those who use it as slow."""
    from postgresql_server import PostgreSQLServer

    with PostgreSQLServer() as server:
        # No test cuts the power, and what a server has written outlives its crash without a flush.
        for statement in ("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()"):
            server.execute(statement)
        yield server


@pytest.fixture
def postgresql_url(postgresql_server: PostgreSQLServer) -> Iterator[str]:
    """URL of an empty database, which goes with the test."""
    name = f"test_{next(_database_numbers)}"
    yield postgresql_server.create_database(name)
    postgresql_server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order of tests, and which of them share a process where there are several.

    Those with a PostgreSQL server share one, and so one server; those with Ray another, since
    clusters beside each other starve. Slow ones come first: one that began last would run alone.
    """
    for item in items:
        if "postgresql_server" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("postgresql"))
        elif "ray" in item.keywords:
            item.add_marker(pytest.mark.xdist_group("ray"))
    items.sort(key=lambda item: "slow" not in item.keywords)
