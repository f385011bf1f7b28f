import os
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from sharedattn.backbones import build, resolve
from sharedattn.costs.model import CostModel
from sharedattn.errors import InputError
from sharedattn.networks.network import Network
from sharedattn.placement import NetworkSpec, Placement
from sharedattn.results.artifacts.atomic import temporary_name
from sharedattn.results.artifacts.weights import sha256_of
from sharedattn.results.export.folder import (
    ExportRecord,
    check_target,
    export,
    load_network,
    model_card,
    read_export,
)
from sharedattn.results.records import EvaluationRecord, LatencyRecord, SpecRecord, Start
from sharedattn.weights.interpolate import at_image_size

Plugged = Callable[[], AbstractContextManager[None]]
SPEC = resolve(
    NetworkSpec.parse(
        "vit(embed_dim=12,num_heads=2,depth=4,patch_size=4,mlp_ratio=2,num_classes=3,in_chans=1)"
        "@8: V/d0,N/cb,L/d0,E/s5/d1/cb"
    )
)


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    return build(SPEC).eval()


@pytest.fixture
def record(make_evaluation: Callable[..., EvaluationRecord]) -> ExportRecord:
    cost = CostModel(SPEC.backbone).cost(SPEC.placement)
    spec = SpecRecord.of(
        SPEC, params=cost.params, macs=cost.macs, attention_bytes=cost.attention_bytes
    )
    # An export keeps neither the curve nor the sum that the database has of the weights.
    evaluation = make_evaluation(spec, seed=6, learning_curve=(), weights_sha256=None)
    return ExportRecord(
        spec=SPEC,
        params=cost.params,
        macs=cost.macs,
        recipe={"epochs": 7, "lr": 1e-5},
        data={"name": "digit-pairs", "fingerprint": "d" * 64},
        evaluation=evaluation,
        test_top1=0.851,
        num_test_images=4000,
        top1_by_seed={5: 0.861, 6: 0.875, 7: 0.868},
        study="digits",
        trial=11,
    )


@pytest.fixture
def folder(tmp_path: Path, record: ExportRecord, network: Network) -> Path:
    path = tmp_path / "deep" / "knee"
    export(path, record, network.state_dict())
    return path


def test_an_export_reads_back(folder: Path, record: ExportRecord) -> None:
    files = ["README.md", "config.yaml", "model.safetensors"]
    assert sorted(path.name for path in folder.iterdir()) == files
    assert [path.name for path in folder.parent.iterdir()] == ["knee"]
    sha256 = sha256_of(folder / "model.safetensors")
    expected = replace(record, evaluation=replace(record.evaluation, weights_sha256=sha256))
    assert read_export(folder) == expected
    assert read_export(folder / "config.yaml") == expected


def test_an_export_says_what_its_search_started_from(
    tmp_path: Path, record: ExportRecord, network: Network
) -> None:
    start = Start(
        weights_sha256="w",
        macs=71,
        params=9,
        top1=0.9,
        num_images=40,
        test_top1=0.8,
        num_test_images=20,
    )
    begun = replace(record, start=start)
    export(tmp_path / "begun", begun, network.state_dict())
    assert read_export(tmp_path / "begun").start == start
    assert (
        "as it came | 0.9000 on 40 validation images, 0.8000 on 20 test images, 71 MACs, 9 param"
    ) in model_card(begun)
    untested = replace(start, test_top1=None, num_test_images=0)
    assert "0.9000 on 40 validation images, 71 MACs" in model_card(replace(begun, start=untested))
    assert "as it came" not in model_card(record)
    assert "start" not in record.to_json()
    with pytest.raises(InputError, match="lacks a field, or has one of another type"):
        ExportRecord.from_json(begun.to_json() | {"start": {"top1": 0.9}})


def test_the_network_is_the_one_that_was_exported(folder: Path, network: Network) -> None:
    images_BCYX = torch.randn(3, 1, 8, 8)
    loaded = load_network(folder)
    assert not loaded.training
    with torch.inference_mode():
        assert torch.equal(loaded(images_BCYX), network(images_BCYX))


def test_an_export_replaces_an_export(
    folder: Path, record: ExportRecord, network: Network
) -> None:
    export(folder, replace(record, trial=13), network.state_dict())
    assert read_export(folder).trial == 13
    assert [path.name for path in folder.parent.iterdir()] == ["knee"]


def test_an_empty_folder_is_filled_and_another_one_is_left_alone(
    tmp_path: Path, record: ExportRecord, network: Network
) -> None:
    (tmp_path / "empty").mkdir()
    export(tmp_path / "empty", record, network.state_dict())
    assert read_export(tmp_path / "empty").trial == 11

    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    (tmp_path / "file").write_text("work")
    for name in ("thesis", "file"):
        with pytest.raises(InputError, match="neither an export nor an empty folder"):
            export(tmp_path / name, record, network.state_dict())
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"
    assert (tmp_path / "file").read_text() == "work"


