"""Detectors and segmenters start from classifiers and from each other, with heads of their own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from scenes import write_masks

from sharedattn.backbones import build, resolve
from sharedattn.data import DataConfig, open_data
from sharedattn.errors import InputError
from sharedattn.placement import BackboneSpec, NetworkSpec
from sharedattn.recipe import Recipe
from sharedattn.search.cli.main import main
from sharedattn.weights.interpolate import at_image_size
from sharedattn.weights.pretrained import load_trained
from sharedattn.weights.published import of_pyramid_head, published, shapes_of
from sharedattn.weights.trained_start import TrainedStart

SIZES = "depth=2,embed_dim=22,num_heads=2,patch_size=2"
SEGMENTER = BackboneSpec.parse(f"vit({SIZES},head=eanet,num_classes=3)@22x34")
CLASSIFIER = BackboneSpec.parse(f"vit({SIZES},num_classes=5)@26")
RECIPE = Recipe(epochs=1, batch_size=8)


def written(path: Path, backbone: BackboneSpec) -> str:
    torch.manual_seed(5)
    save_file(build(published(backbone)).state_dict(), path)
    return str(path)


@pytest.fixture
def data(tmp_path):
    return open_data(
        DataConfig(name=str(write_masks(tmp_path / "made")), image_size=(22, 34), task="segment")
    )


def test_a_segmenter_starts_from_a_classifier_of_another_size_with_a_new_head(tmp_path, data):
    path = written(tmp_path / "classifier.safetensors", CLASSIFIER)
    start = TrainedStart.of(path, SEGMENTER, data)
    assert start.text == "its head of 5 classes is left out; one of 3 begins untrained"
    assert start.to_json()["head"]["num_images"] == 0
    assert not start.has_trained_head
    network = start.network(resolve(NetworkSpec.parse(f"{SEGMENTER}: V2")), RECIPE, data, seed=3)
    own = build(published(CLASSIFIER))
    own.load_state_dict(load_trained(path, CLASSIFIER).state)
    resampled = at_image_size(own, (22, 34)).state_dict()
    torch.manual_seed(3)
    built = build(published(SEGMENTER)).state_dict()
    found = network.state_dict()
    assert found.keys() == built.keys()
    of_head = of_pyramid_head(found)
    assert len(of_head) == 24
    for name, weight in found.items():
        assert torch.equal(weight, (built if name in of_head else resampled)[name]), name


@pytest.mark.parametrize("head", ["semantic_fpn", "upernet", "retinanet"])
def test_every_head_of_a_pyramid_takes_every_body(tmp_path, head):
    classifier = BackboneSpec.parse(
        "pvt_v2(depths=1-1-1-1,embed_dims=8-16-24-32,num_heads=1-2-2-4,num_classes=7)"
    )
    path = written(tmp_path / "classifier.safetensors", classifier)
    wanted = replace(classifier, head=head, num_classes=4, image_size=(96, 160))
    trained = load_trained(path, wanted)
    assert (trained.num_classes, trained.has_head) == (7, False)
    shapes = shapes_of(wanted)
    of_head = of_pyramid_head(shapes)
    assert trained.state.keys() == shapes.keys() - of_head.keys()
    # And from each other, of any classes, anchors and head.
    other = replace(wanted, num_classes=6)
    path = written(tmp_path / "other.safetensors", other)
    assert not load_trained(path, wanted).has_head
    assert load_trained(path, wanted).state.keys() == trained.state.keys()
    same = load_trained(path, other)
    assert same.has_head and same.num_classes == 6 and same.state.keys() == shapes.keys()


def test_the_head_of_the_same_segmenter_is_kept_unless_it_is_to_be_replaced(tmp_path, data):
    path = written(tmp_path / "segmenter.safetensors", SEGMENTER)
    kept = TrainedStart.of(path, SEGMENTER, data)
    assert (kept.text, kept.has_trained_head) == ("its head is kept", True)
    assert kept == TrainedStart.of(path, SEGMENTER, data, "keep")
    new = TrainedStart.of(path, SEGMENTER, data, "replace")
    assert new.text == "its head of 3 classes is left out; one of 3 begins untrained"
    spec = resolve(NetworkSpec.parse(f"{SEGMENTER}: V2"))
    states = [start.network(spec, RECIPE, data, seed=3).state_dict() for start in (kept, new)]
    equal = {name: torch.equal(states[0][name], states[1][name]) for name in states[0]}
    assert all(equal[name] for name in equal if name not in of_pyramid_head(equal))
    assert not equal["pyramid_head.classifier.weight"]
    five = written(tmp_path / "five.safetensors", replace(SEGMENTER, num_classes=5))
    assert TrainedStart.of(five, SEGMENTER, data).text == (
        "its head is left out; one of 3 begins untrained"
    )
    with pytest.raises(InputError, match="no EANet of 3 classes; leave --head out to begin"):
        TrainedStart.of(five, SEGMENTER, data, "keep")


def test_weights_of_another_body_are_refused(tmp_path, data):
    deeper = replace(CLASSIFIER, keywords=BackboneSpec.parse("vit(depth=3)").keywords)
    path = written(tmp_path / "deeper.safetensors", deeper)
    with pytest.raises(InputError, match=r"deeper\.safetensors"):
        TrainedStart.of(path, SEGMENTER, data)
    other = replace(SEGMENTER, keywords=BackboneSpec.parse("vit(depth=3)").keywords)
    path = written(tmp_path / "other.safetensors", other)
    with pytest.raises(InputError, match=r"other\.safetensors"):
        TrainedStart.of(path, SEGMENTER, data)


SPACE = f"""\
name: segmenters
backbone: vit({SIZES},head=eanet,num_classes=3)@22x34
order: any
stages:
  - {{depth: 1..2, counts: {{V: 0..2, N: 0..1}}}}
