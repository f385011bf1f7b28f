"""Each proxy against its formula written in another way, on tiny networks of every family."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import zero_cost_proxies as proxies
from torch import Tensor, nn
from torch.nn import functional as F
from zero_cost_proxies import PROXIES, proxy_values

from sharedattn.backbones import build
from sharedattn.data import DataConfig, open_data
from sharedattn.networks.measures import row_entropy
from sharedattn.networks.network import Network
from sharedattn.placement import NetworkSpec, Placement
from sharedattn.testing.placements import random_placements
from sharedattn.testing.tiny_backbones import TINY, tiny_backbone

DATA = open_data(DataConfig(name="digit-pairs"))
SPEC = NetworkSpec(tiny_backbone("vit"), Placement.parse("V,L/cb,E/s3/d0"))


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    [(images, labels)] = DATA.eval_batches(
        "validation", batch_size=7, device=torch.device("cpu"), at_most=7
    )
    return images, labels


@pytest.fixture
def network() -> Network:
    return build(SPEC).eval()


def test_proxies_of_the_loss(network: Network, batch: tuple[Tensor, Tensor]) -> None:
    images, labels = batch
    other = copy.deepcopy(network)
    F.cross_entropy(other(images), labels).backward()
    gradients = [(p, p.grad) for p in other.parameters() if p.grad is not None]
    norms = sum(gradient.square().sum().sqrt().item() for _, gradient in gradients)
    assert proxies.grad_norm(network, images, labels) == pytest.approx(norms, rel=1e-5)
    salient = sum((p * gradient).abs().sum().item() for p, gradient in gradients if p.ndim > 1)
    assert proxies.snip(network, images, labels) == pytest.approx(salient, rel=1e-5)
    assert all(p.grad is None for p in network.parameters())


def test_synflow_of_a_chain_is_its_flow_times_its_length(
    network: Network, batch: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    # For a product of k maps, linear in each, each has the whole product as its sum of w dR/dw.
    chain = nn.Sequential(*(nn.Linear(3, 3, bias=False) for _ in range(5)))
    chain.insert(2, nn.LayerNorm(3, elementwise_affine=False))
    x = torch.ones(1, 3, dtype=torch.float64)
    for layer in chain:
        x = x if isinstance(layer, nn.LayerNorm) else F.linear(x, layer.weight.double().abs())
    found = proxies.synflow(chain, torch.ones(7, 3), batch[1])
    assert found == pytest.approx(5 * x.sum().item())
    # In a network it changes with the weights, although norms would fix the tokens.
    before = proxies.synflow(network, *batch)
    with torch.no_grad():
        network.block(0, 0).mlp.fc1.weight.mul_(2)
    assert proxies.synflow(network, *batch) > before > 0


def test_dss_weighs_attention_by_nuclear_norms_and_mlps_by_saliency(
    network: Network, batch: tuple[Tensor, Tensor]
) -> None:
    positive = copy.deepcopy(network).double()
    for block in (positive.block(0, index) for index in range(3)):
        block.norm1, block.norm2 = nn.Identity(), nn.Identity()
    positive.norm = positive.fc_norm = nn.Identity()
    for parameter in positive.parameters():
        parameter.data.abs_()
    positive(torch.ones(1, 1, 16, 16, dtype=torch.float64)).sum().backward()
    expected, attentions = 0.0, []
    for index in range(3):
        for name, p in positive.block(0, index).named_parameters():
            if p.ndim < 2 or p.grad is None:
                continue
            if name.startswith("mlp"):
                expected += (p * p.grad).abs().sum().item()
            elif not name.startswith("norm"):
                attentions.append(name)
                singular = [torch.linalg.svdvals(x).sum().item() for x in (p.detach(), p.grad)]
                expected += singular[0] * singular[1]
    assert proxies.dss(network, *batch) == pytest.approx(expected, rel=1e-6)
    assert {"attn.qkv.weight", "less.psi", "external.memory_key"} <= set(attentions)


def test_naswot_of_counted_units(network: Network, batch: tuple[Tensor, Tensor]) -> None:
    images, labels = batch
    hidden: list[Tensor] = []
    for index in range(3):
        network.block(0, index).mlp.fc1.register_forward_hook(
            lambda _, __, output: hidden.append(output)
        )
    found = proxies.naswot(network, images, labels)
    assert len(hidden) == 3
    on = torch.cat([h.flatten(1) > 0 for h in hidden], dim=1)
    alike = [[(one == other).sum().item() for other in on] for one in on]
    expected = torch.tensor(alike, dtype=torch.float64).logdet().item()
    assert found == pytest.approx(expected, rel=1e-9)
    # Two equal images switch units equally, so K has two equal rows.
    assert math.isnan(proxies.naswot(network, images[[0, 0]], labels[:2]))
    assert len(network.block(0, 0).mlp.fc1._forward_hooks) == 1


def test_entropy_is_summed_over_layers_with_attention(
    batch: tuple[Tensor, Tensor],
) -> None:
    network = build(NetworkSpec(SPEC.backbone, Placement.parse("V1N1V1"))).eval()
    maps = network.run(batch[0], collect={"attention"}).attention
    assert maps is not None and maps[1] is None
    expected = sum(row_entropy(m.unsqueeze(1)).mean().item() for m in maps if m is not None)
    assert proxies.attention_entropy(network, *batch) == pytest.approx(expected)
    assert 0 < expected < 2
    without = build(NetworkSpec(SPEC.backbone, Placement.parse("N2"))).eval()
    assert proxies.attention_entropy(without, *batch) == 0.0


# The proxies read the switches of MLPs, which blocks of convolutions do not have, and logits.
CONVOLUTIONAL = ("resnet", "resnet_cifar", "unet2d")


@pytest.mark.parametrize("family", [name for name in TINY if name not in CONVOLUTIONAL])
def test_every_transformer_has_every_proxy(family: str, batch: tuple[Tensor, Tensor]) -> None:
    backbone = tiny_backbone(family)
    for placement in random_placements(backbone, 17, 3):
        spec = NetworkSpec(backbone, placement)
        values = proxy_values(spec, *batch, seed=5)
        assert list(values) == list(PROXIES)
        # With two tokens at its size, all images switch units equally, and K is singular.
        undefined = {"naswot"} if family == "t2t_ea" else set()
        for name, value in values.items():
            assert math.isfinite(value) or name in undefined, (name, str(placement))
    state = torch.random.get_rng_state()
    again = proxy_values(spec, *batch, seed=5)
    assert str(again) == str(values)  # `str`, which equates NaN
    assert torch.equal(torch.random.get_rng_state(), state)
    other = proxy_values(spec, *batch, seed=7)
    assert all(other[name] != values[name] for name in ("grad_norm", "snip", "synflow", "dss"))


def test_what_overflows_has_no_value(network: Network, batch: tuple[Tensor, Tensor]) -> None:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(1e30)
    assert math.isnan(proxies.synflow(network, *batch))
