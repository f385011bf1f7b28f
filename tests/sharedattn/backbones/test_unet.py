"""UNets against diffusers' own, and the contract of families."""

from __future__ import annotations

import re
import sys
from copy import deepcopy
from pathlib import Path

import contract
import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from sharedattn.backbones import build, build_network, canonical, describe, resolve
from sharedattn.backbones.unet import UNet, UNetNetwork, to_diffusers
from sharedattn.costs.model import CostModel, convention_of
from sharedattn.errors import InputError
from sharedattn.networks.state import Recorder
from sharedattn.placement import BackboneSpec, Envelope, LayerChoice, NetworkSpec, Placement
from sharedattn.weights.pretrained import load_pretrained

KEYS = "head_dim=3,in_chans=2,norm_groups=3,widths=6-15"
TINY = f"unet2d({KEYS})@10x14"
VANILLA = "V2 | V2 | V1 | V3 | V3"
FORMS = {
    "default": "",
    "DDPM": "downsample_padding=0,flip_sin_to_cos=false,freq_shift=1,norm_eps=1e-6,",
    "one head": "head_dim=0,",
}


def unet_of(text: str) -> UNet2DModel:
    """diffusers' network of a backbone, with random weights, in eval mode."""
    backbone = BackboneSpec.parse(text)
    arguments = dict(backbone.keywords) | {"widths": (6, 15)}
    model = UNet2DModel(**UNet(in_chans=backbone.in_chans, **arguments).config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


TIMESTEPS = torch.tensor([0, 17, 999])


def noisy(backbone: BackboneSpec) -> tuple[Tensor, Tensor]:
    """Random images in float64 and their timesteps."""
    return contract.random_images(backbone), TIMESTEPS


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_noise_is_that_of_diffusers(form: str, fused: bool) -> None:
    keys = KEYS.replace("head_dim=3,", "") if "head_dim" in FORMS[form] else KEYS
    text = f"unet2d({FORMS[form]}{keys})@10x14"
    model = unet_of(text)
    network = build(NetworkSpec.parse(f"{text}: {VANILLA}"), fused=fused).eval()
    assert network.state_dict().keys() == model.state_dict().keys()
    network.load_state_dict(model.state_dict())
    images, timesteps = noisy(network.backbone)
    with torch.no_grad():
        expected = model(images.float(), timesteps).sample
        found = network(images.float(), timesteps)
        # 1.04e-6 with AVX2, below 1e-6 with AVX-512: sums have another order. Below, exactly.
        assert (found - expected).abs().max() <= 1.5e-6 * expected.abs().max()
        model.load_state_dict(network.state_dict())  # and back
        exact = network.double()(images, timesteps)
        torch.testing.assert_close(exact, model.double()(images, timesteps).sample)


def test_no_attention_is_that_of_blocks_without() -> None:
    """A resolution without attention is diffusers' plain block, with the same weights."""
    text = f"unet2d({KEYS})@10x14"
    config = UNet(in_chans=2, widths=(6, 15), head_dim=3, norm_groups=3).config
    plain = {
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    }
    model = UNet2DModel(**config | plain).eval()
    network = build(NetworkSpec.parse(f"{text}: N2 | V2 | V1 | V3 | N3")).eval()
    network.load_state_dict(model.state_dict())
    images, timesteps = noisy(network.backbone)
    with torch.no_grad():
        expected = model(images.float(), timesteps).sample
        torch.testing.assert_close(network(images.float(), timesteps), expected)


def test_ddpm_has_the_published_number_of_params() -> None:
    backbone = BackboneSpec.parse("ddpm_cifar10")
    published = Placement.parse("N2 | V2 | N2 | N2 | V1 | N3 | N3 | V3 | N3")
    # "35.7 million parameters" in the paper.
    assert CostModel(backbone).cost(published).params == 35746307
    assert describe(backbone).image_size == (32, 32)


def test_costs_by_hand() -> None:
    """One stage of each kind of 16 x 16 pixels, halved to 8 x 8; channels 16 and 32, T = 64."""
    cost = CostModel(BackboneSpec.parse("unet2d(in_chans=1)@16")).cost(
        Placement.parse("N2 | N2 | N1 | N3 | N3")
    )

    def conv(before: int, after: int, size: int = 3) -> int:
        return size * size * before * after

    def block(before: int, after: int, N: int) -> tuple[int, int]:
        shortcut = before != after
        weights = conv(before, after) + conv(after, after) + conv(before, after, 1) * shortcut
        params = weights + (2 + shortcut) * after + 2 * before + 2 * after + 65 * after
        return params, N * weights + 64 * after + 5 * N * (before + after)

    sizes = [
        [block(16, 16, 256)] * 2,
        [(conv(16, 16) + 16, 64 * conv(16, 16)), block(16, 32, 64), block(32, 32, 64)],
        [block(32, 32, 64)],
        [block(32, 32, 64), block(64, 32, 64), block(64, 32, 64), block(48, 32, 64)],
        [
            # Doubled, 32 x 16 x 16 elements, then a convolution.
            (conv(32, 32) + 32, 256 * conv(32, 32) + 32 * 256),
            block(48, 16, 256),
            block(32, 16, 256),
            block(32, 16, 256),
        ],
    ]
    expected = [tuple(map(sum, zip(*parts, strict=True))) for parts in sizes]
    assert [(stage.params, stage.macs) for stage in cost.stages] == expected
    ends_params = 9 * 16 + 16 + (16 * 64 + 64) + (64 * 64 + 64) + 2 * 16 + 9 * 16 + 1
    assert cost.params == sum(params for params, _ in expected) + ends_params
    assert "resized map is 1 (nearest)" in convention_of(BackboneSpec.parse("unet2d"))


@pytest.mark.parametrize("numbers", [range(5), pytest.param(range(5, 20), marks=pytest.mark.slow)])
def test_referees(numbers: range) -> None:
    contract.check_referees(f"unet2d(dia_reduction=2,{KEYS})@10x14", numbers)


def test_extraction() -> None:
    contract.check_extraction(TINY, 5)


def test_interleaved_runs() -> None:
    contract.check_interleaved(TINY)


def test_the_maps_of_the_encoder_are_taken_last_first() -> None:
    """Each layer of the decoder against the map that it takes, by zeroing its weights."""
    network = contract.randomised(build(NetworkSpec.parse(f"{TINY}: N2 | N2 | N1 | N3 | N3")))
    images, timesteps = noisy(network.backbone)
    with torch.no_grad():
        tokens, state = network.begin(images, timesteps)
        given = [tokens]
        assert network.only_placement is not None
        for stage, choices in enumerate(network.only_placement.stages):
            for index, choice in enumerate(choices):
                if stage in (1, 2) and not index:
                    tokens, state = network.enter(stage, tokens, state)
                    if stage == 1:
                        given.append(tokens)
                    layer = network.block(stage, index)
                    tokens, state = layer(tokens, state, choice, index, None, Recorder(()))
                else:
                    before = len(state.feature_maps)
                    tokens, state = network.layer(stage, index).run(tokens, state, choice)
                    if stage > 2:
                        assert len(state.feature_maps) == before - 1
                if stage < 2:
                    given.append(tokens)
                    assert all(map(torch.equal, state.feature_maps, given))
        assert len(given) == 6 and not state.feature_maps
        assert torch.equal(network.finish(tokens), network(images, timesteps))


def test_a_gate_scales_the_residual_branch_alone() -> None:
    """A unit whose gates are 1 changes nothing; gates of 1/4 equal a quarter of the branch."""
    text = f"unet2d(dia_start=one,{KEYS})@10x14: V2/dia1 | V2 | V1 | V3 | V3"
    gated = build(NetworkSpec.parse(text)).double().eval()
    plain = build(NetworkSpec.parse(f"{TINY}: {VANILLA}")).double().eval()
    plain.load_state_dict({n: w for n, w in gated.state_dict().items() if "dia" not in n})
    images, timesteps = noisy(plain.backbone)
    with torch.no_grad():
        torch.testing.assert_close(gated(images, timesteps), plain(images, timesteps))
        gates = gated.run(images, timesteps, collect={"gates"}).gates
        assert gates is not None and [g is None for g in gates] == [False] * 2 + [True] * 9
        gated.dia_cells[0]["0"].scale = 1.0  # h' = sigmoid(0) sigmoid(0)
        for index in range(2):
            conv = plain.block(0, index).conv2
            conv.weight.mul_(0.25)
            conv.bias.mul_(0.25)
        torch.testing.assert_close(gated(images, timesteps), plain(images, timesteps))


def test_less_attention_takes_the_scores_of_its_stage() -> None:
    """Plain reuse equals a layer with the queries and keys of the earlier, on what that read."""
    reuse = contract.randomised(
        build(NetworkSpec.parse(f"{TINY}: V1L1/reuse | N2 | V1 | N3 | N3")),
    )
    images, timesteps = noisy(reuse.backbone)
    run = reuse.run(images, timesteps, collect={"attention"})
    assert run.attention is not None
    first, second = run.attention[:2]
    assert first is not None and second is not None and first.shape == (3, 2, 140, 140)
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{TINY}: V1 | V2 | V1 | V3 | V3", "stage 1 of .* has 1 of its 2 layers"),
        (f"{TINY}: V1X1 | V2 | V1 | V3 | V3", "stage 1 of .* has 1 of its 2 layers"),
        (f"{TINY}: X1V1 | V2 | V1 | V3 | V3", "kind X .* leaves out more than attention"),
        (f"{TINY}: V2 | V2 | L1 | V3 | V3", "layer 1 of stage 3 .* has nothing to reuse"),
        (f"{TINY}: V2 | V2 | V2 | V3 | V3", "stage 3 .* has 2 layers, more than the 1"),
        (f"{TINY}: V2 | V2 | V1", "has 3 stages, but unet2d has 5"),
        (f"unet2d({KEYS})@11x14: {VANILLA}", "a side of 11 pixels, .* use 10 or 12"),
        ("unet2d(widths=16)@16: V1", "`widths` is of type str, but got 16"),
        ("unet2d(widths=16-20)@16: V1", "`head_dim`=8 does not divide all of .16, 20"),
        ("unet2d(downsample_padding=2)@16: V1", "`downsample_padding` is 2; it is 0 or 1"),
        ("unet2d(norm_groups=5)@16: V1", "divisible by num_groups"),
        ("unet2d(freq_shift=8)@16: V1", "`freq_shift` is 8, which leaves none of 8 frequencies"),
        ("unet2d(attention_residual=true)@16: V1", "whose grids divide"),
        ("unet2d(head=retinanet)@16: V1", "unet2d is to denoise and takes no other head"),
        ("unet2d(head=classify)@16: V1", "`head` is classify, but unet2d is to denoise"),
        ("deit_tiny_patch16_224(head=noise): V12", "is noise, which is part of unet2d"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve(NetworkSpec.parse(text))


def test_tasks() -> None:
    assert BackboneSpec.parse("unet2d", task="denoise") == BackboneSpec.parse("unet2d")
    assert str(BackboneSpec.parse("unet2d(head=noise)")) == "unet2d"
    assert BackboneSpec.from_json(BackboneSpec(name="unet2d").to_json()).head == "noise"
    with pytest.raises(InputError, match="the task is classify, but unet2d is to denoise"):
        BackboneSpec.parse("unet2d", task="classify")
    with pytest.raises(InputError, match="unet2d is to denoise and takes no other head"):
        describe(BackboneSpec.parse("unet2d", task="segment"))
    # The number of classes says nothing.
    assert canonical(BackboneSpec(name="unet2d", num_classes=7)).num_classes == 1


def test_what_a_call_refuses() -> None:
    network = build(NetworkSpec.parse(f"{TINY}: {VANILLA}"))
    images = torch.zeros(3, 2, 10, 14)
    with pytest.raises(InputError, match=re.escape("has shape (2,), but there are 3 images")):
        network(images, torch.zeros(2))
    classifier = build(
        NetworkSpec.parse("vit(depth=1,embed_dim=6,num_heads=1,patch_size=7)@7: V1")
    )
    with pytest.raises(InputError, match="vit does not denoise; leave it out"):
        classifier.begin(torch.zeros(1, 3, 7, 7), torch.zeros(1))
    with pytest.raises(InputError, match="no `reduction`"):
        network.features(images)
    with pytest.raises(InputError, match="no stochastic depth"):
        build_network(network.backbone, Envelope.of(Placement.parse(VANILLA)), drop_path_rate=0.1)
    with pytest.raises(InputError, match="a stage has 1 of its 2 layers"):
        build_network(network.backbone, Envelope.of(Placement.parse("V1 | V2 | V1 | V3 | V3")))


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers.models.unets.unet_2d", None)
    with pytest.raises(InputError, match=re.escape("install sharedattn[unet]")):
        UNet()


@pytest.mark.parametrize(
    "placement",
    [
        VANILLA,
        "N2 | V2 | N1 | N3 | V3",
        # Mixed in a stage, which diffusers cannot leave out.
        "V1N1 | N2 | V1 | N1V1N1 | V2N1",
    ],
)
def test_diffusers_loads_what_is_written(placement: str, tmp_path: Path) -> None:
    network = contract.randomised(build(NetworkSpec.parse(f"{TINY}: {placement}"))).float()
    assert isinstance(network, UNetNetwork)
    to_diffusers(network).save_pretrained(tmp_path)
    model = UNet2DModel.from_pretrained(tmp_path)
    assert model.config["sample_size"] == [10, 14]
    images, timesteps = noisy(network.backbone)
    with torch.no_grad():
        expected = network(images.float(), timesteps)
        found = model(images.float(), timesteps).sample
    assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()
    mixed = any(len({layer.kind for layer in stage}) > 1 for stage in _stages(network))
    num_params = sum(p.numel() for p in network.parameters())
    assert (model.num_parameters() > num_params) == mixed


def _stages(network: UNetNetwork) -> tuple[tuple[LayerChoice, ...], ...]:
    assert network.only_placement is not None
    return network.only_placement.stages


@pytest.mark.parametrize(
    ("placement", "what"),
    [
        ("V2 | V1E1/s3 | V1 | V3 | V3", "layer 2 of stage 2 is E/s3,"),
        ("V2 | V2 | V1 | V1L2 | V3", "layer 2 of stage 4 is L,"),
        ("V2 | V2 | V1 | V3 | V3/dia1", "layer 1 of stage 5 is V/d0,"),
        ("V2 | V2/cb1 | V1 | V3 | V3", "layer 2 of stage 2 is V/cb,"),
    ],
)
def test_what_has_no_form_in_diffusers(placement: str, what: str) -> None:
    network = build(NetworkSpec.parse(f"{TINY}: {placement}"))
    assert isinstance(network, UNetNetwork)
    with pytest.raises(InputError, match=f"{what} and diffusers has only V and N"):
        to_diffusers(network)


def test_a_file_of_diffusers_starts_a_training(tmp_path: Path) -> None:
    text = f"unet2d({KEYS})@10x14"
    model = unet_of(text)
    model.save_pretrained(tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    state = load_pretrained(path, BackboneSpec.parse(text))
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(weight, state[name]) for name, weight in model.state_dict().items())
    with pytest.raises(InputError, match="conv_in.weight is .6, 2, 3, 3. there"):
        load_pretrained(path, BackboneSpec.parse(text.replace("6-15", "9-15")))


def test_recomputing_gives_the_same_gradients() -> None:
    text = f"{TINY}: V1L1/dia1 | E1V1/s3 | V1 | V1N1L1/cb | V1E2/s3/dia2"
    network = contract.randomised(build(NetworkSpec.parse(text))).train()
    images, timesteps = noisy(network.backbone)
    gradients = []
    for network.grad_checkpointing in (False, True):
        network.zero_grad()
        (network(images, timesteps) ** 2).sum().backward()
        gradients.append([p.grad for p in network.parameters()])
    for kept, recomputed in zip(*gradients, strict=True):
        assert kept is not None and recomputed is not None and torch.equal(kept, recomputed)


def test_the_layers_of_a_copy_are_apart() -> None:
    """Attention stands beside the residual blocks that run it, in a copy too."""
    network = build(NetworkSpec.parse(f"{TINY}: {VANILLA}"))
    copied = deepcopy(network)
    for own in (network, copied):
        assert isinstance(own, UNetNetwork)
        assert own.block(0, 1).attention is own.down_blocks[0].get_submodule("attentions.1")
    images, timesteps = noisy(network.backbone)
    with torch.no_grad():
        before = network(images.float(), timesteps)
        for parameter in copied.parameters():
            parameter.zero_()
        assert not copied(images.float(), timesteps).any()
        assert torch.equal(network(images.float(), timesteps), before)
