"""Each test here is a command as a person types it, and what becomes of it."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def lab(tmp_path, monkeypatch, capsys):
    """A folder to work in, with a space and a table that are searched in a moment."""
    from road_lab import InThisProcess, Lab

    monkeypatch.setattr("search.run.LocalExecutor", InThisProcess)
    monkeypatch.chdir(tmp_path)
    return Lab(capsys)
