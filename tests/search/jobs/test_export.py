"""Training one tiny placement, and exporting it from a study, in this process."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

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
from sharedattn.search.jobs.export import export_placement
from sharedattn.search.jobs.train import PlacementTraining, train_placement
from sharedattn.search.recorded_data import data_document

SPEC = resolve(
    NetworkSpec.parse(
        "vit(embed_dim=4,num_heads=1,depth=1,mlp_ratio=1,patch_size=8,num_classes=2,in_chans=1)"
        "@16: V1"
    )
)
DATA = DataConfig(name="digit-pairs")
RECIPE = Recipe(epochs=1, batch_size=512)
TRAINING = PlacementTraining(spec=SPEC, data=DATA, recipe=RECIPE, device="cpu")
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
    train_placement(TRAINING, folder, seed=SEED)
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
                data=data_document(open_data(DATA)),
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
    with pytest.raises(InputError, match="nothing can be created in"):
        train_placement(TRAINING, tmp_path / "file" / "x", seed=SEED)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="ONNX files require"):
        train_placement(TRAINING, tmp_path / "x", seed=SEED, onnx=True)
