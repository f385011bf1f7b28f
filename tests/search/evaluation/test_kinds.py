"""Evaluators of other distributions are chosen by their entry point's name."""

import importlib
import inspect
import json

import pytest

from sharedattn.errors import InputError
from sharedattn.search.cli.main import main
from sharedattn.search.evaluation import functions_of_plugins

GROUP = "sharedattn.evaluators"
SPACE = """\
name: tiny
backbone: vit(depth=2,embed_dim=12,in_chans=1,num_classes=2,num_heads=2,patch_size=8)@16
order: any
stages:
  - depth: 1..2
    counts: {V: 0..2, N: 0..1}
"""


def by_depth(placement):
    """The deeper, the better."""
    return {"top1": len(placement.layers) / 3}


@pytest.fixture(autouse=True)
def asked_anew():
    functions_of_plugins.cache_clear()
    yield
    functions_of_plugins.cache_clear()


def test_a_search_by_an_evaluator_from_outside(entry_point, tmp_path, monkeypatch, capsys):
    # A module that spawned workers can import, as one of a plug-in is; this one they cannot.
    (tmp_path / "evaluators_of_outside.py").write_text(inspect.getsource(by_depth))
    monkeypatch.syspath_prepend(tmp_path)
    function = importlib.import_module("evaluators_of_outside").by_depth
    entry_point(GROUP, "by-depth", function)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.yaml").write_text(SPACE)
    code = main(["search", "space.yaml", "--evaluator", "by-depth", "--workers", "1", "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    front = json.loads(captured.out)["front"]
    assert max(member["top1"] for member in front) == pytest.approx(2 / 3)


def test_an_unknown_name_says_which_there_are(entry_point, capsys):
    entry_point(GROUP, "by-depth", by_depth)
    assert main(["search", "--evaluator", "nothing"]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "--evaluator is 'nothing', and one of scratch, supernet, table, by-depth" in error


@pytest.mark.parametrize(
    ("loaded", "name", "message"),
    [
        (7, "seven", "outside 2 registers 7 as an evaluator"),
        (by_depth, "table", "outside 2 takes the name table, which another evaluator has"),
    ],
)
def test_clashes_are_named(entry_point, loaded, name, message):
    entry_point(GROUP, name, loaded)
    with pytest.raises(InputError, match=message):
        functions_of_plugins()
