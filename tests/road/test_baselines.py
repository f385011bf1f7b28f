"""What a person would try by hand is trained beside a front that starts from trained weights."""

import json

import pytest
from colour_model import PIXELS, arguments, colour_model, trained, write_inputs
from safetensors.torch import save_file

from sharedattn.backbones import build, resolve
from sharedattn.costs.model import CostModel
from sharedattn.errors import InputError
from sharedattn.placement import NetworkSpec
from sharedattn.results.database.store import Store
from sharedattn.results.export.folder import read_export
from sharedattn.results.records import TrialRole, TrialState
from sharedattn.search.config import SearchConfig
from sharedattn.search.data_plan import DataOptions
from sharedattn.search.evaluators.supernet import SupernetEvaluator
from sharedattn.search.run import prepare
from sharedattn.training.trainer import Trainer

# timm 1.0.31 leaves closing an image's file to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

SPACE = """\
name: colours
backbone: vit(depth=3,embed_dim=12,mlp_ratio=1,num_heads=2,patch_size=8)@16
order: any
stages: [{depth: 1..3, counts: {V: 0..3, N: 0..3}}]
"""


@pytest.fixture
def model(here, in_this_process):
    """A trained model of timm's, stored, with a space and images."""
    pixels = write_inputs(here, SPACE)
    found = trained(
        colour_model(depth=3),
        here / "data" / "train",
        pixels,
    )
    save_file(found.state_dict(), here / "model.safetensors")
    return found


def searched(run, **changes):
    code, out, err = run(*arguments(**{"baselines": None, **changes}), "--json")
    assert code == 0, err
    return json.loads(out)


def trained_by_hand(model, placement, seed, *, is_taught=False):
    """The accuracy of some of the model's blocks, fine-tuned without the search."""
    config = SearchConfig.of(
        space="space.yaml",
        evaluator="supernet",
        data="data",
        weights="model.safetensors",
        recipe="recipe.yaml",
        epochs=1,
        supernet_recipe="supernet.yaml",
        data_options=DataOptions(pixels=PIXELS),
        device="cpu",
        num_workers=1,
    )
    prepared = prepare(config, remember=False)
    scratch = prepared.shared.scratch
    spec = resolve(NetworkSpec.parse(f"{prepared.space.space.backbone}: {placement}"))
    network = build(spec)
    kept = [i for i, layer in enumerate(spec.placement.layers) if not layer.is_absent]
    state = {
        name: weight
        for name, weight in model.state_dict().items()
        if not name.startswith("blocks.") or int(name.split(".")[1]) in kept
    }
    network.load_state_dict(state, strict=True)
    teacher = None
    if is_taught:
        teacher = build(resolve(NetworkSpec.parse(f"{prepared.space.space.backbone}: V3")))
        teacher.load_state_dict(model.state_dict(), strict=True)
    trainer = Trainer(
        spec,
        scratch.opened(),
        scratch.recipe,
        seed=seed,
        device="cpu",
        network=network,
        teacher=teacher,
    )
    while not trainer.finished:
        trainer.run_epoch()
    return trainer.result().metrics.quality


def test_every_baseline_is_the_network_that_a_person_would_make(here, run, model):
    document = searched(run, **{"confirm-seeds": 2})
    found = {(b["kind"], b["network"].partition(": ")[2]): b for b in document["baselines"]}
    kinds = [kind for kind, _ in found]
    assert kinds[0] == "uncut"
    assert {"first", "cheapest", "narrow", "shallow"} <= set(kinds)
    assert found["uncut", "V3"]["params"] == sum(p.numel() for p in model.parameters())
    for (kind, placement), one in found.items():
        spec = NetworkSpec.parse(one["network"])
        totals = CostModel(spec.backbone).totals(spec.placement)
        assert (one["macs"], one["params"]) == (totals.macs, totals.params)
        assert one["seeds"] == 2
        if kind in ("first", "even", "uncut"):
            by_hand = [trained_by_hand(model, placement, seed) for seed in (0, 1)]
            assert one["top1"] == pytest.approx(sum(by_hand) / 2, abs=1e-12)
        # The comparison is with the front's best of no more MACs.
        within = [m for m in document["front"] if m["macs"] <= one["macs"]]
        if not within:
            assert one["front_id"] is None
            continue
        best = max(within, key=lambda m: (m["top1"], -m["macs"]))
        assert one["front_id"] == best["id"]
        assert one["front_difference"] == pytest.approx(best["top1"] - one["top1"], abs=1e-12)
        assert one["front_difference_half_width"] >= 0
    narrow = [
        NetworkSpec.parse(b["network"]) for b in document["baselines"] if b["kind"] == "narrow"
    ]
    assert all(dict(spec.backbone.keywords)["embed_dim"] < 12 for spec in narrow)


