"""What is read later is what was read first, or it is refused with what differs."""

import json
import shutil

import pytest
import torch
import yaml
from colours import COLOURS, RECIPE, SPACE, picture, put
from commands import document, refusal, run, run_trials_here

from sharedattn.search.cli.main import main

TRIALS = ("--trials", 2, "--epochs", 1, "--confirm-seeds", 1, "--workers", 1)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A folder with a finished study of the space over `data/`, of which `pristine/` is a copy."""
    root = tmp_path_factory.mktemp("searched")
    (root / "space.yaml").write_text(SPACE)
    (root / "recipe.yaml").write_text(RECIPE)
    for number, colour in enumerate(COLOURS):
        put(root / "pristine" / "train" / colour, colour, 16, start=100 * number)
    put(root / "pristine" / "test" / "red", "red", 4, start=900)
    shutil.copytree(root / "pristine", root / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        run_trials_here(patch)
        arguments = ("--data", "data", "--recipe", "recipe.yaml", "--study", "colours", *TRIALS)
        assert main(["search", "space.yaml", *map(str, arguments)]) == 0
    return root


@pytest.fixture
def here(searched, monkeypatch):
    monkeypatch.chdir(searched)
    for name in ("data", "moved", "else", "other", "best", "again"):
        shutil.rmtree(searched / name, ignore_errors=True)
    shutil.copytree(searched / "pristine", searched / "data")
    return searched


@pytest.fixture
def data(here):
    return here / "data"


@pytest.fixture
def study(here):
    """The study's export."""
    return {"exported": str(here / "sharedattn-out" / "colours" / "knee")}


def test_an_export_after_the_test_images_were_swapped_is_refused(capsys, study, data):
    for number in range(4):
        picture(COLOURS["blue"], number).save(data / "test" / "red" / f"90{number}.png")
    said = refusal(capsys, "export", "colours", "--pick", "best", "--to", "best")
    assert "data is not the data of study 'colours'" in said
    assert "images of test have other" in said
    code, out, _ = run(capsys, "verify", study["exported"], "--json")
    checks = {check["name"]: check for check in json.loads(out)["checks"]}
    assert code == 1
    assert not checks["data"]["ok"]
    assert "images of test have other" in checks["data"]["found"]
    assert not any(name.startswith("top-1") for name in checks)
    assert "images of test" in refusal(capsys, "train", study["exported"], "--to", "again")
    assert "images of test" in refusal(capsys, "analyze", study["exported"])


def test_a_relative_name_means_the_same_folder_from_everywhere(capsys, study, here, monkeypatch):
    for colour in COLOURS:
        put(here / "else" / "data" / "train" / colour, "blue", 9)
    monkeypatch.chdir(here / "else")
    to = here / "best"
    document(capsys, "export", "colours", "--out", here / "sharedattn-out", "--to", to)
    assert document(capsys, "verify", to)["ok"]


def test_moved_data_is_found_where_it_is_said_to_be(capsys, study, here, data):
    shutil.move(data, here / "moved")
    said = refusal(capsys, "export", "colours", "--to", "best")
    assert "is no folder here" in said
    assert "say by --data where the data of study 'colours' is now" in said
    document(capsys, "export", "colours", "--to", "best", "--data", "moved")
    assert document(capsys, "verify", "best")["ok"]
    assert document(capsys, "verify", study["exported"], "--data", "moved")["ok"]
    assert refusal(capsys, "verify", study["exported"])


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (lambda d: put(d / "train" / "red", "red", 1, start=700), "train has 43 images now and"),
        (lambda d: shutil.rmtree(d / "train" / "blue"), "lacks the class blue"),
        (lambda d: put(d / "train" / "violet", "red", 5, start=700), "has a new class violet"),
        (
            lambda d: (d / "train/red/000.png").rename(d / "train/red/x.png"),
            "other names, sizes or classes than then",
        ),
    ],
)
def test_a_difference_is_named(capsys, study, data, change, difference):
    change(data)
    assert difference in refusal(capsys, "export", "colours", "--to", "best")


def test_a_study_goes_on_with_its_own_data_alone(capsys, study, data):
    put(data / "train" / "red", "red", 4, start=700)
    said = refusal(
        capsys, "search", "space.yaml", "--data", "data", "--recipe", "recipe.yaml",
        "--study", "colours", *TRIALS[2:], "--trials", 4,
    )  # fmt: skip
    assert "was made with other choices" in said


def test_a_new_study_says_that_the_folder_is_another_than_before(capsys, study, data):
    put(data / "train" / "red", "red", 4, start=700)
    arguments = ("search", "space.yaml", "--data", "data", "--recipe", "recipe.yaml", *TRIALS)
    found = document(capsys, *arguments, "--dry-run")
    (said,) = found["plan"]["data"]["warnings"][-1:]
    assert said.startswith("this is another study than colours, which searched this folder")
    assert "train has 46 images now and had 42" in said


