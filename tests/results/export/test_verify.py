from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from sharedattn.backbones import build, resolve
from sharedattn.costs.model import CostModel
from sharedattn.data import DataConfig, DataSource
from sharedattn.data.digit_pairs import DigitPairs
from sharedattn.errors import InputError
from sharedattn.networks.network import Network
from sharedattn.placement import NetworkSpec
from sharedattn.results.export.folder import ExportRecord, export
from sharedattn.results.export.verify import OpenedData, Remeasured, verify, verify_document
from sharedattn.results.records import EvaluationRecord, SpecRecord

SPEC = resolve(
    NetworkSpec.parse(
        "vit(embed_dim=12,num_heads=2,depth=2,patch_size=4,num_classes=3,in_chans=1)@8: V1L1/cb"
    )
)


def as_recorded(**changes: Any) -> Callable[[Network, ExportRecord], Remeasured]:
    """An evaluation that finds what the record says, but for the changes."""

    def evaluate(network: Network, record: ExportRecord, source: DataSource) -> Remeasured:
        assert not network.training
        evaluation = record.evaluation
        same: dict[str, Any] = {
            "top1": evaluation.top1,
            "num_images": evaluation.num_images,
            "test_top1": record.test_top1,
            "num_test_images": record.num_test_images,
            "recipe_key": evaluation.identity.recipe_key,
            "device": evaluation.device,
            "threads": evaluation.threads,
            "versions": dict(evaluation.versions),
        }
        return Remeasured(**{**same, **changes})

    return evaluate


@pytest.fixture
def folder(tmp_path: Path, make_evaluation: Callable[..., EvaluationRecord]) -> Path:
    cost = CostModel(SPEC.backbone).cost(SPEC.placement)
    spec = SpecRecord.of(SPEC, params=cost.params, macs=cost.macs, attention_bytes=1)
    record = ExportRecord(
        spec=SPEC,
        params=cost.params,
        macs=cost.macs,
        recipe={},
        data={"name": "digit-pairs"},
        evaluation=make_evaluation(spec),
        test_top1=0.5,
        num_test_images=4000,
    )
    torch.manual_seed(0)
    export(tmp_path / "knee", record, build(SPEC).state_dict())
    return tmp_path / "knee"


class Recorded(DigitPairs):
    """The data of a record, whatever that is."""

    def __init__(self, record: ExportRecord) -> None:
        super().__init__(DataConfig(name="digit-pairs"))
        self.recorded = record.evaluation.identity.data_fingerprint

    @property
    def fingerprint(self) -> str:
        return self.recorded


def recorded(record: ExportRecord) -> OpenedData:
    return OpenedData(Recorded(record), ())


def failures(
    folder: Path, evaluate: Callable[[Network, ExportRecord, DataSource], Remeasured]
) -> list[str]:
    return [check.name for check in verify(folder, recorded, evaluate) if not check.ok]


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "config.yaml"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(yaml.safe_dump(document), encoding="utf-8")


def test_a_sound_export_passes_every_check(folder: Path) -> None:
    document = verify_document(verify(folder, recorded, as_recorded()))
    assert document["ok"] is True
    assert [check["name"] for check in document["checks"]] == [
        "config",
        "weights",
        "rebuild",
        "params, closed form",
        "params of the network",
        "MACs, closed form",
        "data",
        "recipe",
        "images of validation",
        "images of test",
        "top-1 on validation, exactly",
        "top-1 on test, exactly",
    ]
    assert set(document["checks"][0]) == {"name", "expected", "found", "ok"}


@pytest.mark.parametrize(
    ("changes", "difference", "ok"),
    [
        ({}, 0, True),
        ({}, 1, False),
        ({"versions": {"torch": "2.15"}}, 2, True),
        ({"versions": {"torch": "2.15"}}, 3, False),
        ({"threads": 2}, -2, True),
        ({"threads": 2}, -3, False),
        ({"device": "cuda"}, -2, True),
    ],
)
@pytest.mark.parametrize("split", ["validation", "test"])
def test_accuracies_are_exact_on_an_equal_machine_and_within_two_images_elsewhere(
    folder: Path, split: str, changes: dict[str, Any], difference: int, ok: bool
) -> None:
    # 0.875 of the 4000 validation images is 3500, 0.5 of as many test images 2000.
    measured = (
        {"top1": (3500 + difference) / 4000}
        if split == "validation"
        else {"test_top1": (2000 + difference) / 4000}
    )
    checks = verify(folder, recorded, as_recorded(**measured, **changes))
    name = f"top-1 on {split}, {'within 2 images' if changes else 'exactly'}"
    assert [check.ok for check in checks if check.name == name] == [ok]
    assert verify_document(checks)["ok"] is ok


def test_other_data_ends_the_checks_and_says_in_what_it_differs(folder: Path) -> None:
    def changed(record: ExportRecord) -> OpenedData:
        return OpenedData(Recorded(record), ("train has 3 images now and had 4",))

    checks = verify(folder, changed, as_recorded())
    assert [check.name for check in checks if not check.ok] == [checks[-1].name] == ["data"]
    assert checks[-1].found.endswith(": train has 3 images now and had 4")


def test_another_number_of_images_is_found(folder: Path) -> None:
    evaluate = as_recorded(num_images=3999, top1=3499 / 3999)
    assert failures(folder, evaluate) == ["images of validation", "top-1 on validation, exactly"]
    assert failures(folder, as_recorded(test_top1=2000 / 3989, num_test_images=3989)) == [
        "images of test",
        "top-1 on test, exactly",
    ]


def test_another_recipe_is_found(folder: Path) -> None:
    assert failures(folder, as_recorded(recipe_key="s" * 64)) == ["recipe"]


def test_changed_figures_are_found(folder: Path) -> None:
    rewrite(folder, lambda d: d.update(params=d["params"] + 1, macs=d["macs"] - 1))
    assert failures(folder, as_recorded()) == [
        "params, closed form",
        "params of the network",
        "MACs, closed form",
    ]


def never(network: Network, record: ExportRecord, source: DataSource) -> Remeasured:
    raise AssertionError("a network that is not the one meant must not be measured")


def test_changed_weights_end_the_checks(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert failures(folder, never) == ["weights"]
    path.unlink()
    assert failures(folder, never) == ["weights"]


def test_weights_of_another_network_end_the_checks(folder: Path) -> None:
    other = replace(SPEC, placement=resolve(SPEC).placement.parse("V2"))
    rewrite(folder, lambda d: d.update(spec=other.to_json(), network=str(other)))
    assert failures(folder, never) == ["rebuild"]


def test_a_backbone_that_cannot_be_built_ends_the_checks(folder: Path) -> None:
    document = SPEC.to_json()
    document["backbone"]["name"] = "no_such_model"
    other = NetworkSpec.from_json(document)
    rewrite(folder, lambda d: d.update(spec=document, network=str(other)))
    assert failures(folder, never) == ["rebuild"]


def test_a_folder_without_a_config_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no config.yaml to read"):
        verify(tmp_path, recorded, never)
