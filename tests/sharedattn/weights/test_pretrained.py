"""Starting from a trained model: equal logits, neutral new parts, and every refusal."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import contract
import pytest
import timm
import torch
import yaml
from safetensors.torch import save_file
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sharedattn.backbones import build, build_network
from sharedattn.errors import InputError
from sharedattn.placement import BackboneSpec, Envelope, NetworkSpec, Placement
from sharedattn.weights.interpolate import at_image_size
from sharedattn.weights.pretrained import load_pretrained, pretrained_network, start_from

NUMBERS = {"embed_dim": 22, "depth": 3, "num_heads": 2, "patch_size": 5, "mlp_ratio": 1.5}
BACKBONE = BackboneSpec.parse(
    "vit(depth=3,dia_start=one,embed_dim=22,mlp_ratio=1.5,num_classes=7,num_heads=2,patch_size=5)@15"
)
ALL = [
    Placement.parse(text)
    for text in ("V3", "V1L2/dia2", "V1L1E1/s11/cb", "E1V1L1/keys/s5/dia1", "V,N,L/lowrank2")
]
SPLIT = BackboneSpec.parse(
    "swin(depths=2-2,embed_dim=22,num_classes=7,num_heads=2-2,patch_size=2,window_size=3-3)@12"
)


def trained(**changes: Any) -> VisionTransformer:
    """timm's model of `BACKBONE`, with weights that make every part matter."""
    model = VisionTransformer(**{**NUMBERS, "img_size": 15, "num_classes": 7, **changes}).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def images(size: int = 15) -> Tensor:
    return torch.randn(2, 3, size, size)


