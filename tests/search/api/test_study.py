"""The front door: the documented snippet, a user's own evaluator, storage, going on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fakes import Fake
from matplotlib.figure import Figure

import sharedattn as sa
from sharedattn.results.database.store import Store

ROOT = Path(__file__).parents[3]


def attending(placement):
    """More layers that attend are better, for tests."""
    return {"top1": 0.3 + 0.1 * sum(layer.kind in "VL" for layer in placement.layers)}


def study_of(space, folder, evaluator=attending, **options):
    options = {"confirm_seeds": 1, "storage": folder / "study.db", **options}
    return sa.Study(space, evaluator, **options)


def test_the_snippet_runs_twice(space, images, tmp_path):
    (tmp_path / "recipe.yaml").write_text("{epochs: 1, batch_size: 8}")
    fronts = []
    for _ in range(2):
        inside = space.within(max_macs="20k")
        study = sa.Study(
            inside,
            evaluator=sa.FromScratch(images, epochs=1, recipe=tmp_path / "recipe.yaml"),
            searcher="nsga2",
            storage=tmp_path / "study.db",
            confirm_seeds=1,
        )
        study.run(trials=3)
        frame = study.front().to_dataframe()
        assert list(frame.columns) == [
            "id",
            "placement",
            "top1",
            "top1_standard_error",
            "macs",
            "params",
            "seeds",
        ]
        assert (frame["macs"] <= 20_000).all()
        assert isinstance(study.plot_front(), Figure)
        picked = study.pick("knee")
        network = picked.load()
        assert network(torch.zeros(2, 1, 16, 16)).shape == (2, 2)
        assert sum(p.numel() for p in network.parameters()) == picked.costs["params"]
        fronts.append(frame.to_dict("records"))
    assert fronts[0] == fronts[1]
    assert sa.load(picked.export(tmp_path / "knee")).training is False
    with Store.open(study.storage) as store:
        assert len(store.trials.of(store.study(study.name))) == 3


def test_one_network():
    assert sa.cost("deit_tiny_patch16_224: V12").params == 5_717_416
    network = sa.build("vit(depth=2,embed_dim=8,num_heads=2,patch_size=4,num_classes=3)@16: V2")
    assert network(torch.zeros(1, 3, 16, 16)).shape == (1, 3)
    with pytest.raises(sa.InputError):
        sa.build("deit_tiny_patch16_224")


def test_an_evaluator_gets_the_placement_or_the_built_network(space, tmp_path):
    def by_network(network):
        return {"top1": sum(p.numel() for p in network.parameters()) / 1e5, "loss": 1.25}

    study = study_of(space, tmp_path, by_network, name="network").run(trials=4)
    for member in study.front():
        assert member.top1 == pytest.approx(member.costs["params"] / 1e5)
        assert member.candidate.runs[0].loss == 1.25
    by_placement = study_of(space, tmp_path, name="placement").run(trials=4)
    for member in by_placement.front():
        assert member.top1 == attending(member.placement)["top1"]
    with pytest.raises(sa.InputError, match="its evaluator keeps none"):
        by_placement.pick("best").load()
    with pytest.raises(sa.InputError, match="this study trains nothing"):
        by_placement.pick("best").export(tmp_path / "best")


def test_a_network_is_seeded_and_the_callers_generator_is_left_alone(space, tmp_path):
    def first_weight(network):
        return {"top1": float(next(network.parameters()).sigmoid().mean())}

    torch.manual_seed(3)
    before = torch.get_rng_state()
    one = study_of(space, tmp_path, first_weight, name="one", seed=5).run(trials=2)
    assert torch.equal(torch.get_rng_state(), before)
    other = study_of(space, tmp_path / "b", first_weight, name="two", seed=5).run(trials=2)
    assert [m.top1 for m in one.front()] == [m.top1 for m in other.front()]


def test_an_evaluator_object_with_rungs_is_taken_as_it_is(space, tmp_path):
    study = study_of(space, tmp_path, Fake()).run(trials=3)
    assert [m.top1 for m in study.front()] == [
        Fake().measure(Fake().task(m.network, 0)).top1 for m in study.front()
    ]


@pytest.mark.parametrize(
    ("returned", "why"),
    [
        (0.5, "returns metrics by name"),
        ({"accuracy": 0.5}, "returns metrics by name"),
        ({"top1": 0.5, "f1": 0.1, "auc": 0.2}, "returned f1, auc, and there is no place"),
        ({"top1": "much"}, "a metric that is no number"),
        ({"top1": 50.0}, "`top1` is from 0 to 1"),
    ],
)
def test_what_an_evaluator_returns_is_checked(space, tmp_path, returned, why):
    study = study_of(space, tmp_path, lambda placement: returned).run(trials=1)
    assert len(study.front()) == 0
    (failure,) = study.front().stored.summary.failures
    assert why in failure.reason
    with pytest.raises(sa.InputError, match="no complete trial yet"):
        study.pick()


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"evaluator": "scratch"}, "`evaluator` is a callable, but got 'scratch'"),
        ({"evaluator": lambda: {}}, "`evaluator` takes one argument"),
        ({"evaluator": lambda a, b: {}}, "`evaluator` takes one argument"),
        ({"early_stopping": "mo-asha"}, "`early_stopping` requires an evaluator that reports"),
        ({"evaluator": sa.FromTable()}, "--evaluator table requires --table FILE"),
        ({"searcher": "guess"}, "`--searcher` is one of"),
        ({"storage": "mysql://localhost/x"}, "`storage` is sqlite:///FILE"),
    ],
)
def test_arguments_are_checked_before_any_work(space, tmp_path, options, rule):
    with pytest.raises(sa.InputError, match=rule):
        study_of(space, tmp_path, **options)
    assert not (tmp_path / "study.db").exists()


def test_run_checks_its_arguments(space, tmp_path):
    study = study_of(space, tmp_path)
    with pytest.raises(sa.InputError, match="one trial at a time runs in this process"):
        study.run(trials=1, workers=2, executor=sa.InProcess())
    with pytest.raises(sa.InputError, match="`executor` is InProcess"):
        study.run(trials=1, executor="local")
    with pytest.raises(sa.InputError, match="`--trials` is a whole number"):
        study.run(trials=0)


def test_storage_is_a_path_or_a_url_and_studies_go_on(space, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    calls = []

    def counted(placement):
        calls.append(str(placement))
        return attending(placement)

    counted.identity = "attending layers"
    by_path = sa.Study(space, counted, storage="study.db", confirm_seeds=1).run(trials=3)
    assert len(calls) == 3
    url = f"sqlite:///{tmp_path / 'study.db'}"
    by_url = sa.Study(space, counted, storage=url, confirm_seeds=1)
    assert by_url.name == by_path.name
    assert by_url.storage == by_path.storage == url
    assert by_url.run(trials=5) is by_url
    assert len(calls) == 5
    # Another study in the same database takes what was evaluated.
    sa.Study(space, counted, storage=url, confirm_seeds=1, name="other").run(trials=5)
    assert len(calls) == 5


def test_the_default_storage_lies_in_out(space, tmp_path):
    study = sa.Study(space, attending, out=tmp_path / "out", confirm_seeds=1).run(trials=1)
    assert (tmp_path / "out" / "sharedattn.db").is_file()
    assert study.report() == tmp_path / "out" / study.name / "report.html"
    assert study.report().is_file()


def test_another_evaluator_is_another_study(space, tmp_path):
    def one(placement):
        return {"top1": 0.5}

    def other(placement):
        return {"top1": 0.25}

    study_of(space, tmp_path, one, name="mine").run(trials=1)
    with pytest.raises(sa.InputError, match="recipe was"):
        study_of(space, tmp_path, other, name="mine").run(trials=1)
    assert study_of(space, tmp_path, one).name != study_of(space, tmp_path, other).name


def test_the_model_searches_unless_named_and_a_study_of_the_former_default_goes_on(
    space, tmp_path
):
    former = study_of(space, tmp_path, searcher="nsga2").run(trials=3)
    chosen = study_of(space, tmp_path, searcher="model").run(trials=3)
    assert former.name != chosen.name
    alone = study_of(space, tmp_path, storage=tmp_path / "new.db").run(trials=3)
    assert alone.name == chosen.name
    # A database that has both goes on with what is the default now.
    assert study_of(space, tmp_path).name == chosen.name
    old = study_of(space, tmp_path, searcher="nsga2", storage=tmp_path / "old.db").run(trials=3)
    again = study_of(space, tmp_path, storage=tmp_path / "old.db").run(trials=5)
    assert again.name == old.name == former.name
    with Store.open(again.storage) as store:
        (study,) = store.studies()
        assert study.record.searcher == "nsga2"
        assert len(store.trials.of(study)) > 3


def test_studies_show_themselves(space, tmp_path):
    study = study_of(space, tmp_path, name="shown")
    assert "not run yet" in study._repr_html_()
    study.run(trials=3)
    html = study._repr_html_()
    assert "3 complete" in html and "<th>placement</th>" in html
    assert repr(study.front()).startswith("<Front of shown: ")
    assert study.plot_front()._repr_png_().startswith(b"\x89PNG")
    assert "MACs" in space._repr_html_()


def test_a_study_explains_itself_once_it_has_trials_enough(tmp_path):
    space = sa.Space.load("digit-count-vit")
    study = study_of(space, tmp_path, searcher="stratified")
    study.run(trials=11)
    with pytest.raises(sa.InputError, match="has 11 different placements .* needs 1 more trial:"):
        study.explain()
    study.run(trials=40)
    explanation = study.explain()
    assert (explanation.study, explanation.num_placements) == (study.name, 40)
    # At equal MACs, a layer that attends takes the place of several that are worth nothing.
    worth = {e.text: e.top1 for e in explanation.effects if e.top1 is not None}
    assert 0.05 < worth["one more layer of vanilla attention"].low
    assert worth["one more layer of external attention"].high < -0.05


def test_a_dataframe_needs_pandas(space, tmp_path, monkeypatch):
    study = study_of(space, tmp_path).run(trials=1)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(sa.InputError, match=r"requires pandas; pip install 'sharedattn\[noteb"):
        study.front().to_dataframe()


SCRIPT = """
import os, sys, warnings
warnings.filterwarnings("ignore", message=".*torch.jit.*")
sys.path.insert(0, {folder!r})
from lab import SPACE
import sharedattn as sa

