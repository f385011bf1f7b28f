"""Walked as a tree, placements give what each gives alone, and keep one path at a time."""

from __future__ import annotations

import itertools
import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch
from contract import random_placements, randomised
from torch import Tensor

from sharedattn.backbones import build_network, describe
from sharedattn.data import DataConfig, open_data
from sharedattn.errors import InputError
from sharedattn.networks.legality import check_placement
from sharedattn.networks.network import Network
from sharedattn.networks.state import StartedLayer, State
from sharedattn.placement import BackboneSpec, Envelope, GateCell, LayerChoice, Placement
from sharedattn.supernet import tree_evaluation
from sharedattn.supernet.tree_evaluation import Carried, TreeEvaluation, compute
from sharedattn.testing.tiny_backbones import TINY, tiny_backbone
from sharedattn.training.tasks.interface import Metrics
from sharedattn.training.trainer import evaluate

DATA = open_data(DataConfig(name="digit-pairs"))
SIZES: dict[str, Any] = {"batch_size": 7, "num_images": 11}
OPTIONS = {"swin": ("", "handover=previous"), "pvt": ("", "attention_residual=true")}
# The data has classes, which a UNet says nothing of.
CASES = [
    (family, options)
    for family in TINY
    for options in OPTIONS.get(family, ("",))
    if family != "unet2d"
]


def with_variants(backbone: BackboneSpec, num: int) -> list[Placement]:
    """Random placements, and of each those with CB or a DIA unit changed in one layer."""
    found: list[Placement] = []
    shapes = describe(backbone).stages
    for placement in random_placements(backbone, 11, num):
        found.append(placement)
        for stage, index in itertools.product(range(len(placement.stages)), range(2)):
            if index < placement.depths[stage]:
                layers = list(placement.stages[stage])
                layer = layers[index]
                if layer.is_absent:
                    continue
                changes = [replace(layer, gate=GateCell("dia", index))]
                if shapes[stage].convolution is None:
                    changes.append(replace(layer, cb=not layer.cb))
                for changed in changes:
                    layers[index] = changed
                    stages = list(placement.stages)
                    stages[stage] = tuple(layers)
                    found.append(Placement(tuple(stages)))
    return list(dict.fromkeys(found))


def shared(backbone: BackboneSpec, placements: list[Placement]) -> Network:
    return randomised(build_network(backbone, Envelope.of(*placements))).float()


def alone(network: Network, placements: list[Placement]) -> dict[Placement, Metrics]:
    return {p: evaluate(network, DATA, "validation", placement=p, **SIZES) for p in placements}


def held_by(state: State) -> list[Tensor | None]:
    return list(state.tensors())


class LiveBytes:
    """Bytes of all that steps have given and that is still alive, each storage once.

    Attributes:
        peak: the most that was alive as a step ended.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.peak = 0
        self._tensors: list[weakref.ref[Tensor]] = []
        patch.setattr(tree_evaluation, "compute", self._compute)

    def _compute(self, *arguments: Any) -> Carried:
        given = compute(*arguments)
        if isinstance(given, StartedLayer):
            own = [given.tokens, given.branch, given.passthrough_tokens, *held_by(given.state)]
        else:
            own = [given[0], *held_by(given[1])]
        self._tensors += [weakref.ref(tensor) for tensor in own if tensor is not None]
        alive = [tensor for ref in self._tensors if (tensor := ref()) is not None]
        self._tensors = [weakref.ref(tensor) for tensor in alive]
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in alive}
        self.peak = max(self.peak, sum(storages.values()))
        return given


@pytest.mark.parametrize(("family", "options"), CASES)
def test_the_tree_gives_what_each_placement_gives_alone(family: str, options: str) -> None:
    backbone = tiny_backbone(family, options)
    placements = with_variants(backbone, 3)
    network = shared(backbone, placements)
    evaluation = TreeEvaluation(network, placements, DATA, "validation", **SIZES)
    assert evaluation.tree.parts < evaluation.tree.prefixes < evaluation.tree.evaluations
    found = evaluation.run()
    assert found == alone(network, placements)
    assert list(found) == placements
    assert len({metrics.loss for metrics in found.values()}) > len(placements) / 2


def with_and_without_cb(depth: int) -> list[Placement]:
    return [
        Placement((tuple(LayerChoice("V", cb=cb) for cb in layers),))
        for layers in itertools.product((False, True), repeat=depth)
    ]


DEEP = BackboneSpec.parse(
    "vit(class_token=false,depth=6,embed_dim=14,global_pool=avg,mlp_ratio=1,num_heads=2,"
    "patch_size=4,in_chans=1,num_classes=2)@16"
)


def test_what_is_kept_is_tokens_and_branches_of_one_path(monkeypatch: pytest.MonkeyPatch) -> None:
    placements = with_and_without_cb(6)
    network = shared(DEEP, placements)
    evaluation = TreeEvaluation(network, placements, DATA, "validation", **SIZES)
    live = LiveBytes(monkeypatch)
    evaluation.run()
    # 7 images of 16 tokens of 14 channels. Each layer's halves, tokens and branch, are kept for
    # its other choice, but the last takes its tokens along.
    assert live.peak == (6 * 2 + 1) * 7 * 16 * 14 * 4


def test_a_placement_that_the_network_cannot_run() -> None:
    network = shared(DEEP, with_and_without_cb(3))
    for text, message in (
        ("E1/s3", "outside the network's envelope"),
        ("V4", "has 4 layers and the network has 3"),
    ):
        with pytest.raises(InputError, match=message):
            TreeEvaluation(network, [Placement.parse(text)], DATA, "validation", **SIZES)
    swin = tiny_backbone("swin")
    placement = Placement.parse("V1 | V1L1")
    free = [placement, Placement.parse("V1 | V2")]
    with pytest.raises(InputError, match="scores of a layer of equal shift"):
        check_placement(shared(swin, free).shape, swin.options, placement)
    with pytest.raises(InputError, match="scores of a layer of equal shift"):
        TreeEvaluation(shared(swin, free), free, DATA, "validation", **SIZES)


def test_one_placement_without_a_finite_loss_is_named() -> None:
    placements = with_and_without_cb(2)
    network = shared(DEEP, [*placements, Placement.parse("E1/s3")])
    torch.nn.init.constant_(network.block(0, 0).external.proj.bias, torch.nan)
    evaluation = TreeEvaluation(
        network, [*placements, Placement.parse("E1/s3")], DATA, "validation", **SIZES
    )
    with pytest.raises(FloatingPointError, match=r"the validation \(E1/s3\) loss is nan"):
        evaluation.run()


def test_a_placement_given_twice_and_all_images() -> None:
    placements = with_and_without_cb(2)
    network = shared(DEEP, placements)
    evaluation = TreeEvaluation(
        network, [*placements, *placements], DATA, "validation", batch_size=500
    )
    found = evaluation.run()
    assert list(found) == placements
    assert {metrics.num_images for metrics in found.values()} == {4000}
    own = evaluate(network, DATA, "validation", placement=placements[2], batch_size=500)
    assert found[placements[2]] == own
    assert evaluation.run() == found