def test_an_image_that_goes_bad_ends_with_its_name(capsys, study, data):
    """By a mistake below the 256 MiB up to which contents are part of the fingerprint."""
    path = data / "test" / "red" / "900.png"
    path.write_bytes(path.read_bytes()[:-30])
    code, out, err = run(capsys, "verify", study["exported"], "--json")
    assert code == 1
    assert "images of test have other" in out


def test_an_export_names_its_data_wholly(capsys, study, data):
    with open(f"{study['exported']}/config.yaml", encoding="utf-8") as file:
        recorded = yaml.safe_load(file)["data"]
    assert recorded["config"]["name"] == str(data)
    assert recorded["config"]["reader"] == 2
    assert recorded["classes"] == recorded["identity"]["classes"] == ["blue", "green", "red"]
    assert recorded["class_counts"]["test"] == [0, 0, 4]
    assert recorded["origins"]["validation"] == "10% of train/"
    assert recorded["pixels"]["mean"] == [0.485, 0.456, 0.406]


def test_no_test_split_no_test_accuracy(capsys, data):
    shutil.rmtree(data / "test")
    found = document(
        capsys, "train", "vit(depth=1,embed_dim=12,num_heads=2,patch_size=8,num_classes=3)@16: V1",
        "--data", "data", "--recipe", "recipe.yaml", "--test-split", "none", "--to", "best",
    )  # fmt: skip
    with open(f"{found['exported']}/config.yaml", encoding="utf-8") as file:
        assert yaml.safe_load(file)["test"] is None
    with open(f"{found['exported']}/README.md", encoding="utf-8") as file:
        card = file.read()
    assert "top-1 on the test split" not in card
    assert "there is no test split" in card
    checks = document(capsys, "verify", found["exported"])["checks"]
    assert not any("on test" in check["name"] for check in checks)


def test_skipped_images_stay_skipped(capsys, data):
    (data / "train" / "red" / "x.png").write_bytes(b"")
    found = document(
        capsys, "train", "vit(depth=1,embed_dim=12,num_heads=2,patch_size=8,num_classes=3)@16: V1",
        "--data", "data", "--recipe", "recipe.yaml", "--on-bad-image", "skip", "--to", "best",
    )  # fmt: skip
    assert document(capsys, "verify", found["exported"])["ok"]
    again = document(capsys, "train", found["exported"], "--to", "again", "--epochs", 1)
    assert again["plan"]["data"]["splits"]["train"]["images"] == 42


def test_an_export_is_trained_on_its_own_data(capsys, study, here):
    put(here / "other" / "red", "red", 9)
    put(here / "other" / "green", "green", 9)
    said = refusal(capsys, "train", study["exported"], "--to", "again", "--data", "other")
    assert "lacks the class blue" in said
    said = refusal(capsys, "train", study["exported"], "--to", "again", "--mean", 0.5)
    assert "to train its network on other data write" in said


def test_the_number_of_loading_workers_changes_no_accuracy(capsys, data, here, monkeypatch):
    # As on a machine of three cores: a trial has no more workers than cores.
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2})
    recipe = {
        "epochs": 3,
        "batch_size": 8,
        "lr": 0.01,
        "hflip": 0.5,
        "crop_scale_min": 0.3,
        "auto_augment": "rand-m9-mstd0.5-inc1",
        "random_erasing": 0.4,
        "mixup": 0.4,
    }
    before = torch.get_num_threads()
    curves = []
    try:
        torch.set_num_threads(3)
        for number in (0, 1, 3):
            (here / "r.yaml").write_text(json.dumps({**recipe, "loader_workers": number}))
            to = here / f"net{number}"
            document(
                capsys, "train",
                "vit(depth=1,embed_dim=12,num_heads=2,patch_size=8,num_classes=3)@16: V1",
                "--data", "data", "--recipe", "r.yaml", "--to", to,
            )  # fmt: skip
            measured = yaml.safe_load((to / "config.yaml").read_text())
            curves.append((measured["evaluation"]["loss"], measured["weights_sha256"]))
    finally:
        torch.set_num_threads(before)
    assert curves[0] == curves[1] == curves[2]


def test_a_recipe_that_timm_does_not_know_is_refused(capsys, data, here):
    for policy in ("bogus", "rand-q9", "rand-mx", "original-m9", "rand-m9-"):
        (here / "r.yaml").write_text(
            json.dumps({"epochs": 1, "batch_size": 8, "auto_augment": policy})
        )
        said = refusal(capsys, "search", "space.yaml", "--data", "data", "--recipe", "r.yaml")
        assert f"`auto_augment` of the recipe is '{policy}', which timm refuses" in said


def test_every_magnitude_of_random_augmentation_works(capsys, data, here):
    """Pillow 12 and newer refuse what timm's posterize asks of them."""
    recipe = {"epochs": 2, "batch_size": 8, "auto_augment": "rand-m10-n8-mstd9-inc1"}
    (here / "r.yaml").write_text(json.dumps(recipe))
    document(
        capsys, "train",
        "vit(depth=1,embed_dim=12,num_heads=2,patch_size=8,num_classes=3)@16: V1",
        "--data", "data", "--recipe", "r.yaml", "--to", "best",
    )  # fmt: skip