def written(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


@pytest.fixture
def model() -> VisionTransformer:
    return trained()


@pytest.mark.parametrize("form", ["plain", "model", "state_dict", "wrapped", "safetensors"])
def test_every_form_of_a_file(form: str, model: VisionTransformer, tmp_path: Path) -> None:
    state = model.state_dict()
    path = tmp_path / f"weights.{form if form == 'safetensors' else 'pth'}"
    if form == "safetensors":
        save_file(state, path)
    elif form == "wrapped":
        written(path, {"state_dict": {f"module.{name}": w for name, w in state.items()}})
    else:
        written(path, state if form == "plain" else {form: state, "epoch": 7})
    read = load_pretrained(path, BACKBONE)
    assert read.keys() == state.keys()
    assert all(torch.equal(read[name], weight) for name, weight in state.items())


def test_the_all_vanilla_placement_of_a_supernet_has_the_models_logits(
    model: VisionTransformer, tmp_path: Path
) -> None:
    path = written(tmp_path / "weights.pth", model.state_dict())
    network = pretrained_network(BACKBONE, Envelope.of(*ALL), path).eval()
    x = images()
    with torch.no_grad():
        logits = network(x, ALL[0])
        assert torch.equal(logits, model(x))
        # DIA units start as gates of 1.
        assert torch.equal(
            network(x, Placement.parse("V1L2/dia2")), network(x, Placement.parse("V1L2"))
        )
        for placement in ALL[1:]:
            assert network(x, placement).isfinite().all()


@pytest.mark.parametrize("depths", [(2, 2), (1, 2)])
def test_windows_and_stages_with_layers_of_one_kind(depths: tuple[int, int]) -> None:
    model = SwinTransformer(
        img_size=12, patch_size=2, embed_dim=22, depths=(2, 2), num_heads=(2, 2), window_size=3,
        num_classes=7,
    ).eval()  # fmt: skip
    x = images(12)
    whole = build(NetworkSpec(SPLIT, Placement.all_vanilla(depths))).eval()
    start_from(whole, model.state_dict())
    if depths == (2, 2):
        torch.testing.assert_close(whole(x), model(x), rtol=1e-6, atol=1e-6)
    else:
        assert torch.equal(
            whole.layers[1].blocks[1].norm2.bias, model.layers[1].blocks[1].norm2.bias
        )


def test_a_layer_of_less_attention_alone_takes_the_value_rows(model: VisionTransformer) -> None:
    alone = build(NetworkSpec(BACKBONE, Placement.parse("V1L2"))).eval()
    shared = build_network(BACKBONE, Envelope.of(*ALL)).eval()
    for network in (alone, shared):
        start_from(network, model.state_dict())
    assert torch.equal(alone.blocks[1].attn.v.weight, model.blocks[1].attn.qkv.weight[44:])
    x = images()
    torch.testing.assert_close(alone(x), shared(x, Placement.parse("V1L2")))


def test_what_the_model_does_not_have_keeps_its_values(model: VisionTransformer) -> None:
    network = build_network(BACKBONE, Envelope.of(*ALL)).double()
    before = copy.deepcopy(network.state_dict())
    start_from(network, model.state_dict())
    of_model = model.state_dict()
    for name, weight in network.state_dict().items():
        assert torch.equal(weight, of_model[name].double() if name in of_model else before[name])
    assert {name for name in before if "external" in name or "dia_cells" in name}


@pytest.mark.parametrize("size", [25, 10])
def test_another_image_size_is_resampled(
    size: int, model: VisionTransformer, tmp_path: Path
) -> None:
    path = written(tmp_path / "weights.pth", model.state_dict())
    other = replace(BACKBONE, image_size=size)
    whole = build(NetworkSpec(BACKBONE, ALL[0])).eval()
    whole.load_state_dict(model.state_dict())
    network = pretrained_network(other, Envelope.of(*ALL), path).eval()
    x = images(size)
    assert torch.equal(network(x, ALL[0]), at_image_size(whole, size)(x))


def exported(
    folder: Path, spec: NetworkSpec, changes: Mapping[str, object] = MappingProxyType({})
) -> Path:
    """A folder with what an export says of its network, and random weights."""
    network = contract.randomised(build(spec)).float()
    save_file(network.state_dict(), folder / "model.safetensors")
    sha256 = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    document = {"format": 1, "spec": spec.to_json(), "weights_sha256": sha256, **changes}
    (folder / "config.yaml").write_text(yaml.safe_dump(document))
    return folder


def test_an_exported_folder_at_its_size_and_at_another(tmp_path: Path) -> None:
    plain = BackboneSpec.parse(str(BACKBONE).replace("dia_start=one,", ""))
    folder = exported(tmp_path, NetworkSpec(plain, ALL[0]))
    state = load_pretrained(folder, BACKBONE)
    network = build(NetworkSpec(plain, ALL[0])).eval()
    network.load_state_dict(state)
    larger = load_pretrained(str(folder), replace(BACKBONE, image_size=25))
    expected = at_image_size(network, 25).state_dict()
    assert all(torch.equal(larger[name], weight) for name, weight in expected.items())


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        ("V2L1", {}, "is the network 'V2L1', but .* all-vanilla network 'V3'"),
        ("V2", {}, "is the network 'V2', but .* all-vanilla network 'V3'"),
        ("V3", {"weights_sha256": "0"}, "was changed.* says 0"),
        ("V3", {"spec": {"format": 7}}, "this version reads 1 and 2"),
        ("V3", {"spec": 7}, "this version reads 1 and 2"),
    ],
)
def test_exports_that_are_no_start(
    text: str, changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    plain = BackboneSpec.parse(str(BACKBONE).replace("dia_start=one,", ""))
    folder = exported(tmp_path, NetworkSpec(plain, Placement.parse(text)), changes)
    with pytest.raises(InputError, match=message):
        load_pretrained(folder, BACKBONE)


def test_an_export_of_another_backbone_and_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read as an export .FileNotFoundError"):
        load_pretrained(tmp_path, BACKBONE)
    folder = exported(tmp_path, NetworkSpec(replace(BACKBONE, num_classes=5), ALL[0]))
    with pytest.raises(
        InputError, match="has the backbone vit.*num_classes=5.* network has vit.*classes=7"
    ):
        load_pretrained(folder, BACKBONE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 11}, "has 11 classes, but the network has 7; train"),
        (
            {"embed_dim": 26},
            r"cls_token is \(1, 1, 26\) there and \(1, 1, 22\) in the network; pos_embed is "
            r"\(1, 10, 26\) .*tensors differ\); name the backbone",
        ),
        ({"in_chans": 1}, r"patch_embed.proj.weight is \(22, 1, 5, 5\) there and .*\(1 tensors"),
        ({"depth": 5}, r"has 44 of the .* unexpected blocks.3.norm1.weight, .* more; .*depth"),
        ({"depth": 2}, r"missing blocks.2.norm1.weight, blocks.2.* more; .* another depth"),
        ({"num_classes": 11, "img_size": 25}, r"pos_embed is .*; head.weight is \(11, 22\) there"),
    ],
)
def test_weights_of_another_shape(changes: dict[str, int], message: str, tmp_path: Path) -> None:
    path = written(tmp_path / "weights.pth", trained(**changes).state_dict())
    with pytest.raises(InputError, match=message):
        load_pretrained(path, BACKBONE)


