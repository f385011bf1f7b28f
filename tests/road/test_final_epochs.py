"""A front that is trained for longer than the trials that found it."""

import json
import shutil

import pytest

from sharedattn.data import DataConfig, open_data
from sharedattn.placement import NetworkSpec
from sharedattn.recipe import Recipe
from sharedattn.results.database.store import Store
from sharedattn.results.export.folder import read_export
from sharedattn.results.records import TrialRole, TrialState
from sharedattn.search.evaluators.scratch import ScratchEvaluator
from sharedattn.training.trainer import train


def command(tiny, **changes):
    given = {
        "epochs": 1,
        "final-epochs": 3,
        "trials": 6,
        "confirm-seeds": 2,
        "workers": 1,
        "device": "cpu",
        "out": "out",
        **changes,
    }
    return ["search", tiny] + [
        part for name, value in given.items() for part in (f"--{name}", value)
    ]


def test_the_final_front_is_of_long_trainings(here, run, tiny, few_pairs, trials_run_here):
    code, out, err = run(*command(tiny), "--json")
    assert code == 0, err
    document = json.loads(out)
    assert document["fidelity"]["epochs"] == 3
    assert document["confirmed"] is True
    ranking = document["ranking"]
    assert (ranking["trial_epochs"], ranking["final_epochs"]) == (1, 3)
    searched = {m["id"] for m in ranking["trial_front"]}
    placements = {p["placement"]: p for p in ranking["placements"]}
    assert searched <= {p["id"] for p in placements.values()}
    # Of members that are equal in every objective, one is trained.
    trained = [m for m in ranking["trial_front"] if placements[m["placement"]]["seeds"] == 2]
    assert {(m["top1"], m["macs"]) for m in trained} == {
        (m["top1"], m["macs"]) for m in ranking["trial_front"]
    }

    # What a plain training of that length gives.
    member = document["front"][0]
    record = read_export(here / "out" / document["study"] / "knee")
    assert record.recipe["epochs"] == 3
    assert record.evaluation.identity.fidelity.epochs == 3
    recipe = Recipe.load("digit-pairs").with_changes(epochs=3)
    data = open_data(DataConfig(name="digit-pairs", image_size=16, in_chans=1))
    backbone = str(record.spec).partition(":")[0]
    spec = NetworkSpec.parse(f"{backbone}: {member['placement']}")
    for seed, top1 in member["top1_by_seed"].items():
        assert train(spec, data, recipe, seed=int(seed)).metrics.quality == top1
    assert json.loads(run("verify", document["exported"], "--json").out)["ok"] is True

    # Both fronts are told, and the order of the trials.
    code, out, _ = run("front", "--out", "out")
    assert "the front of the trials, of 1 epoch:" in out
    assert "trained for 3 epochs as well as for 1 epoch;" in out

    # Weights that are gone are trained again for as long.
    shutil.rmtree(here / "out" / "weights")
    code, out, err = run("export", "--out", "out", "--pick", "best", "--to", "again")
    assert code == 0, err
    assert read_export(here / "again").evaluation.identity.fidelity.epochs == 3


def test_a_killed_search_goes_on_without_a_second_training(
    here, run, tiny, few_pairs, trials_run_here, monkeypatch
):
    real, calls = ScratchEvaluator.final_task, []

    def killed(self, *args, **kwargs):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(self, *args, **kwargs)

    monkeypatch.setattr(ScratchEvaluator, "final_task", killed)
    assert run(*command(tiny), "--json").code == 130
    monkeypatch.setattr(ScratchEvaluator, "final_task", real)
    code, out, err = run(*command(tiny), "--json")
    assert code == 0, err
    with Store.open(f"sqlite:///{here / 'out' / 'sharedattn.db'}") as store:
        study = store.study(json.loads(out)["study"])
        rows = store.trials.of(study, TrialRole.CONFIRM)
    assert {row.state for row in rows} == {TrialState.COMPLETE}
    assert len({(row.spec_key, row.replicate) for row in rows}) == len(rows)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"final-epochs": 1}, "`--final-epochs` is 1, but trials have 1 epochs already"),
        ({"final-epochs": 0}, "`--final-epochs`"),
        ({"evaluator": "supernet"}, "--evaluator supernet excludes --final-epochs"),
        ({"evaluator": "table", "table": "t.json"}, "requires --evaluator scratch"),
    ],
)
def test_what_makes_no_sense_is_refused(here, run, tiny, few_pairs, changes, said):
    code, out, err = run(*command(tiny, **changes))
    assert code == 2
    assert said in err
