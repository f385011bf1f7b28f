"""Verifying one tiny placement that was trained in this process."""

from pathlib import Path

import pytest
import yaml

from sharedattn.backbones import resolve
from sharedattn.data import DataConfig, open_data
from sharedattn.errors import InputError
from sharedattn.placement import NetworkSpec
from sharedattn.recipe import Recipe
from sharedattn.results.export.folder import ExportRecord
from sharedattn.search.jobs.train import PlacementTraining, train_placement
from sharedattn.search.jobs.verify import verify_folder

BACKBONE = (
    "vit(embed_dim=4,num_heads=1,depth=1,mlp_ratio=1,patch_size=8,num_classes=2,in_chans=1)@16"
)
DATA = DataConfig(name="digit-pairs")
RECIPE = Recipe(epochs=1, batch_size=512)


@pytest.fixture
def trained(tmp_path: Path) -> ExportRecord:
    training = PlacementTraining(
        spec=resolve(NetworkSpec.parse(f"{BACKBONE}: V1")), data=DATA, recipe=RECIPE, device="cpu"
    )
    return train_placement(training, tmp_path / "trained", seed=3)


def test_verify_measures_both_splits_and_reads_the_recipe(
    trained: ExportRecord, tmp_path: Path
) -> None:
    folder = tmp_path / "trained"
    document = verify_folder(folder)
    assert document["ok"] is True
    found = {check["name"]: check["found"] for check in document["checks"]}
    assert found["recipe"] == RECIPE.key
    assert found["images of test"] == open_data(DATA).num_images("test")
    assert found["top-1 on test, exactly"] == trained.test_top1

    path = folder / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["recipe"]["lr"] *= 2
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    wrong = [check["name"] for check in verify_folder(folder)["checks"] if not check["ok"]]
    assert wrong == ["recipe"]


def test_data_that_has_moved_asks_for_its_place(trained: ExportRecord, tmp_path: Path) -> None:
    folder = tmp_path / "trained"
    path = folder / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["data"]["config"]["name"] = str(tmp_path / "moved")
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    with pytest.raises(InputError, match="no folder here.*by --data where the data of export"):
        verify_folder(folder)
    assert verify_folder(folder, data="digit-pairs")["ok"] is True

    config["data"]["config"]["shuffle"] = True
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    with pytest.raises(InputError, match="`data` has no field.*'shuffle'"):
        verify_folder(folder, data="digit-pairs")
