"""The road a new user takes: folders, weights and options as people have them."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from colours import COLOURS, RECIPE, SPACE, put


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder but for a space and a recipe."""
    (tmp_path / "space.yaml").write_text(SPACE)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def data(here):
    """`data/train/` with 16 images of each of three colours."""
    for number, colour in enumerate(COLOURS):
        put(here / "data" / "train" / colour, colour, 16, start=100 * number)
    return here / "data"


@pytest.fixture
def lab(tmp_path, monkeypatch, capsys):
    """A folder to work in, with a space and a table that are searched in a moment."""
    from road_lab import InThisProcess, Lab

    monkeypatch.setattr("search.run.LocalExecutor", InThisProcess)
    monkeypatch.chdir(tmp_path)
    return Lab(capsys)
