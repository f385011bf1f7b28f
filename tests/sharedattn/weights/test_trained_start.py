"""What becomes of a trained model's head, and by what the start is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from sharedattn.backbones import build, build_network, resolve
from sharedattn.data import DataConfig, open_data
from sharedattn.errors import InputError, StartChangedError
from sharedattn.placement import BackboneSpec, Envelope, NetworkSpec, Placement
from sharedattn.recipe import Recipe
from sharedattn.testing.tiny_backbones import tiny_backbone
from sharedattn.weights.head_fit import NewHead, fitted_head
from sharedattn.weights.pretrained import load_pretrained, load_trained, weights_digest
from sharedattn.weights.published import published
from sharedattn.weights.trained_start import TrainedStart, neutral

TWO = tiny_backbone("vit")
SEVEN = replace(TWO, num_classes=7)
NAME = "deit_tiny_patch16_224"
NUMBERS = {"embed_dim": 12, "depth": 3, "num_heads": 3}


@pytest.fixture
def data(few_pairs: None):
    return open_data(DataConfig(name="digit-pairs", image_size=16, in_chans=1))


def written(path: Path, backbone: BackboneSpec, *, without: tuple[str, ...] = ()) -> str:
    torch.manual_seed(5)
    state = build(published(backbone)).state_dict()
    save_file({name: w for name, w in state.items() if name not in without}, path)
    return str(path)


def test_a_head_of_as_many_classes_is_kept_under_the_digest_of_before(tmp_path, data) -> None:
    path = written(tmp_path / "two.safetensors", TWO)
    digest = weights_digest(load_pretrained(path, TWO))
    for choice in ("auto", "keep"):
        start = TrainedStart.of(path, TWO, data, choice)
        assert (start.head, start.sha256, start.text) == (None, digest, "its head is kept")
    replaced = TrainedStart.of(path, TWO, data, "replace")
    assert replaced.head == NewHead(trained_classes=2, num_classes=2, num_images=448)
    assert replaced.sha256 != digest
    assert replaced == TrainedStart.of(path, TWO, data, "replace")


def test_a_head_of_other_classes_is_replaced_or_refused(tmp_path, data) -> None:
    path = written(tmp_path / "seven.safetensors", SEVEN)
    start = TrainedStart.of(path, TWO, data)
    assert start.text == (
        "the head of 7 classes is replaced by one of 2, fitted to 448 training images"
    )
    assert start.to_json() == {
        "source": path,
        "head": {"trained_classes": 7, "num_classes": 2, "num_images": 448, "ridge": 0.01},
    }
    with pytest.raises(
        InputError,
        match=r"--head keep keeps the head of .*seven.*, which has 7 classes, but digit-pairs has "
        r"2; leave --head out to replace it",
    ):
        TrainedStart.of(path, TWO, data, "keep")
    network = build_network(TWO, Envelope.of(Placement.parse("V3")))
    start.load_into(network, data, seed=3)
    trained = build(published(SEVEN))
    trained.load_state_dict(load_pretrained(path, SEVEN))
    weight, bias = fitted_head(trained, "head", data, seed=3)
    loaded = network.state_dict()
    assert torch.equal(loaded["head.weight"], weight)
    assert torch.equal(loaded["head.bias"], bias)
    assert torch.equal(loaded["blocks.0.mlp.fc1.weight"], trained.blocks[0].mlp.fc1.weight)


def test_weights_without_a_head_get_one(tmp_path, data) -> None:
    of_head = ("head.weight", "head.bias")
    path = written(tmp_path / "bare.safetensors", SEVEN, without=of_head)
    start = TrainedStart.of(path, TWO, data)
    assert (
        start.text == "there is no head; one of 2 classes is added, fitted to 448 training images"
    )
    with pytest.raises(InputError, match="--head keep keeps the head of .* which has 0 classes"):
        TrainedStart.of(path, TWO, data, "keep")
    half = written(tmp_path / "half.safetensors", TWO, without=of_head[1:])
    with pytest.raises(InputError, match=r"missing head\.bias"):
        TrainedStart.of(half, TWO, data)


def test_other_weights_than_those_looked_at_and_other_shapes(tmp_path, data) -> None:
    path = written(tmp_path / "seven.safetensors", SEVEN)
    start = TrainedStart.of(path, TWO, data)
    network = build_network(TWO, Envelope.of(Placement.parse("V3")))
    written(Path(path), replace(SEVEN, num_classes=5))
    with pytest.raises(StartChangedError, match="holds other weights than"):
        start.load_into(network, data, seed=3)
    Path(path).rename(tmp_path / "elsewhere.safetensors")
    with pytest.raises(StartChangedError, match="cannot be read any more: "):
        start.load_into(network, data, seed=3)
    deeper = BackboneSpec.parse(str(SEVEN).replace("depth=3", "depth=2"))
    written(Path(path), deeper)
    with pytest.raises(InputError, match="it is a model of another depth"):
        TrainedStart.of(path, TWO, data)
    written(Path(path), replace(tiny_backbone("deepvit"), num_classes=7))
    with pytest.raises(InputError, match="name a backbone of that"):
        TrainedStart.of(path, TWO, data)


def test_a_head_that_is_no_linear_map_is_kept_or_refused(tmp_path, data, monkeypatch) -> None:
    for module in ("pretrained", "trained_start"):
        monkeypatch.setattr(f"sharedattn.weights.{module}.head_name", lambda backbone: None)
    two = written(tmp_path / "two.safetensors", TWO)
    assert TrainedStart.of(two, TWO, data).head is None
    with pytest.raises(InputError, match="--head replace cannot fit the head of vit, which is no"):
        TrainedStart.of(two, TWO, data, "replace")
    seven = written(tmp_path / "seven.safetensors", SEVEN)
    with pytest.raises(InputError, match="has 7 classes, but the network has 2; train the model"):
        TrainedStart.of(seven, TWO, data)


def test_classes_and_image_size_may_differ_at_once(tmp_path) -> None:
    path = written(tmp_path / "large.safetensors", replace(SEVEN, image_size=24))
    model = load_trained(path, TWO)
    assert (model.num_classes, model.backbone) == (7, SEVEN)
    positions = load_pretrained(path, SEVEN)["pos_embed"]
    assert torch.equal(model.state["pos_embed"], positions)


@pytest.mark.parametrize(("classes", "found"), [(7, 7), (0, 2)])
def test_timms_weights_of_other_classes_and_of_none(
    tmp_path, monkeypatch, classes: int, found: int
) -> None:
    torch.manual_seed(1)
    sizes = {"img_size": 16, "patch_size": 8, "in_chans": 1, **NUMBERS}
    model = timm.models.VisionTransformer(num_classes=classes, **sizes)
    torch.save(model.state_dict(), tmp_path / "timm.pth")
    config = replace(
        timm.models.get_pretrained_cfg(NAME),
        file=str(tmp_path / "timm.pth"),
        url=None,
        hf_hub_id=None,
        num_classes=classes,
        first_conv=None,
    )
    monkeypatch.setitem(timm.models._registry._model_pretrained_cfgs, NAME, config)
    backbone = BackboneSpec.parse(
        f"{NAME}(depth=3,embed_dim=12,in_chans=1,num_classes=2,num_heads=3,patch_size=8)@16"
    )
    trained = load_trained("timm", backbone)
    assert (trained.num_classes, trained.backbone.num_classes) == (classes, found)
    assert trained.state["head.weight"].shape == (found, 12)
    assert torch.equal(trained.state["blocks.2.mlp.fc1.weight"], model.blocks[2].mlp.fc1.weight)


def test_a_placement_starts_as_the_model_with_its_new_branches_fitted(tmp_path, data) -> None:
    path = written(tmp_path / "seven.safetensors", SEVEN)
    start = TrainedStart.of(path, neutral(TWO), data)
    recipe = Recipe(epochs=1, batch_size=16)
    [whole, gated, external] = (
        start.network(
            resolve(NetworkSpec(neutral(TWO), Placement.parse(text))), recipe, data, seed=3
        ).eval()
        for text in ("V3", "V1L2/dia1", "V2E1/s5")
    )
    images, _ = next(
        iter(data.eval_batches("validation", batch_size=13, device=torch.device("cpu")))
    )
    with torch.no_grad():
        logits = whole(images)
        apart = {
            name: float((net(images) - logits).norm())
            for name, net in (("gated", gated), ("external", external))
        }
    assert 0 < apart["external"] < float(logits.norm())
    assert apart["gated"] > 0
    torch.manual_seed(11)
    again = start.network(
        resolve(NetworkSpec(neutral(TWO), Placement.parse("V2E1/s5"))), recipe, data, seed=3
    )
    for name, weight in external.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight)


def test_the_teacher_is_the_model_itself_with_the_head_that_it_starts_with(tmp_path, data) -> None:
    images = torch.randn(5, 1, 16, 16, generator=torch.Generator().manual_seed(7))
    two = written(tmp_path / "two.safetensors", TWO)
    teacher = TrainedStart.of(two, TWO, data).teacher(data, seed=3).eval()
    own = build(published(TWO))
    own.load_state_dict(load_pretrained(two, TWO))
    torch.testing.assert_close(teacher(images), own.eval()(images))
    seven = written(tmp_path / "seven.safetensors", SEVEN)
    start = TrainedStart.of(seven, TWO, data)
    network = start.network(
        resolve(NetworkSpec(TWO, Placement.parse("V3"))),
        Recipe(epochs=1),
        data,
        seed=3,
    )
    taught = start.teacher(data, seed=3).eval()(images)
    assert taught.shape == (5, 2)
    torch.testing.assert_close(taught, network.eval()(images))
