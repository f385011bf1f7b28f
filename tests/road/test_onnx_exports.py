"""An export says how an image file becomes its input: on the card, and in model.onnx itself."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from torch import nn

from sharedattn.backbones import build, resolve
from sharedattn.costs.model import CostModel
from sharedattn.errors import InputError
from sharedattn.networks.network import Network
from sharedattn.placement import NetworkSpec
from sharedattn.results.export import onnx as onnx_export
from sharedattn.results.export.folder import ExportRecord, export, load_network, model_card
from sharedattn.results.export.onnx import onnx_metadata, write_onnx
from sharedattn.results.records import EvaluationIdentity, EvaluationRecord, Fidelity
from sharedattn.search.cli.main import main

EXAMPLE = Path(__file__).parents[2] / "examples" / "onnx_predict.py"
SPEC = resolve(
    NetworkSpec.parse(
        "vit(embed_dim=12,num_heads=2,depth=3,patch_size=4,num_classes=3)@16: V1L1E1/dia1/cb"
    )
)
PIXELS = {
    "mean": [0.5, 0.4, 0.3],
    "std": [0.5, 0.25, 0.2],
    "interpolation": "bicubic",
    "crop_pct": 0.9,
    "crop_mode": "center",
}
CLASSES = ["Ärger | 1", "cat", "dog\nwolf"]


def network_of(spec: NetworkSpec) -> Network:
    torch.manual_seed(0)
    network = build(spec, fused=False)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)
    return network.eval()


def record_of(spec: NetworkSpec, data: dict[str, Any]) -> ExportRecord:
    cost = CostModel(spec.backbone).cost(spec.placement)
    size = spec.backbone.image_size or 16
    return ExportRecord(
        spec=spec,
        params=cost.params,
        macs=cost.macs,
        recipe={"epochs": 1},
        data={"name": "pets", "fingerprint": "d" * 64, **data},
        evaluation=EvaluationRecord(
            identity=EvaluationIdentity(
                spec_key=spec.key,
                recipe_key="r" * 64,
                data_fingerprint="d" * 64,
                fidelity=Fidelity(epochs=1, image_size=size),
                seed=0,
            ),
            split="validation",
            top1=0.75,
            loss=0.5,
            num_images=40,
            wall_time_s=1.0,
            device="cpu",
            threads=1,
            versions={},
            weights_sha256=None,
        ),
        test_top1=0.625,
        num_test_images=40,
    )


def recorded(pixels: dict[str, Any], in_chans: int = 3) -> dict[str, Any]:
    return {"image_size": 16, "in_chans": in_chans, **pixels}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exports") / "knee"
    data = {"pixels": recorded(PIXELS), "classes": CLASSES}
    export(path, record_of(SPEC, data), network_of(SPEC).state_dict(), onnx=True)
    return path


def says(path: Path) -> dict[str, str]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return dict(session.get_modelmeta().custom_metadata_map)


def test_the_file_says_what_its_input_and_outputs_are(folder: Path) -> None:
    found = says(folder / "model.onnx")
    assert json.loads(found["class_names"]) == CLASSES
    assert {name: json.loads(found[name]) for name in ("mean", "std", "crop_pct")} == {
        name: PIXELS[name] for name in ("mean", "std", "crop_pct")
    }
    assert (found["interpolation"], found["crop_mode"]) == ("bicubic", "center")
    assert (found["image_size"], found["input_channels"]) == ("16", "RGB")
    assert (found["input_name"], found["output_name"]) == ("images", "logits")
    assert (found["input_layout"], found["network"]) == ("NCHW", str(SPEC))
    assert found["input_range"].startswith("RGB, 0..1 before normalisation")
    assert (found["top1"], found["test_top1"]) == ("0.75", "0.625")
    assert found["sharedattn_version"]
    model = onnx.load(folder / "model.onnx")
    assert (model.producer_name, model.producer_version) == (
        "sharedattn",
        found["sharedattn_version"],
    )


def test_the_batch_axis_has_its_name_at_both_ends(folder: Path) -> None:
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    [images], [logits] = session.get_inputs(), session.get_outputs()
    assert images.shape == ["batch", 3, 16, 16] and logits.shape == ["batch", 3]
    model = onnx.load(folder / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    symbols = {
        dim.dim_param
        for value in (*model.graph.input, *model.graph.output, *model.graph.value_info)
        for dim in value.type.tensor_type.shape.dim
        if dim.dim_param
    }
    assert not [symbol for symbol in symbols if re.search(r"\bs\d+\b", symbol)]
    for batch_size in (1, 5):
        images_BCYX = torch.randn(batch_size, 3, 16, 16)
        (found,) = session.run(None, {"images": images_BCYX.numpy()})
        with torch.inference_mode():
            expected = network_of(SPEC)(images_BCYX)
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-4)


def test_logits_that_are_no_numbers_are_not_written(tmp_path: Path) -> None:
    network = network_of(SPEC)
    nn.init.constant_(network.get_parameter("head.bias"), float("nan"))
    with pytest.raises(InputError, match="logits are not finite numbers"):
        write_onnx(tmp_path / "model.onnx", network)
    assert not list(tmp_path.iterdir())


def test_metadata_of_data_without_image_files() -> None:
    found = onnx_metadata(
        network="vit: V1",
        image_size=16,
        in_chans=1,
        pixels=None,
        class_names=None,
        quality="top1",
        value=0.5,
    )
    assert found["top1"] == "0.5"
    assert found["input_range"] == "L, normalised as the data set gives it"
    assert not {"mean", "std", "class_names", "test_top1"} & set(found)
    assert all(isinstance(value, str) for value in found.values())


@pytest.fixture(scope="module")
def example() -> ModuleType:
    namespace = ModuleType("onnx_predict")
    exec(compile(EXAMPLE.read_text(), EXAMPLE, "exec"), namespace.__dict__)
    return namespace


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("crop_pct", [0.875, 0.9, 1.0])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("channels", "size"), [(1, (31, 31)), (3, (31, 31)), (3, (23, 41))])
def test_the_example_prepares_images_as_timm_does(
    example: ModuleType,
    crop_mode: str,
    crop_pct: float,
    interpolation: str,
    channels: int,
    size: tuple[int, int],
) -> None:
    mean, std = [0.485, 0.456, 0.406][:channels], [0.229, 0.224, 0.225][:channels]
    transform = create_transform(
        input_size=(channels, *size),
        interpolation=interpolation,
        mean=mean,
        std=std,
        crop_pct=crop_pct,
        crop_mode=crop_mode,
        is_training=False,
    )
    metadata = onnx_metadata(
        network="",
        image_size=size,
        in_chans=channels,
        pixels=dict(
            mean=mean,
            std=std,
            interpolation=interpolation,
            crop_pct=crop_pct,
            crop_mode=crop_mode,
        ),
        class_names=None,
        quality="top1",
        value=0.5,
    )
    rng = np.random.default_rng(0)
    for shape in ((40, 60), (97, 53), (20, 20), (31, 31), (200, 33)):
        values = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
        image = Image.fromarray(values).convert("L" if channels == 1 else "RGB")
        expected, found = transform(image).numpy(), example.pixels(image, metadata)
        assert found.shape == (channels, *size) and found.dtype == np.float32
        assert np.abs(found - expected).max() <= 1e-5, shape


def drawing() -> Image.Image:
    """Left half black, right half a grey ramp; upright it is wider than high."""
    values = np.zeros((6, 8), dtype=np.uint8)
    values[:, 4:] = np.linspace(40, 240, 6)[:, None]
    return Image.fromarray(values)


def with_orientation(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 270 degrees
    drawing().convert("RGB").transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)


def with_alpha(path: Path) -> None:
    image = Image.new("RGBA", (8, 6), (0, 0, 0, 0))
    alpha = np.zeros((6, 8), dtype=np.uint8)
    alpha[:, :4] = 255
    alpha[:, 4:] = 255 - np.asarray(drawing())[:, 4:]
    image.putalpha(Image.fromarray(alpha))
    image.save(path)


def of_16_bits(path: Path) -> None:
    Image.fromarray(np.asarray(drawing()).astype(np.uint16) * 257).save(path)


def of_32_bits(path: Path) -> None:
    values = np.asarray(drawing()).astype(np.int64) << 24
    Image.fromarray((values & 0xFFFFFFFF).astype(np.uint32).view(np.int32)).save(path)


def of_floats(path: Path) -> None:
    Image.fromarray((np.asarray(drawing()) / 255).astype(np.float32)).save(path)


def plain(path: Path) -> None:
    drawing().save(path)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.png", plain),
        ("a.webp", lambda path: drawing().convert("RGB").save(path, lossless=True)),
        ("a.png", with_orientation),
        ("a.png", with_alpha),
        ("a.png", of_16_bits),
        ("a.tif", of_16_bits),
        ("a.tif", of_32_bits),
        ("a.tif", of_floats),
    ],
)
def test_the_example_reads_files_upright_on_white_and_in_8_bits(
    example: ModuleType, name: str, write: Callable[[Path], None], mode: str, tmp_path: Path
) -> None:
    write(tmp_path / name)
    image = example.read(str(tmp_path / name), mode)
    assert (image.mode, image.size) == (mode, (8, 6))
    expected = np.asarray(drawing().convert(mode)).astype(int)
    assert np.abs(np.asarray(image).astype(int) - expected).max() <= 1


def test_the_example_predicts_files_by_nothing_but_the_model(folder: Path, tmp_path: Path) -> None:
    """It imports neither torch nor this package, and gives the network's own predictions."""
    source = EXAMPLE.read_text()
    assert not re.search(r"torch|import (sharedattn|results|timm)", source)
    transform = create_transform(
        input_size=(3, 16, 16), is_training=False, **{**PIXELS, "mean": tuple(PIXELS["mean"])}
    )
    rng, files, expected = np.random.default_rng(0), [], []
    network = network_of(SPEC)
    for number in range(6):
        path = tmp_path / f"image {number}.png"
        Image.fromarray(rng.integers(0, 256, (24, 30 + number, 3)).astype(np.uint8)).save(path)
        with torch.inference_mode():
            logits = network(transform(Image.open(path)).unsqueeze(0))[0]
        best = int(logits.argmax())
        expected.append((CLASSES[best], f"{logits.softmax(0)[best].item():.3f}"))
        files.append(str(path))
    moved = tmp_path / "elsewhere.onnx"
    moved.write_bytes((folder / "model.onnx").read_bytes())
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), str(moved), *files],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    ten = EXAMPLE.with_name("onnx_ten_lines.py")
    short = subprocess.run(
        [sys.executable, str(ten), str(moved), *files],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert short.returncode == 0, short.stderr
    named = [f"{path} {name}" for path, (name, _) in zip(files, expected, strict=True)]
    assert short.stdout == "\n".join(named) + "\n"
    lines = re.findall(r"^(.*\.png)\t((?:.|\n)*?)\t([\d.]+)$", done.stdout, re.MULTILINE)
    assert [line[0] for line in lines] == files
    assert [line[1] for line in lines] == [name for name, _ in expected]
    for line, (_, probability) in zip(lines, expected, strict=True):
        assert float(line[2]) == pytest.approx(float(probability), abs=2e-3)


def test_the_card_shows_pixels_and_classes() -> None:
    card = model_card(record_of(SPEC, {"pixels": recorded(PIXELS), "classes": CLASSES}), onnx=True)
    lines = card.splitlines()
    assert (
        "| pixels | 16 x 16, RGB 0..1, less mean 0.5, 0.4, 0.3, over std 0.5, 0.25, 0.2 |" in lines
    )
    assert "| resize and crop | bicubic, crop_pct 0.9, crop_mode center |" in lines
    assert "| classes | 3, in the order of the logits: Ärger \\| 1, cat, dog wolf |" in lines
    assert "`model.onnx` says in its metadata" in card
    many = model_card(record_of(SPEC, {"classes": [f"c{i}" for i in range(100)]}))
    assert "| classes | 100, in the order of the logits: c0, c1, " in many
    assert "c7, ... (all in config.yaml) |" in many and "model.onnx" not in many
    assert "<b>" not in model_card(record_of(SPEC, {"classes": ["<b>", "x"]}))


def test_the_card_of_an_export_from_before() -> None:
    """Pixels stood in the identity of a folder; digit pairs have none, classes had no names."""
    transform = {k: v for k, v in recorded(PIXELS).items() if k != "crop_mode"}
    card = model_card(record_of(SPEC, {"identity": {"version": 1, "transform": transform}}))
    assert "| resize and crop | bicubic, crop_pct 0.9, crop_mode center |" in card
    assert "| classes |" not in card
    digits = record_of(SPEC, {"name": "digit-pairs", "identity": {"transform": "a text"}})
    assert "| pixels | 16 x 16, grey, standardised over the training digits" in model_card(digits)
    bare = replace(digits, data={"name": "pets", "pixels": None, "classes": None})
    assert "| pixels |" not in model_card(bare) and "| classes |" not in model_card(bare)


@pytest.mark.slow
def test_the_cards_commands_work_in_the_exports_own_folder_and_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    network = (
        "vit(class_token=false,depth=1,embed_dim=8,global_pool=avg,in_chans=1,num_classes=2,"
        "num_heads=2,patch_size=8)@16: V1"
    )
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("epochs: 1\nbatch_size: 512\nwarmup_epochs: 0\n")
    made = tmp_path / "made"
    arguments = ["train", network, "--recipe", str(recipe), "--to", str(made)]
    assert main(arguments) == 0, capsys.readouterr().err
    card = (made / "README.md").read_text()
    [snippet] = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    [commands] = re.findall(r"## Check and retrain\n\n```text\n(.*?)```", card, re.DOTALL)
    for place, here in ((made, "."), (tmp_path, "made")):
        monkeypatch.chdir(place)
        namespace: dict[str, Any] = {}
        exec(snippet.replace('"."', repr(here)), namespace)
        assert namespace["network"](torch.randn(2, 1, 16, 16)).shape == (2, 2)
        for line in commands.splitlines():
            program, *words = line.split()
            assert program == "sharedattn"
            if place != made:
                words = [{".": here, "config.yaml": "made/config.yaml"}.get(w, w) for w in words]
                words = [word.replace("../retrained", "again") for word in words]
            assert main(words) == 0, capsys.readouterr().err
    assert sorted(path.name for path in made.iterdir()) == [
        "README.md",
        "config.yaml",
        "model.safetensors",
    ]
    for name in ("retrained", "again"):
        images = torch.randn(2, 1, 16, 16)
        again, first = load_network(tmp_path / name), load_network(made)
        assert torch.equal(again(images), first(images))


def test_the_extra_is_asked_for_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="ONNX files require"):
        onnx_export.check_extra()
