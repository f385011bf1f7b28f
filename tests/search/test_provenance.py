"""What is stored of the process that ran a study."""

import sys

import pytest

from sharedattn.plugins import Plugin
from sharedattn.search import provenance as module
from sharedattn.search.provenance import library_versions, provenance


def test_the_command_is_stored_without_its_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    storage, weights = "postgresql://me:hunter2@db/studies", "sftp://me:hunter2@host:22/data"
    options = ["--storage", storage, "--weights-dir", weights, "--trials", "7"]
    monkeypatch.setattr(sys, "argv", ["/some/where/sharedattn", "search", *options])
    assert provenance()["command"] == (
        "sharedattn search --storage postgresql://me:***@db/studies "
        "--weights-dir sftp://me:***@host:22/data --trials 7"
    )


def test_plug_ins_are_stored_where_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "installed", lambda: ())
    assert "plugins" not in provenance()
    two = (Plugin("poolers", "1.2"), Plugin("searchers", "0.3"))
    monkeypatch.setattr(module, "installed", lambda: two)
    assert provenance()["plugins"] == {"poolers": "1.2", "searchers": "0.3"}
    assert not {"poolers", "searchers"} & set(library_versions())