def test_a_target_is_checked_without_writing(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("work")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    before = sorted(tmp_path.rglob("*"))
    check_target(folder, onnx=True)
    check_target(tmp_path / "not" / "yet" / "there")
    for name in ("file", "link"):
        with pytest.raises(InputError, match="neither an export nor an empty folder"):
            check_target(tmp_path / name)
    for name in ("file/knee", "link/deep/knee"):
        with pytest.raises(InputError, match="cannot be written: nothing can be created in"):
            check_target(tmp_path / name)
    real = tempfile.mkdtemp

    def refused(*, prefix: str, dir: Path) -> str:
        if dir == tmp_path:
            raise PermissionError(13, "Permission denied")
        return real(prefix=prefix, dir=dir)

    monkeypatch.setattr(tempfile, "mkdtemp", refused)
    check_target(folder)
    with pytest.raises(
        InputError, match="be created in .*: Permission denied; give another folder"
    ):
        check_target(tmp_path / "new" / "knee")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="ONNX files require"):
        check_target(folder, onnx=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_killed_exports_left_is_cleared_or_put_back(
    folder: Path,
    record: ExportRecord,
    network: Network,
    orphan_name: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    living, another = temporary_name("knee", "weights"), orphan_name("knee2")
    for name in (living, another, orphan_name("knee"), orphan_name("knee", "weights")):
        (folder.parent / name).mkdir()
    # As a kill between the two renames leaves it.
    folder.rename(folder.parent / orphan_name("knee", "old"))

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_disk)
        with pytest.raises(InputError, match="No space left"):
            export(folder, replace(record, trial=13), network.state_dict())
    assert read_export(folder).trial == 11
    assert {path.name for path in folder.parent.iterdir()} == {"knee", living, another}

    # A kill after them leaves both.
    (folder.parent / orphan_name("knee", "old")).mkdir()
    export(folder, replace(record, trial=13), network.state_dict())
    assert read_export(folder).trial == 13
    assert {path.name for path in folder.parent.iterdir()} == {"knee", living, another}


def test_weights_that_do_not_fit_write_nothing(
    tmp_path: Path, record: ExportRecord, network: Network
) -> None:
    weights = network.state_dict()
    weights.pop(next(iter(weights)))
    with pytest.raises(InputError, match="the weights do not fit vit.*Missing key"):
        export(tmp_path / "knee", record, weights)
    assert list(tmp_path.iterdir()) == []


def test_weights_of_another_image_size_are_told_how_to_fit(
    tmp_path: Path, record: ExportRecord, network: Network
) -> None:
    size = 2 * network.shape.image_size.height
    weights = at_image_size(network, size).state_dict()
    rule = (
        r"the weights do not fit vit.* has shape .* but the network needs .*; weights of another"
    )
    with pytest.raises(InputError, match=rule):
        export(tmp_path / "knee", record, weights)
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_fails_leaves_the_older_one(
    folder: Path, record: ExportRecord, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(InputError, match="cannot be written: No space left"):
        export(folder, replace(record, trial=13), network.state_dict())
    assert read_export(folder).trial == 11
    assert [path.name for path in folder.parent.iterdir()] == ["knee"]


def changed(folder: Path, change: Callable[[dict], object]) -> Path:  # type: ignore[type-arg]
    path = folder / "config.yaml"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format=2), "this config has format 2, but this version reads 1"),
        (lambda d: d.pop("format"), "this config has format None, but this"),
        (lambda d: d.update(network="vit: V1"), "`network` is 'vit: V1', but `spec` means"),
        (lambda d: d.pop("macs"), "lacks a field.*KeyError: 'macs'"),
        (lambda d: d["evaluation"].pop("seed"), "lacks a field.*KeyError: 'seed'"),
        (lambda d: d["evaluation"].update(threads="two"), "threads is 'two' and no int"),
        (lambda d: d["evaluation"].update(versions=["torch"]), "versions is .* and no dict"),
        (lambda d: d["evaluation"].update(top1=1.5), "or range: .*`top1` is from 0 to 1"),
        (lambda d: d["evaluation"]["fidelity"].update(epochs=0), "whole numbers from 1"),
        (lambda d: d.update(evaluation=None), "of another type or range: TypeError"),
        (lambda d: d["spec"].update(format=99), "this network spec has format 99"),
    ],
)
def test_a_config_that_says_something_else(
    change: Callable[[dict], object],  # type: ignore[type-arg]
    message: str,
    folder: Path,
) -> None:
    with pytest.raises(InputError, match=message):
        read_export(changed(folder, change))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "config.yaml is no YAML"),
        (b"\xff\xfe\x00", "config.yaml is no YAML"),
        (b"just text", "this config has format 'just text'"),
        # A document that would run a command where it is not read safely.
        (
            b"!!python/object/apply:os.system ['touch ran']",
            "config.yaml is no YAML.* has the tag",
        ),
    ],
)
def test_a_file_that_is_no_config(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_export(tmp_path)
    assert not Path("ran").exists()


def test_a_folder_without_a_config(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no config.yaml to read at .*No such file"):
        read_export(tmp_path)


def test_the_card_says_what_its_letters_mean(record: ExportRecord) -> None:
    assert (
        "V vanilla attention, L less attention, E external attention, N no attention; slots: "
        "memory slots of external attention; DIA unit: layers of one number share a cell; CB: "
        "context broadcasting."
    ) in " ".join(model_card(record).split())


def test_an_export_names_its_plug_ins_and_misses_them(
    record: ExportRecord, plugged_in: Plugged
) -> None:
    assert "plugins" not in record.to_json()
    with plugged_in():
        placement = Placement.parse("P1V3/w7/sq1")
        spec = NetworkSpec(record.spec.backbone, placement)
        document = yaml.safe_load(yaml.safe_dump(replace(record, spec=spec).to_json()))
        assert ExportRecord.from_json(document).spec == spec
        assert document["plugins"] == {
            "branch P": {"name": "poolers", "version": "1.2"},
            "gate shrink": {"name": "poolers", "version": "1.2"},
        }
        other = document | {"plugins": {"branch P": {"name": "pools", "version": "9"}}}
        with pytest.raises(InputError, match="of kind P from the plug-in pools 9, which is not"):
            ExportRecord.from_json(other)
        with pytest.raises(InputError, match="another type or range: TypeError: name is 3"):
            ExportRecord.from_json(
                document | {"plugins": {"branch P": {"name": 3, "version": "9"}}}
            )
    with pytest.raises(
        InputError,
        match=r"^this network has a layer of kind P from the plug-in poolers 1\.2, which is not "
        r"installed; pip install poolers$",
    ):
        ExportRecord.from_json(document)
    gate_alone = document | {"plugins": {"gate shrink": document["plugins"]["gate shrink"]}}
    with pytest.raises(InputError, match="a layer with the gate shrink from the plug-in poolers"):
        ExportRecord.from_json(gate_alone)


def test_the_card_gives_mean_and_how_to_go_on(record: ExportRecord) -> None:
    card = model_card(record)
    # Mean of 0.861, 0.875, 0.868; SD 0.007, over the root of 3.
    assert "| validation top-1 over 3 seeds | 0.868 ± 0.004 (mean and standard error) |" in card
    assert "| top-1 on the test split | 0.8510 on 4000 images |" in card
    assert "| top-1 of these weights | 0.8750 on 4000 validation images |" in card
    assert f"| parameters | {record.params} (" in card
    assert "sharedattn train config.yaml" in card and "sharedattn verify ." in card
    assert "study digits, trial 11" in card
    assert "stage 1     V N L E" in card


def test_the_card_of_a_single_run_claims_no_mean(record: ExportRecord) -> None:
    card = model_card(replace(record, top1_by_seed={6: 0.875}, study=None, trial=None))
    assert "seeds |" not in card and "found by a search" not in card


def test_names_in_the_card_are_neither_markup_nor_columns(record: ExportRecord) -> None:
    several = NetworkSpec.parse("pvt_tiny: V1 | V1 | V1 | V1")
    card = model_card(
        replace(record, study="<script>alert(1)</script>", data={"name": "<b>"}, spec=several)
    )
    assert "<script>" not in card and "<b>" not in card
    assert "| network | pvt_tiny: V1 \\| V1 \\| V1 \\| V1 |" in card
    assert "| attention memory (bytes) | " in card


def test_onnx_without_its_extra_says_how_to_get_it(
    tmp_path: Path, record: ExportRecord, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"ONNX files require .*sharedattn\[onnx\]"):
        export(tmp_path / "knee", record, network.state_dict(), onnx=True)
    assert list(tmp_path.iterdir()) == []


def test_a_latency_is_kept_and_stands_on_the_card(
    record: ExportRecord, make_latency: Callable[..., LatencyRecord]
) -> None:
    timed = replace(record, latency=make_latency(peak_bytes=1_234_567))
    document = yaml.safe_load(yaml.safe_dump(timed.to_json()))
    assert ExportRecord.from_json(document) == timed
    ending = "batch of 3, a processor, 2 threads |"
    assert f"| latency | 2.5 ms, median of 31 forwards, {ending}" in model_card(timed)
    assert "| peak memory on the device | 1234567 bytes |" in model_card(timed)
    assert "latency" not in model_card(record)
    # As exports were written before.
    del document["latency"]
    assert ExportRecord.from_json(document) == record
    with pytest.raises(
        InputError, match="another type or range: .*`latency_ms`=.* is not a finite number"
    ):
        ExportRecord.from_json(
            document | {"latency": timed.to_json()["latency"] | {"latency_ms": 0}}
        )