def test_weights_of_another_family(model: VisionTransformer, tmp_path: Path) -> None:
    path = written(tmp_path / "weights.pth", model.state_dict())
    with pytest.raises(InputError, match=r"has \d of the .*it is a model of another family, vit;"):
        load_pretrained(path, SPLIT)
    network = build(NetworkSpec(SPLIT, Placement.all_vanilla((2, 2))))
    with pytest.raises(InputError, match="the state dict has .* of another family"):
        start_from(network, model.state_dict())


class Executed:
    """What would be called when a file of it is read with trust."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.getenv, ("executed",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Executed(), "holds objects of os.getenv .* nothing in it was executed"),
        (torch.ones(3), "holds 'Tensor' and no state dict"),
        ({"lr": 0.1, "epoch": 7}, "holds 'lr', 'epoch' and no .* save the model's state_dict"),
        ({}, "holds nothing"),
    ],
)
def test_files_without_a_state_dict(
    content: object, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "weights.pth", content)
    with pytest.raises(InputError, match=message):
        load_pretrained(path, BACKBONE)
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_files_that_cannot_be_read(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a file, an exported folder or .timm., but there is no"):
        load_pretrained(tmp_path / name, BACKBONE)
    (tmp_path / name).write_bytes(b"not weights at all")
    with pytest.raises(InputError, match="cannot be read as safetensors or as a torch file"):
        load_pretrained(tmp_path / name, BACKBONE)


NAME = "deit_tiny_patch16_224"
SMALL = BackboneSpec.parse(
    f"{NAME}(depth=3,embed_dim=22,mlp_ratio=1.5,num_classes=7,num_heads=2,patch_size=5)@15"
)


@pytest.fixture
def of_timm(monkeypatch: pytest.MonkeyPatch, model: VisionTransformer, tmp_path: Path) -> Path:
    """timm's configuration of `NAME` says that its weights are a file, of 7 classes."""
    path = written(tmp_path / "of_timm.pth", model.state_dict())
    config = timm.models.get_pretrained_cfg(NAME)
    local = replace(config, file=str(path), url=None, hf_hub_id=None, num_classes=7)
    monkeypatch.setitem(timm.models._registry._model_pretrained_cfgs, NAME, local)
    return path


def test_timms_own_weights_by_its_own_loader(of_timm: Path, model: VisionTransformer) -> None:
    network = pretrained_network(SMALL, Envelope.of(*ALL), "timm").eval()
    x = images()
    assert torch.equal(network(x, ALL[0]), model(x))


def test_timms_weights_at_another_size_and_of_other_channels(of_timm: Path) -> None:
    other = replace(SMALL, image_size=25, in_chans=1)
    expected = timm.create_model(
        NAME, pretrained=True, **NUMBERS, img_size=25, in_chans=1, num_classes=7
    )
    state = load_pretrained("timm", other)
    assert state.keys() == expected.state_dict().keys()
    for name, weight in expected.state_dict().items():
        assert torch.equal(state[name], weight), name
    # A file of the same weights is resampled alike.
    positions = load_pretrained(of_timm, replace(SMALL, image_size=25))["pos_embed"]
    assert torch.equal(positions, state["pos_embed"])


def test_timms_weights_that_do_not_fit(of_timm: Path) -> None:
    with pytest.raises(
        InputError, match="have 7 classes, but the network has 1000; write num_classes=7"
    ):
        load_pretrained("timm", replace(SMALL, num_classes=1000))
    deeper = BackboneSpec.parse(str(SMALL).replace("depth=3", "depth=5"))
    with pytest.raises(InputError, match=r"cannot be loaded: Error.*Missing key.*blocks.3"):
        load_pretrained("timm", deeper)
    of_timm.unlink()
    with pytest.raises(InputError, match="cannot be loaded.*name a file in place of timm"):
        load_pretrained("timm", SMALL)


def test_a_backbone_of_which_timm_has_no_weights() -> None:
    for text in ("vit", "pvt_tiny", "vit_small_patch16_36x1_224"):
        with pytest.raises(
            InputError, match=f"timm has no weights of '{text}'; name a file in place"
        ):
            load_pretrained("timm", BackboneSpec.parse(text))