SCALE = 0.1

def helper(layers):
    return 0.3 + SCALE * sum(layer.kind in "VL" for layer in layers)

def mine(placement):
    return {{"top1": helper(placement.layers), "num_images": os.getpid()}}

space = sa.Space.from_document(SPACE)
study = sa.Study(space, mine, storage={storage!r}, confirm_seeds=1, name="mine")
{guard}study.run(trials=8, workers=2, progress=False)
{guard}rows = study.front().stored.summary.rows
{guard}print(len({{row.num_images for row in rows}} - {{os.getpid()}}), len(rows))
"""


def run_script(tmp_path, *, guard, has_file):
    text = SCRIPT.format(
        folder=str(ROOT / "tests" / "search"), storage=str(tmp_path / "s.db"), guard=guard
    )
    file = tmp_path / "script.py"
    file.write_text(text)
    return subprocess.run(
        [sys.executable, *([str(file)] if has_file else ["-c", text])],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_an_evaluator_of_main_runs_in_two_worker_processes(tmp_path):
    # As in a notebook: there is no file that workers could import it from.
    done = run_script(tmp_path, guard="", has_file=False)
    assert done.returncode == 0, done.stderr
    num_workers, num_trials = map(int, done.stdout.split())
    assert num_workers in (1, 2) and num_trials == 8
    # The same evaluator in a file, and by name: nothing is left to be run.
    again = run_script(tmp_path, guard='if __name__ == "__main__": ', has_file=True)
    assert again.returncode == 0, again.stderr
    assert again.stdout.split()[1] == "8"
