"""Batch norms in shared units: whose statistics they count and use."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from contract import random_images, randomised
from reference import with_statistics
from safetensors.torch import load_file, save_file
from torch import nn

from sharedattn.backbones import build, build_network
from sharedattn.mechanisms.site_norm import SiteNorm, site_of
from sharedattn.networks.network import Network
from sharedattn.placement import BackboneSpec, Envelope, MechanismOptions, NetworkSpec, Placement
from sharedattn.weights.extract import extract

B, C, Y, X = 5, 3, 2, 7
BACKBONE = "resnet_cifar(cbam_reduction=5,{}depths=3-2,in_chans=1,num_classes=3,widths=14-22)@8"


def network_of(placement: str, option: str = "") -> Network:
    torch.manual_seed(0)
    network = build(NetworkSpec.parse(f"{BACKBONE.format(option)}: {placement}"))
    for name, parameter in network.named_parameters():
        if "_cells." in name:
            nn.init.normal_(parameter)  # a new SRM unit has weights of zero
    return network


def test_each_layer_counts_its_own_inputs() -> None:
    """Two layers, by torch's own batch norm of each with the same scale and shift."""
    options = MechanismOptions()
    norm = SiteNorm(C, options)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    sites, own = [site_of(C, options) for _ in range(2)], [nn.BatchNorm2d(C) for _ in range(2)]
    for module in own:
        module.load_state_dict(norm.state_dict(), strict=False)
    for step in range(3):
        for i, scale in enumerate((1.0, 9.0)):
            x = torch.randn(B, C, Y, X) * scale + step
            torch.testing.assert_close(norm(x, sites[i]), own[i](x))
    for module, site in zip(own, sites, strict=True):
        site.eval()
        torch.testing.assert_close(site.running_var, module.running_var)
        torch.testing.assert_close(norm(x, site), module.eval()(x))
    assert own[1].running_var.min() > 9 * own[0].running_var.max()


def test_shared_statistics_are_of_all_layers() -> None:
    options = MechanismOptions(bn="shared")
    norm, own = SiteNorm(C, options), nn.BatchNorm2d(C)
    assert site_of(C, options) is None
    for scale in (1.0, 9.0, 1.0):
        x = torch.randn(B, C, Y, X) * scale
        torch.testing.assert_close(norm(x, None), own(x))
    torch.testing.assert_close(norm.eval()(x, None), own.eval()(x))


@pytest.mark.parametrize("code", ["srm", "cbam"])
def test_a_step_of_training_updates_each_site_once_or_the_shared_norm_as_often_as_called(
    code: str,
) -> None:
    counts = {}
    for option in ("", "bn=shared,"):
        network = network_of(f"V3/{code}1 | V2", option).train()
        network(torch.randn(B, 1, 8, 8))
        counts[option] = {
            name: int(buffer)
            for name, buffer in network.named_buffers()
            if name.endswith("num_batches_tracked") and ("_cells." in name or "_sites." in name)
        }
    site = f"layer1.{{}}.gate_sites.{code}0.num_batches_tracked"
    assert counts[""] == {site.format(i): 1 for i in range(3)}
    norm = {"srm": "norm", "cbam": "spatial.conv.bn"}[code]
    assert counts["bn=shared,"] == {f"{code}_cells.0.0.{norm}.statistics.num_batches_tracked": 3}


@pytest.mark.parametrize("code", ["srm", "cbam"])
def test_units_of_one_block_are_alike_with_either_option(code: str) -> None:
    own, shared = (network_of(f"V3/{code} | V2", option) for option in ("", "bn=shared,"))
    x = torch.randn(B, 1, 8, 8)
    for network in (own.train(), shared.train()):
        for _ in range(2):
            network(x)
    assert torch.equal(own.eval()(x), shared.eval()(x))
    differ = [network_of(f"V3/{code}1 | V2", option).train() for option in ("", "bn=shared,")]
    for network in differ:
        network(x)
    assert not torch.equal(differ[0].eval()(x), differ[1].eval()(x))


@pytest.mark.parametrize("option", ["", "bn=shared,"])
@pytest.mark.parametrize("placement", ["V3/srm1 | V2/cbam1", "V3/cbam2 | V2/srm"])
def test_files_have_shared_units_once_and_statistics_by_layer(
    placement: str, option: str, tmp_path: Path
) -> None:
    network = with_statistics(randomised(network_of(placement, option))).float()
    weights = network.state_dict()
    assert len({w.data_ptr() for w in weights.values() if w.numel()}) == len(weights)
    save_file(weights, tmp_path / "weights.safetensors")
    other = network_of(placement, option).eval()
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    x = torch.randn(B, 1, 8, 8)
    assert torch.equal(other(x), network(x))


@pytest.mark.parametrize("option", ["", "bn=shared,"])
def test_statistics_go_with_the_placement_that_is_extracted(option: str) -> None:
    backbone = BackboneSpec.parse(BACKBONE.format(option))
    texts = ("V3 | V2", "V3/srm1 | V2/cbam", "V3/srm2 | V2/cbam1", "V1/cbam1 | V,V/m0")
    placements = [Placement.parse(text) for text in texts]
    shared = with_statistics(randomised(build_network(backbone, Envelope.of(*placements))))
    x = random_images(backbone)
    with torch.no_grad():
        for placement in placements:
            alone = extract(shared, placement)
            torch.testing.assert_close(alone(x), shared(x, placement))
