"""Extraction: a placement's own weights give the shared network's logits."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from sharedattn.backbones import build_network
from sharedattn.errors import InputError
from sharedattn.networks.network import Network
from sharedattn.placement import BackboneSpec, Envelope, MechanismOptions, Placement
from sharedattn.weights.extract import extract

RandomPlacement = Callable[[random.Random, int], Placement]


def randomised(network: Network) -> Network:
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network.eval()


@pytest.mark.parametrize(
    "options",
    [
        MechanismOptions(),
        MechanismOptions(
            external_expansion=3,
            broadcasting_form="scaled",
            dia_reduction=5,
            class_token_in_mean=False,
        ),
    ],
)
def test_shared_and_extracted_weights_give_equal_logits(
    tiny: BackboneSpec, random_placement: RandomPlacement, options: MechanismOptions
) -> None:
    rng = random.Random(3)
    placements = [random_placement(rng, 5) for _ in range(12)]
    placements.append(Placement.parse("V1L2/cb"))
    backbone = replace(tiny, options=options)
    shared = randomised(build_network(backbone, Envelope.of(*placements)))
    images = torch.randn(3, 2, 15, 15)
    with torch.no_grad():
        for placement in placements:
            alone = extract(shared, placement)
            assert alone.envelope == Envelope.of(placement)
            difference = (alone(images) - shared(images, placement)).abs().max().item()
            assert difference <= 1e-5, str(placement)


def test_extracted_weights_are_copies(tiny: BackboneSpec) -> None:
    placement = Placement.parse("V1L1E1/s3/dia1")
    envelope = Envelope.of(placement, Placement.parse("V2E1/s7/dia1"))
    shared = randomised(build_network(tiny, envelope))
    alone = extract(shared, placement)
    own = {weight.data_ptr() for weight in alone.parameters()}
    assert own.isdisjoint(weight.data_ptr() for weight in shared.parameters())
    assert all(weight.is_contiguous() and weight.requires_grad for weight in alone.parameters())
    before = {name: weight.clone() for name, weight in shared.named_parameters()}
    with torch.no_grad():
        for weight in alone.parameters():
            weight.add_(1)
    for name, weight in shared.named_parameters():
        assert torch.equal(weight, before[name]), name


def test_which_weights_are_cut(tiny: BackboneSpec) -> None:
    placements = [Placement.parse(text) for text in ("V1L1E1/s3", "V2E1/s7")]
    shared = randomised(build_network(tiny, Envelope.of(*placements)))
    alone = extract(shared, placements[0])
    assert torch.equal(alone.blocks[1].attn.v.weight, shared.blocks[1].attn.qkv.weight[44:])
    assert torch.equal(alone.blocks[1].attn.v.bias, shared.blocks[1].attn.qkv.bias[44:])
    for name in ("memory_key", "memory_value"):
        kept = getattr(shared.blocks[2].external, name)[:3]
        assert torch.equal(getattr(alone.blocks[2].external, name), kept)


def test_mode_dtype_options_and_random_numbers_stay(tiny: BackboneSpec) -> None:
    envelope = Envelope.of(Placement.parse("V2"), Placement.parse("V1L1"))
    shared = build_network(tiny, envelope, fused=False, drop_path_rate=0.3).double()
    state = torch.get_rng_state()
    alone = extract(shared, Placement.parse("V2"))
    assert torch.equal(torch.get_rng_state(), state)
    assert alone.training and not extract(shared.eval(), Placement.parse("V2")).training
    assert (alone.fused, alone.drop_path_rate) == (False, 0.3)
    assert alone.only_placement == Placement.parse("V2") and shared.only_placement is None
    assert {weight.dtype for weight in alone.parameters()} == {torch.float64}


def test_a_placement_outside_the_envelope_is_refused(tiny: BackboneSpec) -> None:
    shared = build_network(tiny, Envelope.of(Placement.parse("V2")))
    with pytest.raises(InputError, match="outside the network's envelope"):
        extract(shared, Placement.parse("V1E1"))
