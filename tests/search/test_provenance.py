"""What is stored of the process that ran a study."""

import sys

import pytest

from sharedattn.search.provenance import provenance


def test_the_command_is_stored_without_its_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    storage, weights = "postgresql://me:hunter2@db/studies", "sftp://me:hunter2@host:22/data"
    options = ["--storage", storage, "--weights-dir", weights, "--trials", "7"]
    monkeypatch.setattr(sys, "argv", ["/some/where/sharedattn", "search", *options])
    assert provenance()["command"] == (
        "sharedattn search --storage postgresql://me:***@db/studies "
        "--weights-dir sftp://me:***@host:22/data --trials 7"
    )