"""


def test_a_trained_classifier_serves_train_and_search_of_segmenters(tmp_path, data, capsys):
    network = f"vit({SIZES},in_chans=3)@16: V2"
    folder = tmp_path / "images"
    for split in ("train", "val"):
        for name in ("a", "b"):
            place = folder / split / name
            place.mkdir(parents=True)
            for image in sorted((tmp_path / "made" / "images" / split).iterdir())[:11]:
                (place / image.name).write_bytes(image.read_bytes())
    classifier, segmenter = str(tmp_path / "classifier"), str(tmp_path / "segmenter")
    asked = ["--epochs", "1", "--json"]
    assert main(["train", network, "--data", str(folder), "--to", classifier, *asked]) == 0
    capsys.readouterr()
    wanted = f"vit({SIZES},head=eanet)@22x34: V2"
    masks = ["--data", str(tmp_path / "made")]
    assert main(["train", wanted, *masks, "--weights", classifier, "--to", segmenter, *asked]) == 0
    printed = capsys.readouterr()
    assert "its head of 2 classes is left out; one of 3 begins untrained" in printed.err
    # Nothing is said of a head that was never trained.
    assert "miou_before" not in printed.out
    card = " ".join((tmp_path / "segmenter" / "README.md").read_text().split())
    assert "the weights of a trained model of 2 classes, with a new head" in card
    # The export of a segmenter gives another one its head, unless it is to be replaced.
    again = ["train", wanted.replace("V2", "V1N1"), *masks, "--weights", segmenter, *asked]
    to = ["--to", str(tmp_path / "again")]
    assert main([*again, *to]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["plan"]["weights"]["text"], "miou_before" in found) == ("its head is kept", True)
    assert main([*again, *to, "--head", "replace", "--dry-run"]) == 0
    assert "its head of 3 classes is left out" in capsys.readouterr().out
    (tmp_path / "space.yaml").write_text(SPACE)
    search = f"search {tmp_path / 'space.yaml'} --evaluator supernet --weights {classifier}"
    options = "--epochs 1 --supernet-epochs 1 --workers 1 --confirm-seeds 1"
    out = ["--out", str(tmp_path / "out"), "--json"]
    assert main([*search.split(), *options.split(), *masks, *out]) == 0
    printed = capsys.readouterr()
    assert "one of 3 begins untrained" in printed.err
    assert '"start": null' in printed.out and '"kind": "first"' in printed.out
    # A teacher whose head was never trained has nothing to teach.
    recipe = tmp_path / "taught.yaml"
    recipe.write_text("epochs: 1\nbatch_size: 8\ndistillation: 0.5\n")
    taught = ["--recipe", str(recipe), "--weights", classifier, "--to", str(tmp_path / "no")]
    assert main(["train", wanted, *masks, *taught]) == 2
    assert "distillation" in capsys.readouterr().err
