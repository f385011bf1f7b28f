"""`sharedattn analyze` on a tiny export, end to end, and what it refuses."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from commands import run

from sharedattn.backbones import describe, resolve
from sharedattn.data import DataConfig, open_data
from sharedattn.errors import InputError
from sharedattn.placement import NetworkSpec
from sharedattn.recipe import Recipe
from sharedattn.results.analysis.measuring import layers_of, measure
from sharedattn.results.export.folder import load_network
from sharedattn.search.jobs.analyze import analyse_config
from sharedattn.search.jobs.train import PlacementTraining, train_placement

BACKBONE = (
    "vit(embed_dim=8,num_heads=2,depth=3,mlp_ratio=1,patch_size=8,num_classes=2,in_chans=1)@16"
)


def export(folder: Path, placement: str) -> Path:
    training = PlacementTraining(
        spec=resolve(NetworkSpec.parse(f"{BACKBONE}: {placement}")),
        data=DataConfig(name="digit-pairs"),
        recipe=Recipe(epochs=1, batch_size=512, init="torch"),
        device="cpu",
    )
    train_placement(training, folder, seed=3)
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("exports") / "with", "V1L1E1/s4/dia1/cb")


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("exports") / "without", "V1L1E1/s4/dia1")


def test_the_command_writes_what_a_direct_computation_gives(
    capsys: pytest.CaptureFixture[str], exported: Path
) -> None:
    code, out, err = run(capsys, "analyze", exported, "--images", 20, "--seeds", 2, "--json")
    assert code == 0, err
    document = json.loads(out)
    folder = exported / "analysis"
    assert document.pop("folder") == str(folder)
    assert json.loads((folder / "analysis.json").read_text()) == document
    assert {path.name for path in folder.iterdir()} == {"analysis.json", *document["plots"]}
    assert len(document["plots"]) == 5
    assert document["control"] == {"seeds": [1, 2], "init": "torch"}
    assert document["images"] == 20
    assert document["weights"]["source"] == str(exported)
    assert document["data"]["split"] == "validation"
    assert {"torch", "timm", "sharedattn"} <= set(document["versions"])

    network = load_network(exported)
    data = open_data(DataConfig(name="digit-pairs"))
    [(images, _)] = data.eval_batches(
        "validation", batch_size=20, device=torch.device("cpu"), at_most=20
    )
    spec = resolve(NetworkSpec.parse(document["network"]))
    layers = layers_of(describe(spec.backbone), spec.placement, spec.backbone.options)
    direct = measure(network, layers, spec.placement, [images])
    for row, position in zip(document["entropy"], range(3), strict=True):
        assert row["value"] == pytest.approx(direct["entropy", position].value, abs=1e-6)
    [pair] = document["similarity"]["consecutive"]
    assert pair["correlation"]["value"] == pytest.approx(
        direct["correlation", 0, 1].value, abs=1e-6
    )
    assert document["gates"]["mean"]["value"] == pytest.approx(
        direct["gates mean",].value, abs=1e-6
    )
    assert document["diagonality"][1]["figure"]["value"] == pytest.approx(
        direct["diagonality", 1].value, abs=1e-6
    )


def test_the_summary_is_for_people_and_an_analysis_is_replaced(
    capsys: pytest.CaptureFixture[str], exported: Path, without: Path, tmp_path: Path
) -> None:
    out_folder = tmp_path / "shown"
    few = ("--images", 5, "--seeds", 2, "--out", out_folder)
    code, out, err = run(capsys, "analyze", exported / "config.yaml", *few, "--against", without)
    assert code == 0, err
    text = " ".join(out.split())
    assert "layer choice entropy change with CB like before diagonality" in text
    assert "1.3 E/s4/d0/cb" in text
    assert "mean and SD of 2 random initialisations" in text
    assert "correlation of gates across layers" in text
    assert "of shared units" in text and "of independent units" not in text
    assert "random networks with a unit a layer" in text
    assert "undefined" not in text
    document = json.loads((out_folder / "analysis.json").read_text())
    assert document["against"] == str(without)
    assert document["broadcasting"]["counterpart"] == "V1L1E1/s4/dia1"
    assert document["broadcasting"]["layers"][2]["trained_change"] is not None

    other = BACKBONE.replace("num_classes=2", "num_classes=7")
    code, out, err = run(capsys, "analyze", f"{other}: E1N1/s4", *few)
    assert code == 0, err
    # The number of classes is the data's.
    assert "num_classes=4" in out
    assert "correlation of gates" not in out
    document = json.loads((out_folder / "analysis.json").read_text())
    assert document["weights"] == {"source": "random initialisation", "seed": 0}
    assert {path.name for path in out_folder.iterdir()} == {"analysis.json", "entropy.svg"}
    assert [path.name for path in tmp_path.iterdir()] == ["shown"]


def summary(capsys: pytest.CaptureFixture[str], spec: str, images: int, out_folder: Path) -> str:
    """What an analysis with two controls says, on one line."""
    few = ("--images", images, "--seeds", 2, "--out", out_folder)
    code, out, err = run(capsys, "analyze", spec, *few)
    assert code == 0, err
    return " ".join(out.split())


def test_a_convolutional_network_is_analysed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    spec = (
        "resnet_cifar(in_chans=1,inner_widths=8-16-32,num_classes=4,se_reduction=4,stem_width=8,"
        "widths=8-16-32)@16: V3/se | V3/se | V3/se"
    )
    text = summary(capsys, spec, 5, tmp_path / "x")
    assert "No layer attends" in text
    assert "correlation of gates across layers" in text and "of stage 3" in text
    assert "diagonality" not in text and "Change with CB" not in text
    document = json.loads((tmp_path / "x" / "analysis.json").read_text())
    assert document["broadcasting"] is None
    assert document["plots"] == ["gates.svg"]


def test_undefined_figures_are_counted_for_people(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    # One token: attention over one key is no distribution to speak of.
    spec = (
        "vit(embed_dim=8,num_heads=2,depth=1,patch_size=16,class_token=false,global_pool=avg,"
        "num_classes=2,in_chans=1)@16: V1"
    )
    text = summary(capsys, spec, 3, tmp_path / "x")
    assert "3 values are undefined and left out of their means" in text


def test_bad_input_is_refused_before_any_work(
    capsys: pytest.CaptureFixture[str],
    exported: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("nothing may be measured")

    monkeypatch.setattr("sharedattn.search.jobs.analyze.analyse", never)
    monkeypatch.setattr("sharedattn.search.jobs.analyze.read_images", never)
    monkeypatch.chdir(tmp_path)
    Path("work").mkdir()
    Path("work", "mine.txt").touch()
    Path("broken").mkdir()
    Path("broken", "analysis.json").write_text("[]")
    for arguments, rule in (
        (
            (exported, "--images", 0),
            "`--images` is a whole number from 1 to 2147",
        ),
        ((exported, "--seeds", 1), "`--seeds` is a whole number from 2 to 2147"),
        ((exported, "--out", "work"), "neither an analysis nor an empty folder"),
        ((exported, "--out", "broken"), "neither an analysis nor an empty folder"),
        ((exported, "--data", "no-such"), "is no folder here; give digit-pairs"),
        ((exported, "--against", exported), "a counterpart has context broadcasting where"),
        ((exported, "--against", "nowhere"), "there is no config.yaml to read"),
        (("work",), "there is no config.yaml to read"),
        (("V12",), "it is neither `backbone: placement` nor"),
        # Too long for a file's name, which it is not taken for.
        ((f"{BACKBONE}: {'V1' * 200}",), "layers, more than the"),
        (("vit@16: V1",), "16x16 pixels and 1 channel"),
    ):
        code, out, err = run(capsys, "analyze", *arguments)
        assert (code, out) == (2, ""), (arguments, err)
        assert rule in " ".join(err.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "work"]


def test_changed_weights_and_moved_data_are_refused(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("config.yaml", "model.safetensors"):
        (copy / name).write_bytes((exported / name).read_bytes())
    config = yaml.safe_load((copy / "config.yaml").read_text())
    config["data"]["config"]["name"] = str(tmp_path / "moved")
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(InputError, match="say by --data where the data of export"):
        analyse_config(str(copy))
    (copy / "model.safetensors").write_bytes(b"other")
    with pytest.raises(InputError, match="was changed"):
        analyse_config(str(copy))


def test_a_crash_leaves_the_older_analysis(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "analysis"
    analyse_config(str(exported), num_images=3, num_controls=2, out=out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def crash(*arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr("sharedattn.search.jobs.analyze.write_plots", crash)
    with pytest.raises(MemoryError):
        analyse_config(str(exported), num_images=4, num_controls=2, out=out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["analysis"]
