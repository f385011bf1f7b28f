"""What f4dc59d made and drew: keys, costs and draws stay, and what it left behind goes on."""

import json
import re
from pathlib import Path

import commands
import optuna
import pytest
import torch
from reader_2 import make_continued, make_draws, make_keys

from sharedattn.results.export.folder import load_network, read_export

BEFORE = Path(__file__).parent / "reader_2"
KEYS = json.loads((BEFORE / "keys.json").read_text())
DRAWS = json.loads((BEFORE / "draws.json").read_text())
CONTINUED = json.loads((BEFORE / "continued.json").read_text())

# timm 1.0.31 leaves closing an image's file to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
of_one_optuna = pytest.mark.skipif(
    optuna.__version__ != DRAWS["optuna"], reason=f"made with Optuna {DRAWS['optuna']}"
)


# Studies by the supernet recipe of the embedded data.
OF_ANOTHER_RECIPE = {
    "main job, supernet",
    *(f"kinds, supernet{of}" for of in ("", ", epochs", ", retrain", ", max_macs")),
}


@pytest.fixture
def before(tmp_path, monkeypatch):
    """A folder as that of the commands that made the fixtures, with what they left behind."""
    make_continued.fill(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capsys):
    """Runs a command that succeeds; what it says in JSON, or as text."""

    def call(*arguments):
        code, out, err = commands.run(capsys, *arguments)
        assert code == 0, out + err
        return json.loads(out) if "--json" in arguments else out

    return call


def test_the_fixtures_are_complete():
    assert len(KEYS["networks"]) == len(make_keys.NETWORKS) == 46
    assert KEYS["data"].keys() == make_keys.DATA.keys()
    assert KEYS["studies"].keys() == make_keys.STUDIES.keys()
    assert len(KEYS["studies"]) == 31
    assert DRAWS["spaces"].keys() == DRAWS["keys"].keys() == set(make_draws.SPACES)
    assert len(DRAWS["spaces"]) == 22
    assert len(DRAWS["proposals"]) == 9 and len(DRAWS["loops"]) == 12
    assert CONTINUED.keys() == make_continued.STUDIES.keys()


def test_the_fixtures_name_no_path_of_the_machine_that_made_them():
    for path in BEFORE.rglob("*"):
        if path.suffix in (".sql", ".yaml", ".md", ".json"):
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"""[\s"'](/\w+){2,}""", text), path.name


@pytest.mark.parametrize("text", make_keys.NETWORKS)
def test_a_network_keeps_its_key_and_its_cost(text):
    assert make_keys.of_network(text) == KEYS["networks"][text]


def test_recipes_keep_their_keys():
    assert make_keys.recipes() == KEYS["recipes"]
    found, known = make_keys.supernet_recipes(), dict(KEYS["supernet_recipes"])
    # It had two networks for 12 epochs, and has one for 24; recipes of several are refused.
    assert found.pop("digit-pairs") != known.pop("digit-pairs")
    assert found.pop("digit-pairs, 2") != known.pop("digit-pairs, 2")
    del known["plain, split"]
    assert found == known


def test_data_keeps_its_fingerprint(before):
    assert {name: make_keys.of_data(name) for name in make_keys.DATA} == KEYS["data"]


@pytest.mark.parametrize("name", make_keys.STUDIES)
def test_a_study_keeps_its_fingerprint(before, name):
    found = json.loads(json.dumps(make_keys.of_study(name, before / "new")))
    if name in OF_ANOTHER_RECIPE:
        differing = {key for key in found if found[key] != KEYS["studies"][name][key]}
        assert differing == {"name", "fingerprint"}
    else:
        assert found == KEYS["studies"][name]


@pytest.mark.parametrize("name", make_draws.SPACES)
def test_a_space_keeps_its_sizes_and_its_draws(name):
    assert make_draws.of_space(name) == DRAWS["spaces"][name]
    assert make_draws.keys_of_draws(name) == DRAWS["keys"][name]


@of_one_optuna
@pytest.mark.parametrize("name", make_draws.SEARCHED)
@pytest.mark.parametrize("searcher", make_draws.SEARCHERS_OF_THEN)
def test_a_searcher_proposes_what_it_did(searcher, name):
    assert make_draws.proposals(searcher, name) == DRAWS["proposals"][f"{searcher}, {name}"]


