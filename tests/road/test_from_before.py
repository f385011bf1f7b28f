"""What was made before our own scan of folders: it keeps its keys, opens and verifies."""

import json
import shutil
import sqlite3
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from commands import run

from sharedattn.backbones import resolve
from sharedattn.data import DataConfig, open_data
from sharedattn.errors import InputError
from sharedattn.hashing import document_key
from sharedattn.placement import NetworkSpec
from sharedattn.recipe import RECIPES, Recipe
from sharedattn.search.config import SearchConfig
from sharedattn.search.run import prepare
from sharedattn.supernet.trainer import SUPERNET_RECIPES

BEFORE = Path(__file__).parent / "reader_1"
KEYS = json.loads((BEFORE / "keys.json").read_text())

# timm 1.0.31 leaves closing an image's file to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@pytest.fixture
def before(tmp_path, monkeypatch):
    """A folder as that of the commands that made the fixtures, with what they left behind."""
    with zipfile.ZipFile(BEFORE / "shapes.zip") as archive:
        archive.extractall(tmp_path)
    out = tmp_path / "out"
    shutil.copytree(BEFORE / "weights", out / "weights")
    with sqlite3.connect(out / "sharedattn.db") as database:
        database.executescript((BEFORE / "database.sql").read_text())
    database.close()
    for name in ("shapes.yaml", "recipe.yaml", "tiny.yaml"):
        shutil.copy(BEFORE / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_specs_recipes_and_the_embedded_data_keep_their_keys():
    assert {t: resolve(NetworkSpec.parse(t)).key for t in KEYS["specs"]} == KEYS["specs"]
    assert {n: RECIPES[n].key for n in KEYS["recipes"]} == KEYS["recipes"]
    assert Recipe.load(str(BEFORE / "recipe.yaml")).key == KEYS["recipe_file"]
    supernets = {n: SUPERNET_RECIPES[n].key for n in KEYS["supernet_recipes"]}
    # It had a network for placements with DIA units and one for those without.
    assert supernets.pop("digit-pairs") != KEYS["supernet_recipes"]["digit-pairs"]
    assert supernets.items() < KEYS["supernet_recipes"].items()
    assert open_data(DataConfig(name="digit-pairs")).fingerprint == KEYS["digit_pairs"]


@pytest.mark.parametrize(
    ("key", "name", "changes"),
    [
        ("shapes", "shapes", {"val_fraction": 0.3}),
        ("shapes_train", "shapes/train", {"val_fraction": 0.3}),
        (
            "shapes_train_grey",
            "shapes/train",
            {"image_size": 96, "in_chans": 1, "val_fraction": 0.2, "split_seed": 5},
        ),
    ],
)
def test_a_document_of_a_folder_from_before_means_what_it_meant(before, key, name, changes):
    document = {"name": name, "root": None, "image_size": 12, "in_chans": 3, **changes}
    assert open_data(DataConfig.from_json(document)).fingerprint == KEYS[key]


def test_the_main_jobs_keep_their_fingerprints(tmp_path):
    given = {"space": "digit-pairs-vit", "out": tmp_path, "num_workers": 1, "searcher": "nsga2"}
    main_job = SearchConfig.of(**given)
    supernet = SearchConfig.of(**given, evaluator="supernet")
    assert prepare(main_job).record.fingerprint == KEYS["studies"]["main job"]
    # Its recipe is another since then; with the old one's key everything else is as it was.
    prepared = prepare(supernet)
    document = prepared.record.fingerprint_document
    recipe_key = KEYS["supernet_recipes"]["digit-pairs"]
    identity = prepared.shared.supernet_identity
    fidelity = replace(identity.fidelity, epochs=12)
    starts_from = replace(identity, recipe_key=recipe_key, fidelity=fidelity).key
    as_before = {**document, "supernet": recipe_key, "starts_from": starts_from}
    assert document_key(as_before) == KEYS["studies"]["main job, supernet"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "data"), [("digits", ()), ("shapes", ("--data", "shapes"))])
def test_an_export_from_before_verifies(capsys, before, name, data):
    code, out, err = run(capsys, "verify", BEFORE / "exports" / name, *data, "--json")
    assert code == 0, out + err
    assert json.loads(out)["ok"]


@pytest.mark.slow
def test_a_study_from_before_is_shown_reported_and_exported(capsys, before):
    for study, members in (("shapes-shapes-33251c", 1), ("tiny-digit-pairs-97aef3", 2)):
        code, out, err = run(capsys, "front", study, "--out", "out", "--json")
        assert code == 0, err
        assert len(json.loads(out)["front"]) == members
        code, _, err = run(capsys, "report", study, "--out", "out")
        assert code == 0, err
        # Its data was named by a path from the folder of that time.
        code, _, err = run(capsys, "export", study, "--out", "out", "--to", f"export-{study}")
        assert code == 0, err
        code, out, err = run(capsys, "verify", f"export-{study}", "--json")
        assert code == 0, out + err


@pytest.mark.slow
def test_a_study_of_embedded_data_goes_on_and_one_of_a_folder_does_not(
    capsys, before, trials_run_here
):
    digits = ("tiny.yaml", "--epochs", 1, "--confirm-seeds", 2, "--workers", 1, "--out", "out")
    code, out, err = run(capsys, "search", *digits, "--trials", 5, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["study"] == "tiny-digit-pairs-97aef3"
    assert [member["placement"] for member in found["front"]] == ["N1", "V1"]
    assert "of 5 trials" not in err
    shapes = ("shapes.yaml", "--data", "shapes", "--recipe", "recipe.yaml", "--val-fraction", 0.3)
    code, out, err = run(
        capsys, "search", *shapes, "--trials", 6, "--confirm-seeds", 2, "--workers", 1,
        "--out", "out", "--study", "shapes-shapes-33251c",
    )  # fmt: skip
    assert code == 2
    assert "was made with other choices" in " ".join(err.split())


def test_a_folder_from_before_whose_classes_tied_is_refused(before):
    for path in (before / "shapes" / "train" / "bar", before / "shapes" / "val" / "bar"):
        path.rename(path.parent / "Cross")
    document = {"name": "shapes", "root": None, "image_size": 12, "in_chans": 3}
    with pytest.raises(InputError, match="as 'Cross' and 'cross' tie|as 'cross' and 'Cross' tie"):
        open_data(DataConfig.from_json(document))