def test_by_a_recipe_with_distillation_they_learn_from_the_model_and_from_scratch_alone(
    here, run, model
):
    recipe = here / "recipe.yaml"
    text = recipe.read_text(encoding="utf-8")
    recipe.write_text(text.replace("{", "{distillation: 0.5, ", 1))
    document = searched(run)
    found = {b["kind"]: b for b in document["baselines"]}
    placement = found["first"]["network"].partition(": ")[2]
    taught = trained_by_hand(model, placement, 0, is_taught=True)
    assert found["first"]["top1"] == pytest.approx(taught, abs=1e-12)
    with pytest.raises(InputError, match="starts from no trained model"):
        trained_by_hand(model, placement, 0)
    study = document["study"]
    with Store.open(f"sqlite:///{here / 'out' / 'sharedattn.db'}") as store:
        rows = store.trials.of(store.study(study), TrialRole.BASELINE)
        found = [store.find_evaluation(row.evaluation_key).record.identity for row in rows]
    # One of the cuts, with the key of the model that they learn from; one from scratch.
    assert len({identity.recipe_key for identity in found}) == 2
    assert {row.state for row in rows} == {TrialState.COMPLETE}
    # What was cut is not trained again without the model that it learnt from.
    for file in (here / "out" / "weights").glob("*.safetensors"):
        file.unlink()
    code, _, err = run("export", "--pick", "best", "--to", "again", "--out", "out")
    assert code == 2 and not (here / "again").exists()
    assert "learnt from the model that the search started from" in err


def test_they_stand_in_text_report_card_and_config(here, run, model):
    document = searched(run)
    code, out, _ = run("front", "--out", "out")
    assert "what one would try by hand, trained for as many seeds:" in out
    assert "the backbone uncut" in out
    lines = [line for line in out.splitlines() if line.startswith("at ")]
    assert any("points over" in line for line in lines)
    page = (here / "out" / document["study"] / "report.html").read_text(encoding="utf-8")
    assert "Beside what one would do by hand" in page
    assert '"baselines":[{"id":' in page
    record = read_export(here / "out" / document["study"] / "knee")
    assert [b["kind"] for b in record.baselines] == [b["kind"] for b in document["baselines"]]
    card = (here / "out" / document["study"] / "knee" / "README.md").read_text(encoding="utf-8")
    assert "| the backbone uncut |" in card
    assert json.loads(run("verify", document["exported"], "--json").out)["ok"] is True


def test_a_killed_search_trains_each_baseline_once(here, run, model, monkeypatch):
    real, calls = SupernetEvaluator.baseline_task, []

    def killed(self, network, seed, checkpoint=None):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(network.kind)
        return real(self, network, seed, checkpoint)

    monkeypatch.setattr(SupernetEvaluator, "baseline_task", killed)
    assert run(*arguments(baselines=None), "--json").code == 130
    monkeypatch.setattr(SupernetEvaluator, "baseline_task", real)
    document = searched(run)
    again = searched(run)
    assert again["baselines"] == document["baselines"]
    with Store.open(f"sqlite:///{here / 'out' / 'sharedattn.db'}") as store:
        rows = store.trials.of(store.study(document["study"]), TrialRole.BASELINE)
    assert {row.state for row in rows} == {TrialState.COMPLETE}
    assert [row.number for row in rows] == list(range(len(rows)))
    assert len(rows) == len(document["baselines"])
    # None of their weights is kept: the front's members alone have weights.
    assert all(row.weights_sha256 is None for row in rows)


def test_none_are_trained_where_they_are_not_wanted(here, run, model):
    document = searched(run, baselines="none")
    assert document["baselines"] == []
    # They may be asked for later, of the same study.
    assert searched(run, baselines="naive")["study"] == document["study"]
    assert searched(run, baselines="naive")["baselines"]


def test_a_search_from_scratch_trains_them_by_the_same_recipe(here, run, model):
    command = ["search", "space.yaml", "--data", "data", "--recipe", "recipe.yaml", "--epochs", 1]
    command += ["--trials", 5, "--confirm-seeds", 1, "--workers", 1, "--device", "cpu"]
    code, out, err = run(*command, "--out", "plain", "--json")
    assert code == 0, err
    assert json.loads(out)["baselines"] == []
    code, out, err = run(*command, "--out", "plain", "--baselines", "naive", "--json")
    assert code == 0, err
    document = json.loads(out)
    assert {b["kind"] for b in document["baselines"]} <= {"uncut", "cheapest", "narrow", "shallow"}
    with Store.open(f"sqlite:///{here / 'plain' / 'sharedattn.db'}") as store:
        study = store.study(document["study"])
        searched_keys = {row.spec_key: row.top1 for row in store.trials.of(study)}
        for row in store.trials.of(study, TrialRole.BASELINE):
            # A network that the search has trained is not trained again.
            assert row.reused is (row.spec_key in searched_keys)
            if row.reused:
                assert row.top1 == searched_keys[row.spec_key]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"evaluator": "table", "table": "t.json"}, "--evaluator table excludes --baselines"),
        (
            {"evaluator": "supernet", "confirm_seeds": 0},
            "--baselines naive requires --confirm-seeds of at least 1",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(changes, said):
    with pytest.raises(Exception, match=said):
        SearchConfig.of(baselines="naive", **changes)


def test_the_file_of_the_model_is_unchanged(here, run, model):
    before = (here / "model.safetensors").read_bytes()
    searched(run)
    assert (here / "model.safetensors").read_bytes() == before


def test_weights_that_are_not_there_are_said_before_pixels_are_asked_for(here, run):
    write_inputs(here, SPACE)
    code, _, err = run(*arguments(weights="nope", mean=None, std=None))
    assert code == 2
    assert "`--weights` is a file, an exported folder or 'timm', but there is no 'nope'" in err