@of_one_optuna
@pytest.mark.parametrize(("searcher", "stopped", "num_slots"), make_draws.LOOPS)
def test_a_study_goes_as_it_did(searcher, stopped, num_slots):
    key = f"{searcher}, {'mo-asha' if stopped else 'none stopped'}, {num_slots} at once"
    assert make_draws.of_loop(searcher, stopped, num_slots) == DRAWS["loops"][key]


def test_a_supernet_runs_the_placements_that_it_did():
    assert make_draws.updates() == DRAWS["updates"]["none"]


EXPORTS = {
    "kinds": ("V1N1E1/s5/cb1", 2978),
    "shapes": ("N1V1", 3903),
    "stopping": ("E1V1/s5", 4442),
    "supernet": ("V1N1/dia1", 2660),
    "vanilla": ("V3", 3830),
}


@pytest.mark.parametrize("name", EXPORTS)
def test_an_export_loads_as_a_network(name):
    network = load_network(BEFORE / "exports" / name).eval()
    shape = (2, 3, 12, 12) if name == "shapes" else (2, 1, 16, 16)
    with torch.no_grad():
        logits = network(torch.zeros(shape))
    assert logits.shape == (2, 3 if name == "shapes" else 2)
    assert torch.isfinite(logits).all()
    text, params = EXPORTS[name]
    assert str(read_export(BEFORE / "exports" / name).spec.placement) == text
    assert sum(parameter.numel() for parameter in network.parameters()) == params


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPORTS)
def test_an_export_verifies(run, before, name):
    data = ("--data", "shapes") if name == "shapes" else ()
    assert run("verify", f"exports/{name}", *data, "--json")["ok"]


@pytest.mark.slow
def test_an_export_is_trained_again(run, before):
    run("train", "exports/kinds/config.yaml", "--to", "again", "--epochs", 1, "--device", "cpu")
    assert read_export(Path("again")).spec.key == read_export(Path("exports/kinds")).spec.key


@pytest.mark.slow
@pytest.mark.parametrize("study", CONTINUED)
def test_a_study_is_shown_reported_and_exported(run, before, study):
    found = run("front", study, "--out", "out", "--json")
    assert make_continued.in_short(found)["front"] == CONTINUED[study]["front"]
    run("report", study, "--out", "out")
    report = Path("out", study, "report.html").read_text(encoding="utf-8")
    assert all(placement in report for _, placement, *_ in CONTINUED[study]["front"])
    if study.startswith("tiny-table"):
        return  # A table has no networks.
    run("export", study, "--out", "out", "--to", "export", "--device", "cpu")
    assert run("verify", "export", "--json")["ok"]


@pytest.mark.slow
def test_a_study_of_latencies_is_shown_reported_and_exported(run, before):
    study = make_continued.LATENCIES
    found = run("front", study, "--out", "out", "--json")
    assert [(m["placement"], round(m["latency_ms"], 3)) for m in found["front"]] == [
        ("N1", 0.237),
        ("N1E1/s5/cb", 0.502),
        ("V2", 0.53),
        ("V1N1/cb", 0.554),
    ]
    run("report", study, "--out", "out")
    run("export", study, "--out", "out", "--pick", 1, "--to", "export", "--device", "cpu")
    assert run("verify", "export", "--json")["ok"]


@pytest.mark.slow
@pytest.mark.parametrize("study", CONTINUED)
def test_a_study_goes_on(run, before, trials_run_here, study):
    """First for no more trials, and nothing changes; then for one more, as it did then."""
    expected, known = CONTINUED[study], make_continued.trials(study)
    found = make_continued.in_short(run(*make_continued.search(study, 0)))
    assert found == {"study": study, "front": expected["front"]}
    assert make_continued.trials(study) == known
    found = make_continued.in_short(run(*make_continued.search(study, 1)))
    assert found["study"] == study
    added = [row for row in make_continued.trials(study) if row not in known]
    assert added == expected["added"]
    # Another processor may round otherwise.
    assert [member[:4] for member in found["front"]] == [row[:4] for row in expected["then"]]
    top1 = [row[4] for row in expected["then"]]
    assert [member[4] for member in found["front"]] == pytest.approx(top1, abs=0.01)
