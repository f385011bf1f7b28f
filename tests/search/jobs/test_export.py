"""Training, exporting and verifying one tiny placement, in this process."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml

from sharedattn.backbones import resolve
from sharedattn.costs.model import CostModel
from sharedattn.data import DataConfig, open_data
from sharedattn.errors import InputError
from sharedattn.placement import NetworkSpec
from sharedattn.recipe import Recipe
from sharedattn.results.artifacts.blobs import BlobStore
from sharedattn.results.artifacts.weights import WeightsStore
from sharedattn.results.database.store import Store
from sharedattn.results.export.folder import ExportRecord, exported_weights, read_export
from sharedattn.results.front.summary import StudySummary
from sharedattn.results.records import SpecRecord, StudyRecord
from sharedattn.search.evaluators.scratch import ScratchEvaluator
from sharedattn.search.jobs.export import (
    data_document,
    export_placement,
    train_placement,
    verify_folder,
)

SPEC = resolve(
    NetworkSpec.parse(
        "vit(embed_dim=4,num_heads=1,depth=1,mlp_ratio=1,patch_size=8,num_classes=2,in_chans=1)"
        "@16: V1"
    )
)
DATA = DataConfig(name="digit-pairs")
RECIPE = Recipe(epochs=1, batch_size=512)
SEED = 3


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass
class Lab:
    """A study whose one trial is the placement that was trained into `folder`."""

    folder: Path
    record: ExportRecord
    store: Store
    weights: WeightsStore

    @property
    def key(self) -> str:
        return self.record.evaluation.identity.key

    def export(self, folder: Path, weights: WeightsStore) -> str | None:
        summary = StudySummary.read(self.store, self.store.study("digits"))
        return export_placement(self.store, summary, "best", folder, weights=weights)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    folder = tmp_path / "trained"
    train_placement(SPEC, DATA, RECIPE, folder, seed=SEED, device="cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["trained"]
    record = read_export(folder)
    weights = WeightsStore(BlobStore(str(tmp_path / "weights")))
    weights.save(record.evaluation.identity.key, exported_weights(folder, record))
    cost = CostModel(SPEC.backbone).cost(SPEC.placement)
    spec = SpecRecord.of(
        SPEC, params=cost.params, macs=cost.macs, attention_bytes=cost.attention_bytes
    )
    with Store.open(f"sqlite:///{tmp_path / 'study.db'}", create=True) as store:
        study = store.get_or_create_study(
            StudyRecord(
                name="digits",
                fingerprint_document={},
                space={},
                data=data_document(DATA, open_data(DATA)),
                recipe=RECIPE.to_json(),
                objectives=("top1", "macs"),
                searcher="random",
                seed=SEED,
                reference_point={"top1": 0.5, "macs": 1.1 * cost.macs},
                provenance={},
                num_trials=1,
                confirm_seeds=1,
            )
        )
        with store.drive(study) as driver:
            driver.finish_trial(
                driver.begin_trial(number=0, spec=spec), record.evaluation, attempt=1
            )
        yield Lab(folder, record, store, weights)


def never(self: ScratchEvaluator, task: object) -> None:
    raise AssertionError("nothing may be trained here")


def test_an_export_says_why_it_was_trained_again(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ScratchEvaluator, "evaluate", never)
        assert lab.export(tmp_path / "kept", lab.weights) is None
    elsewhere = WeightsStore(BlobStore(str(tmp_path / "elsewhere")))
    sha256 = lab.record.evaluation.weights_sha256 or ""
    assert lab.export(tmp_path / "lost", elsewhere) == (
        f"its weights are recorded, but not found at {elsewhere.shown(lab.key, sha256)}: "
        f"it was trained again, under the same seed"
    )
    with lab.store.drive(lab.store.study("digits")) as driver:
        driver.record_weights(lab.key, None)
    assert lab.export(tmp_path / "off", lab.weights) == (
        "its weights were not kept: it was trained again, under the same seed"
    )
    # The study's folder is its driver's; what was trained here passed by it.
    assert not (tmp_path / "elsewhere").exists() and lab.weights.has(lab.key)
    names = {"trained", "kept", "lost", "off", "weights"}
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == names
    for name in ("kept", "lost", "off"):
        again = read_export(tmp_path / name)
        assert again.evaluation.weights_sha256 == lab.record.evaluation.weights_sha256
        assert (again.evaluation.top1, again.test_top1) == (
            lab.record.evaluation.top1,
            lab.record.test_top1,
        )


def test_targets_are_checked_before_anything_is_trained(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScratchEvaluator, "evaluate", never)
    (tmp_path / "file").write_text("work")
    elsewhere = WeightsStore(BlobStore(str(tmp_path / "elsewhere")))
    with pytest.raises(InputError, match="neither an export nor an empty folder"):
        lab.export(tmp_path / "file", elsewhere)
    with pytest.raises(InputError, match="nothing can be made in"):
        train_placement(SPEC, DATA, RECIPE, tmp_path / "file" / "x", seed=SEED, device="cpu")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="ONNX files require"):
        train_placement(SPEC, DATA, RECIPE, tmp_path / "x", seed=SEED, device="cpu", onnx=True)


def test_verify_measures_both_splits_and_reads_the_recipe(lab: Lab) -> None:
    document = verify_folder(lab.folder)
    assert document["ok"] is True
    found = {check["name"]: check["found"] for check in document["checks"]}
    assert found["recipe"] == RECIPE.key
    assert found["images of test"] == open_data(DATA).num_images("test")
    assert found["top-1 on test, exactly"] == lab.record.test_top1

    path = lab.folder / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["recipe"]["lr"] *= 2
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    wrong = [check["name"] for check in verify_folder(lab.folder)["checks"] if not check["ok"]]
    assert wrong == ["recipe"]


def test_data_that_has_moved_asks_for_its_place(lab: Lab, tmp_path: Path) -> None:
    path = lab.folder / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["data"]["config"]["name"] = str(tmp_path / "moved")
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    with pytest.raises(InputError, match="no folder here.*by --data where the data of export"):
        verify_folder(lab.folder)
    assert verify_folder(lab.folder, data="digit-pairs")["ok"] is True

    config["data"]["config"]["shuffle"] = True
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    with pytest.raises(InputError, match="`data` has no field.*'shuffle'"):
        verify_folder(lab.folder, data="digit-pairs")
