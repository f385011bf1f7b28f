"""A search by shared weights as the command line runs it, to a verified export."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from sharedattn.backbones import build, resolve
from sharedattn.data import DataConfig, open_data
from sharedattn.errors import InputError
from sharedattn.placement import NetworkSpec, Placement
from sharedattn.recipe import RECIPES, Recipe
from sharedattn.results.database.store import Store
from sharedattn.results.export.folder import read_export
from sharedattn.results.front.summary import StudySummary
from sharedattn.results.records import TrialRole
from sharedattn.results.report import render_report
from sharedattn.search.cli.main import main
from sharedattn.search.config import SearchConfig
from sharedattn.search.jobs.export import export_placement
from sharedattn.search.jobs.verify import verify_folder
from sharedattn.search.run import prepare, run_search
from sharedattn.search.study.strategies.supernet import SUPERNET_NOTE
from sharedattn.spaces.budget import Budget
from sharedattn.training.trainer import evaluate, train

BACKBONE = (
    "vit(class_token=false,depth=2,embed_dim=10,global_pool=avg,in_chans=1,mlp_ratio=1,"
    "num_classes=2,num_heads=2,patch_size=4)@16"
)
SPACE = {
    "name": "small",
    "backbone": BACKBONE,
    "order": "any",
    "stages": [
        {"depth": "1..2", "counts": {"V": "0..2", "E": "0..1"}, "slots": [3], "dia": [0, 1]}
    ],
}


@pytest.fixture
def config(tmp_path, trials_run_here, few_pairs):
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(SPACE), encoding="utf-8")
    given = {
        "space": str(tmp_path / "space.yaml"),
        "evaluator": "supernet",
        "supernet_epochs": 1,
        "epochs": 1,
        "confirm_seeds": 1,
        "baselines": "none",
        "num_workers": 1,
        "device": "cpu",
        "out": tmp_path / "out",
    }
    return lambda **changes: SearchConfig.of(**given | changes)


@pytest.fixture
def trained():
    """The trained weights of the all-vanilla network, and its accuracy on the scored images."""
    data = open_data(DataConfig(name="digit-pairs", image_size=16, in_chans=1))
    spec = resolve(NetworkSpec.parse(f"{BACKBONE}: V2"))
    recipe = Recipe(epochs=2, batch_size=64, init="torch", lr=5e-3)
    return train(spec, data, recipe, seed=11), data


@pytest.mark.slow
def test_a_search_from_its_start_to_a_verified_export(config, tmp_path):
    prepared = prepare(config(front_training="retrain"))
    assert "starts_from" not in prepared.record.fingerprint_document
    assert prepared.record.num_trials == prepared.space.in_budget
    with Store.open(prepared.storage, create=True) as store:
        summary = StudySummary.read(store, run_search(prepared, store))
        assert summary.count(TrialRole.SEARCH)["complete"] == prepared.space.in_budget
        message = export_placement(
            store, summary, "best", tmp_path / "best", weights=prepared.weights
        )
        assert message is None
        # One that was scored and not trained is trained for its export, and that is said.
        front = {gap.trained.spec_key for gap in summary.inheritance.gaps}
        other = next(c for c in summary.candidates if c.spec_key not in front)
        message = export_placement(
            store, summary, str(other.number), tmp_path / "other", weights=prepared.weights
        )
        assert message.startswith(
            "its accuracy is of shared weights: it was trained for its export, by seed 0"
        )
    assert verify_folder(tmp_path / "best")["ok"] is True
    assert read_export(tmp_path / "other").evaluation.identity.fidelity.weights == "trained"
    page = render_report(summary, convention="")
    assert "Inherited and trained" in page
    assert f"{prepared.space.in_budget:,}</b><span>of" in page
    assert "placements scored by shared weights" in page
    assert "after placements were trained from scratch. The two" in page
    assert summary.inheritance.to_json()["front_training"] == "retrain"


@pytest.mark.slow
@pytest.mark.parametrize("neutral_gates", [True, False])
def test_members_of_the_front_go_on_from_the_weights_that_scored_them(
    config, tmp_path, neutral_gates
):
    recipe = {
        "training": {"epochs": 2, "batch_size": 64, "init": "torch", "lr": 5e-3},
        "neutral_gates": neutral_gates,
    }
    (tmp_path / "supernet.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    # An update at a rate of nothing leaves each member as it is.
    still = {"epochs": 1, "batch_size": 64, "lr": 0.0, "min_lr": 0.0}
    (tmp_path / "still.yaml").write_text(yaml.safe_dump(still), encoding="utf-8")
    prepared = prepare(
        config(
            supernet_recipe=str(tmp_path / "supernet.yaml"),
            supernet_epochs=None,
            recipe=str(tmp_path / "still.yaml"),
            epochs=None,
        )
    )
    assert (prepared.space.space.backbone.options.dia_start == "one") is neutral_gates
    with Store.open(prepared.storage, create=True) as store:
        summary = StudySummary.read(store, run_search(prepared, store))
        export_placement(store, summary, "best", tmp_path / "best", weights=prepared.weights)
        sha256 = store.searcher_attributes(summary.study)[SUPERNET_NOTE]["sha256"]
    assert summary.inheritance.gaps
    assert summary.inheritance.to_json()["front_training"] == "fine-tune"
    assert "fine-tuned from them, +0.0 points" in str(summary.inheritance)
    assert {gap.top1 for gap in summary.inheritance.gaps} == {0.0}
    assert read_export(tmp_path / "best").starts_from == sha256
    card = (tmp_path / "best" / "README.md").read_text(encoding="utf-8")
    assert f"share of a supernet's weights (sha256 {sha256[:12]})" in card
    assert verify_folder(tmp_path / "best")["ok"] is True


@pytest.mark.slow
def test_a_search_from_a_trained_model_keeps_it_and_fine_tunes_its_front(
    config, trained, tmp_path
):
    training, data = trained
    save_file(training.network.state_dict(), tmp_path / "model.safetensors")
    changes = {"supernet_epochs": 2, "confirm_seeds": 2}
    prepared = prepare(config(weights=str(tmp_path / "model.safetensors"), **changes))
    shared = prepared.shared
    assert prepared.space.space.backbone.options.dia_start == "one"
    assert shared.supernet.recipe.alone_epochs == 2
    with Store.open(prepared.storage, create=True) as store:
        summary = StudySummary.read(store, run_search(prepared, store))
        export_placement(store, summary, "best", tmp_path / "best", weights=prepared.weights)
        sha256 = store.searcher_attributes(summary.study)[SUPERNET_NOTE]["sha256"]
        # Weights that have gone are fine-tuned again, to the same.
        best = summary.pick("best").best_run
        first = prepared.weights.load(best.evaluation_key, best.weights_sha256)
        prepared.weights.delete(best.evaluation_key)
        message = export_placement(
            store, summary, "best", tmp_path / "again", weights=prepared.weights
        )
        assert "not found" in message
        again = load_file(tmp_path / "again" / "model.safetensors")
        assert all(torch.equal(again[name], tensor) for name, tensor in first.items())
        prepared.weights.delete(shared.supernet_identity.key)
        with pytest.raises(InputError, match="from the supernet's weights.*put them back"):
            export_placement(store, summary, "best", tmp_path / "no", weights=prepared.weights)
    assert verify_folder(tmp_path / "again")["ok"] is True
    # New parts learnt alone, so that the trained model is what it was.
    [whole] = [row for row in summary.rows if row.placement == "V2" and row.role.value == "search"]
    alone = evaluate(
        training.network,
        data,
        "validation",
        batch_size=256,
        num_images=shared.supernet.recipe.scored_images,
    )
    assert whole.top1 == alone.quality
    record = read_export(tmp_path / "best")
    assert record.starts_from == sha256
    assert verify_folder(tmp_path / "best")["ok"] is True
    assert {len(member.runs) for member in summary.front.members} == {2}
    # The same study from other weights is another one.
    other = build(NetworkSpec.parse(f"{BACKBONE}: V2")).state_dict()
    save_file(other, tmp_path / "other.safetensors")
    again = prepare(config(weights=str(tmp_path / "other.safetensors"), **changes))
    assert again.record.name != prepared.record.name


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"early_stopping": "mo-asha"}, "a supernet's scores are not trained for"),
        (
            {"evaluator": "scratch"},
            "--supernet-epochs requires --evaluator supernet",
        ),
        ({"supernet_recipe": "nothing"}, "`supernet_recipe` is 'nothing', but there is no such"),
        ({"weights": "nowhere.safetensors"}, "nowhere.safetensors"),
        (
            {"weights": "model.safetensors", "front_training": "retrain"},
            "--front-training retrain excludes --weights",
        ),
        ({"confirm_seeds": -1}, "`--confirm-seeds` is a whole number from 0"),
        ({"supernet_epochs": 0}, "`--supernet-epochs` is a whole number from 1"),
    ],
)
def test_bad_input_is_refused_before_any_work(config, changes, rule, tmp_path):
    with pytest.raises(InputError, match=rule):
        prepare(config(**changes))
    assert not (tmp_path / "out" / "sharedattn.db").exists()


def test_weights_of_another_shape_or_family_are_refused(config, tmp_path):
    other = build(NetworkSpec.parse(f"{BACKBONE.replace('embed_dim=10', 'embed_dim=14')}: V2"))
    save_file(other.state_dict(), tmp_path / "wider.safetensors")
    with pytest.raises(InputError, match="wider.safetensors"):
        prepare(config(weights=str(tmp_path / "wider.safetensors")))


def test_a_supernet_is_searched_with_no_training_of_the_front_where_none_is_asked(config):
    prepared = prepare(config(confirm_seeds=0, num_trials=5, budget=Budget()))
    with Store.open(prepared.storage, create=True) as store:
        summary = StudySummary.read(store, run_search(prepared, store))
    assert summary.count(TrialRole.SEARCH)["complete"] == 5
    assert not summary.count(TrialRole.CONFIRM)["complete"]
    assert not summary.front.is_confirmed
    assert summary.front.fidelity.weights == "inherited"
    assert Placement.parse("V2") in {Placement.parse(c.placement) for c in summary.candidates}


def test_a_front_of_which_nothing_is_trained_is_shown_and_its_knee_trained_for_the_export(
    config, tmp_path, capsys
):
    arguments = ["search", config().space, "--evaluator", "supernet", "--supernet-epochs", "1"]
    arguments += ["--epochs", "1", "--trials", "5", "--workers", "1", "--device", "cpu"]
    arguments += ["--confirm-seeds", "0", "--out", str(tmp_path / "out"), "--json"]
    assert main(arguments) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["trials"]["complete"] == 5
    record = read_export(Path(document["exported"]))
    assert record.starts_from is not None
    assert record.evaluation.identity.fidelity.weights == "trained"
    assert record.top1_by_seed == {0: record.evaluation.top1}
    assert verify_folder(Path(document["exported"]))["ok"] is True
    # Trained by itself it begins from scratch, by the recipe for that.
    retrained = ["train", document["exported"], "--epochs", "1", "--device", "cpu"]
    assert main([*retrained, "--to", str(tmp_path / "retrained")]) == 0
    record = read_export(tmp_path / "retrained")
    assert record.starts_from is None
    assert Recipe.from_json(record.recipe) == RECIPES["digit-pairs"].with_changes(epochs=1)
    # A finished study is asked again for its result, and makes nothing anew.
    written = (Path(document["exported"]) / "model.safetensors").stat().st_mtime_ns
    assert main(arguments) == 0
    assert (Path(document["exported"]) / "model.safetensors").stat().st_mtime_ns == written
