"""The road a new user takes: folders, weights and options as people have them.

Each test here is a command as a person types it, and what becomes of it.
"""

import json
import sys
from functools import partial
from pathlib import Path

import commands
import pytest
from tiny import SPACE_WITH_CB

sys.path.insert(0, str(Path(__file__).parent))
# `reader_2` asks the studies and fake evaluators of the tests of searches.
sys.path.append(str(Path(__file__).parents[1] / "search"))

from colours import COLOURS, RECIPE, SPACE, put
from road_lab import InProcess, Lab


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
    monkeypatch.setattr("sharedattn.search.run.LocalExecutor", InProcess)
    monkeypatch.chdir(tmp_path)
    return Lab(capsys)


@pytest.fixture
def few_pairs(monkeypatch):
    """`digit-pairs` with still fewer images than other rooms' tests have."""
    monkeypatch.setattr("sharedattn.data.digit_pairs.PAIRS_PER_EPOCH", 256)
    monkeypatch.setattr("sharedattn.data.digit_pairs.EVAL_PAIRS", 200)


@pytest.fixture
def in_process(monkeypatch, few_pairs):
    """Searches whose trials run in this process, and say after each step how far they are."""
    monkeypatch.setattr("sharedattn.search.run.LocalExecutor", InProcess)


@pytest.fixture
def tiny(tmp_path):
    """A space of 12 placements, as a file."""
    path = tmp_path / "tiny.yaml"
    path.write_text(SPACE_WITH_CB.replace("in_chans=1,", "in_chans=1,mlp_ratio=1,"))
    return path


@pytest.fixture
def recipe(tmp_path):
    """Writes a recipe's file: training fields, small batches."""

    def write(**fields) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(json.dumps({"epochs": 1, "batch_size": 64, **fields}))
        return path

    return write


@pytest.fixture
def run(capsys):
    """Runs a command; its exit code, standard output and standard error."""

    return partial(commands.run, capsys)


@pytest.fixture
def in_this_process(trials_run_here, monkeypatch):
    """Neither trials nor the loading of images have processes of their own."""
    monkeypatch.setattr("sharedattn.data.images._num_workers", lambda *_: 0)
