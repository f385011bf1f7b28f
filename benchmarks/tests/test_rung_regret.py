"""Searches of a small table that stop trials: epochs and regrets by hand."""

import json

import numpy as np
import pytest
from made_up_bench import made_up_bench
from tiny import SPACE_WITH_CB

from benchmarks import rung_regret
from benchmarks.rung_regret import CONTROL, EVERY, FIRST, WAYS, WHOLE, Spent
from sharedattn.spaces.space import Space


@pytest.fixture(scope="module")
def bench():
    return made_up_bench(Space.from_yaml(SPACE_WITH_CB, "tiny"), every=1, num_seeds=2, epochs=5)


def test_the_regret_is_that_of_what_had_ended_when_the_epochs_were_spent():
    spent = Spent((5, 7, 12), (0.5, 0.5, 0.25), 2)
    assert [spent.at(epochs) for epochs in (4, 5, 11, 12, 99)] == [1.0, 0.5, 0.5, 0.25, 0.25]


def test_whole_trials_take_all_their_epochs_and_reach_the_front(bench):
    num_members = len(bench.placements)
    found = rung_regret.search(bench, WHOLE, 1, rungs=(2,), num_epochs=5 * num_members)
    assert found.epochs == tuple(range(5, 5 * num_members + 1, 5))
    assert found.num_complete == num_members
    assert found.regrets[-1] == pytest.approx(0.0, abs=1e-12)
    assert found.regrets[0] > 0.0


@pytest.mark.parametrize("way", [FIRST, EVERY, CONTROL])
def test_a_stopped_trial_spends_less_and_adds_nothing(bench, way):
    found = rung_regret.search(bench, way, 1, rungs=(1, 3), num_epochs=71)
    trained = np.diff(found.epochs, prepend=0)
    assert set(trained.tolist()) == {1, 3, 5}
    assert found.num_complete == (trained == 5).sum() < len(trained)
    gains = -np.diff(found.regrets, prepend=1.0)
    assert np.all(gains[trained < 5] == 0.0)
    # Begun before the epochs were spent.
    assert found.epochs[-2] < 71
    assert found == rung_regret.search(bench, way, 1, rungs=(1, 3), num_epochs=71)


def test_what_is_told_differs_between_the_ways(bench, monkeypatch):
    told, parts_of = {}, rung_regret.parts_of
    for way in WAYS:
        monkeypatch.setattr(
            rung_regret,
            "parts_of",
            lambda *a, _way=way, **o: told.setdefault(_way, parts_of(*a, **o)),
        )
        rung_regret.search(bench, way, 0, rungs=(1, 3), num_epochs=60)
    lengths = {
        way: {len(trial.accuracies) for trial in parts[1].trials if trial.values}
        for way, parts in told.items()
    }
    assert lengths == {WHOLE: {1}, FIRST: {0}, EVERY: {1, 2, 3}, CONTROL: {1, 2, 3}}


def test_the_script_prints_each_way_with_its_differences(bench, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(rung_regret, "TRIALS_OF_MARKS", (3, 7, 99))
    bench.save(tmp_path / "bench.npz")
    asked = ["--bench", str(tmp_path / "bench.npz"), "--seeds", "2", "--epochs", "35"]
    rung_regret.main([*asked, "--rungs", "1,3"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 2 * len(WAYS)
    rung_regret.main([*asked, "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["rungs"] == [1, 2]
    ways = {entry["way"]: entry["regrets"] for entry in document["ways"]}
    assert ways[WHOLE]["15"]["over_whole"] is None
    off = ways[EVERY]["35"]["mean"] - ways[FIRST]["35"]["mean"]
    assert ways[EVERY]["35"]["over_first"]["mean"] == pytest.approx(off, abs=2e-5)
