"""Pixels belong to the model: what timm's weights were trained on is what they are shown."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image
from timm.data import create_dataset, create_loader, create_transform, resolve_data_config

from sharedattn.backbones import build, describe
from sharedattn.backbones.pixels import pixels_by_tag
from sharedattn.data import DataConfig
from sharedattn.data.images import ImageData
from sharedattn.data.loader import Item, Normaliser, RawBatch
from sharedattn.data.pixels import PixelChanges
from sharedattn.errors import InputError
from sharedattn.placement import BackboneSpec, NetworkSpec, Placement
from sharedattn.search.cli.main import main
from sharedattn.search.data_plan import DataOptions, data_for
from sharedattn.weights.pretrained import load_pretrained, start_from

CPU = torch.device("cpu")
SHAPES = ((300, 200), (181, 257), (64, 500))  # width, height

# Of 265 sets of weights: these have five different ways with pixels among them.
TAGS = (
    "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "deit_tiny_patch16_224.fb_in1k",
    "pvt_v2_b0.in1k",
    "flexivit_small.1200ep_in1k",
    "vit_xsmall_patch16_clip_224.tinyclip_yfcc15m",
    "vit_base_patch32_clip_384.openai_ft_in12k_in1k",
)


def photograph(seed, size):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (7, 5, 3)).astype(np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("photographs")
    for split, count in (("train", 4), ("val", 3)):
        for number, name in enumerate(("ant", "bee", "cow")):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                image = photograph(100 * number + i, SHAPES[i % 3])
                image.save(root / split / name / f"{i:02d}.png")
    return root


# timm 1.0.31 leaves closing an image's file to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.slow
@pytest.mark.parametrize("name", TAGS)
def test_weights_saved_by_timm_see_what_they_see_in_timm(folder, tmp_path, name):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    config = resolve_data_config({}, pretrained_cfg=model.pretrained_cfg)
    dataset = create_dataset("", root=str(folder / "val"), split="val", search_split=False)
    loader = create_loader(
        dataset,
        batch_size=4,
        is_training=False,
        num_workers=0,
        persistent_workers=False,
        device=CPU,
        **config,
    )
    backbone = BackboneSpec(name=name, num_classes=3)
    data = ImageData(data_for(backbone, str(folder), None, weights=str(tmp_path / "weights.pth")))
    placement = Placement.all_vanilla(describe(backbone).depths)
    network = build(NetworkSpec(backbone, placement)).eval()
    start_from(network, load_pretrained(tmp_path / "weights.pth", backbone))
    with torch.inference_mode():
        theirs = torch.cat([model(images) for images, _ in loader])
        labels = torch.cat([labels for _, labels in loader])
        batches = list(data.eval_batches("validation", batch_size=4, device=CPU))
        ours = torch.cat([network(images) for images, _ in batches])
    assert torch.equal(torch.cat([labels for _, labels in batches]), labels)
    assert torch.equal(ours.argmax(1), theirs.argmax(1))
    spread = theirs.std(dim=0).mean().item()
    assert (ours - theirs).abs().max().item() < 1e-3 * spread


def accepted():
    for name in timm.list_models(["vit_*", "deit*", "swin_*", "pvt_v2_*", "flexivit*"]):
        try:
            describe(BackboneSpec(name=name))
        except InputError:
            continue
        yield name


@pytest.mark.slow
def test_the_evaluation_transform_of_every_accepted_set_of_weights_is_timms(folder):
    """Of each name with weights, on images of three shapes; equal ones are looked at once."""
    kinds = {}
    for name in accepted():
        for tag in pixels_by_tag(name):
            full = f"{name}.{tag}"
            found = resolve_data_config({}, pretrained_cfg=timm.get_pretrained_cfg(full).to_dict())
            size = describe(BackboneSpec(name=name)).image_size
            kinds.setdefault((str(found), size), (full, found))
    assert len(kinds) > 20
    for (_, size), (name, found) in kinds.items():
        config = data_for(BackboneSpec(name=name), str(folder), None)
        data = ImageData(config)
        normalise = Normaliser(data.pixels, CPU)
        items = data._loader_of_eval(1, CPU)._loader.dataset
        wanted = create_transform(**{**found, "input_size": (3, *size)}, is_training=False)
        for index in range(3):
            pixels, label, _ = items[Item("validation", index)]
            raw = RawBatch(
                torch.from_numpy(pixels)[None], torch.tensor([label]), [], torch.empty(0)
            )
            image, _ = data._parts["validation"].read(index, "RGB")
            assert image.size == SHAPES[index]
            assert torch.equal(normalise(raw)[0][0], wanted(image)), name


def pixels_of(name, folder, **options):
    backbone = BackboneSpec(name=name)
    weights = options.pop("weights", None)
    return ImageData(
        data_for(backbone, str(folder), None, options=DataOptions(**options), weights=weights)
    ).pixels


def test_from_scratch_an_untagged_backbone_keeps_its_pixels(folder):
    pixels = pixels_of("vit_tiny_patch16_224", folder)
    assert pixels.mean == (0.485, 0.456, 0.406)
    assert (pixels.crop_pct, pixels.crop_mode, pixels.interpolation) == (0.9, "center", "bicubic")


def test_timms_own_weights_bring_the_pixels_of_their_tag(folder):
    assert pixels_of("vit_tiny_patch16_224", folder, weights="timm").mean == (0.5, 0.5, 0.5)
    assert pixels_of("vit_base_patch16_224.dino", folder).mean == (0.485, 0.456, 0.406)


def test_a_file_of_weights_whose_tags_differ_asks(folder, tmp_path):
    file = tmp_path / "weights.pth"
    file.write_bytes(b"")
    with pytest.raises(InputError, match=r"differ in mean, std, crop_pct .*dino: mean .*--pixels"):
        pixels_of("vit_base_patch16_224", folder, weights=str(file))
    chosen = pixels_of("vit_base_patch16_224", folder, weights=str(file), tag="dino")
    assert (chosen.mean, chosen.crop_pct) == ((0.485, 0.456, 0.406), 0.9)
    given = PixelChanges(mean=(0.5,), std=(0.25,), crop_pct=1.0)
    chosen = pixels_of("vit_base_patch16_224", folder, weights=str(file), pixels=given)
    assert (chosen.mean, chosen.std, chosen.crop_pct) == ((0.5,) * 3, (0.25,) * 3, 1.0)
    # All tags of an architecture agree: there is nothing to ask.
    assert pixels_of("deit_tiny_patch16_224", folder, weights=str(file)).crop_pct == 0.9
    named = pixels_of("vit_base_patch16_224.bamboo", folder, weights=str(file))
    assert named.mean == (0.48145466, 0.4578275, 0.40821073)


def test_a_tag_of_another_model_may_be_named_and_an_unknown_one_is_refused(folder):
    found = pixels_of("vit_tiny_patch16_224", folder, tag="vit_base_patch16_clip_224.openai")
    assert found.mean == (0.48145466, 0.4578275, 0.40821073)
    with pytest.raises(InputError, match="`--pixels` is 'fb_in1k'.* it has augreg_in21k_ft_in1k"):
        pixels_of("vit_tiny_patch16_224", folder, tag="fb_in1k")


def test_one_channel_takes_the_mean_of_three(folder):
    backbone = BackboneSpec(name="vit_base_patch16_224.bamboo", in_chans=1)
    pixels = ImageData(data_for(backbone, str(folder), None)).pixels
    assert pixels.mean == pytest.approx((sum((0.48145466, 0.4578275, 0.40821073)) / 3,))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": (128.0,)}, "divide numbers of images scaled to 0..255 by 255"),
        ({"mean": (0.5, 0.5)}, "has 2 numbers, but images have 3 channels"),
        ({"std": (0.0,)}, "images are divided by it"),
        ({"std": (float("nan"),)}, "give finite numbers"),
        ({"interpolation": "cubic"}, "choose one of nearest, bilinear, bicubic"),
        ({"crop_mode": "middle"}, "choose one of center, squash, border"),
        ({"crop_pct": 0.0}, "above 0 and at most 1"),
        ({"crop_pct": 87.5}, "above 0 and at most 1"),
    ],
)
def test_pixels_that_mean_nothing(folder, changes, message):
    with pytest.raises(InputError, match=message):
        pixels_of("vit_tiny_patch16_224", folder, pixels=PixelChanges(**changes))


def test_pixels_are_part_of_the_data_and_of_every_record(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    network = "vit(depth=1,embed_dim=12,num_heads=2,patch_size=8,num_classes=3)@16: V1"
    recipe = {"epochs": 1, "batch_size": 3, "pixels": {"mean": 0.25, "crop_mode": "squash"}}
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    code = main(
        ["train", network, "--data", str(folder), "--recipe", "recipe.yaml", "--to", "net",
         "--std", "0.5,0.4,0.3", "--json"]
    )  # fmt: skip
    captured = capsys.readouterr()
    assert code == 0, captured.err
    config = yaml.safe_load((tmp_path / "net" / "config.yaml").read_text())
    expected = {
        "mean": [0.25] * 3,
        "std": [0.5, 0.4, 0.3],
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "crop_mode": "squash",
    }
    sizes = {"image_size": 16, "in_chans": 3}
    assert config["data"]["pixels"] == config["data"]["identity"]["transform"] == sizes | expected
    assert json.loads(captured.out)["plan"]["data"]["pixels"] == sizes | expected
    # What was trained so is evaluated so, wherever it goes on from.
    assert pixels_of("vit_tiny_patch16_224", folder, weights="net").mean == (0.25,) * 3
    (tmp_path / "elsewhere").mkdir()
    shutil.copy("net/model.safetensors", "elsewhere/w.safetensors")
    shutil.copy("net/config.yaml", "elsewhere/config.yaml")
    assert pixels_of("vit_tiny_patch16_224", folder, weights="elsewhere/w.safetensors").std == (
        0.5,
        0.4,
        0.3,
    )
    assert main(["verify", "net", "--json"]) == 0


def test_the_fingerprint_follows_the_pixels(folder):
    config = DataConfig(name=str(folder), image_size=16)
    prints = {
        ImageData(replace(config, pixels=PixelChanges(**changes))).fingerprint
        for changes in ({}, {"mean": (0.5,)}, {"crop_pct": 0.8}, {"crop_mode": "border"})
    }
    assert len(prints) == 4
