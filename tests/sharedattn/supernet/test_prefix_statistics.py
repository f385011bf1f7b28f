"""Statistics of batch norms: those of each prefix, as recalibrating each placement alone finds."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from contract import randomised
from torch import nn

from sharedattn.backbones import build, build_network, describe
from sharedattn.data import DataConfig, open_data
from sharedattn.errors import InputError
from sharedattn.networks.batch_norms import statistics_of
from sharedattn.networks.network import Network
from sharedattn.placement import Envelope, NetworkSpec, Placement
from sharedattn.recipe import Recipe
from sharedattn.supernet.placement_tree import Act, PlacementTree
from sharedattn.supernet.prefix_statistics import PrefixStatistics
from sharedattn.supernet.tree_evaluation import TreeEvaluation
from sharedattn.testing.tiny_backbones import TINY, tiny_backbone
from sharedattn.training.tasks.interface import Metrics
from sharedattn.training.trainer import evaluate

DATA = open_data(DataConfig(name="digit-pairs"))
SIZES: dict[str, Any] = {"batch_size": 7, "num_images": 11}
NUM_BATCHES, SEED = 3, 5
PLACEMENTS = [
    Placement.parse(text)
    for text in ("V2", "V1", "V1L1", "V,L/cb", "V/d0,L/d0", "V/cb,V", "E1V1/s3", "N1V1/cb", "V3")
]


CONVOLUTIONS = [
    Placement.parse(text)
    for text in ("V3 | V2", "V1 | V1", "V1X1V1 | V2", "V3/dia1 | V2", "V3/dia1 | V2/dia1[01]")
]


def shared(family: str) -> Network:
    network = build_network(tiny_backbone(family), Envelope.of(*PLACEMENTS))
    return randomised(network).float()


GATES_WITH_NORMS = [
    Placement.parse(text)
    for text in (
        "V3 | V2",
        "V3/srm1 | V2",
        "V3/srm2 | V2/cbam1",
        "V3/srm1[101] | V2/cbam",
        "V3/cbam1 | V,V/b0",
    )
]


@pytest.mark.parametrize(
    ("options", "placements"),
    [
        ("", CONVOLUTIONS),
        ("gate_norm=true", CONVOLUTIONS),
        ("cbam_reduction=5", GATES_WITH_NORMS),
        ("cbam_reduction=5,bn=shared", GATES_WITH_NORMS),
    ],
)
def test_so_do_heads_and_gates_of_convolutions(options: str, placements: list[Placement]) -> None:
    backbone = tiny_backbone("resnet_cifar", options)
    network = randomised(build_network(backbone, Envelope.of(*placements))).float()
    calibration = {"calibration": NUM_BATCHES, "calibration_seed": SEED}
    evaluation = TreeEvaluation(network, placements, DATA, "validation", **SIZES, **calibration)
    assert evaluation.run() == {p: recalibrated_alone(network, p) for p in placements}


def recalibrated_alone(network: Network, placement: Placement) -> Metrics:
    """Torch's own running means, without momentum, of a copy of the network.

    Norms that layers share keep theirs: no prefix of layers has them for itself.
    """
    own = copy.deepcopy(network).eval()
    for name, module in own.named_modules():
        if isinstance(module, nn.BatchNorm2d) and "_cells." not in name:
            module.reset_running_stats()
            module.momentum = None
            module.train()
    batches = DATA.train_batches(
        Recipe(epochs=1, batch_size=7), seed=SEED, epoch=0, device=torch.device("cpu")
    )
    with torch.no_grad():
        for images, _ in itertools.islice(batches, NUM_BATCHES):
            own(images, placement)
    return evaluate(own, DATA, "validation", placement=placement, **SIZES)


@pytest.mark.parametrize("family", ["ceit", "deepvit"])
def test_each_placement_has_its_own_statistics(family: str) -> None:
    network = shared(family)
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    given = (network, PLACEMENTS, DATA, "validation")
    options = {**SIZES, "calibration": NUM_BATCHES, "calibration_seed": SEED}
    evaluation = TreeEvaluation(*given, **options)
    found = evaluation.run()
    assert found == {p: recalibrated_alone(network, p) for p in PLACEMENTS}
    assert found == evaluation.run()
    for name, buffer in network.named_buffers():
        assert torch.equal(buffer, before[name]), name
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(not norm.training and norm.momentum == 0.1 for norm in norms)
    own = TreeEvaluation(*given, **SIZES).run()
    assert all(own[p].loss != found[p].loss for p in PLACEMENTS)


def test_other_images_give_other_statistics() -> None:
    network = shared("ceit")
    losses = {
        TreeEvaluation(
            network,
            PLACEMENTS[:1],
            DATA,
            "validation",
            calibration=num_batches,
            calibration_seed=seed,
            **SIZES,
        )
        .run()[PLACEMENTS[0]]
        .loss
        for num_batches, seed in ((1, 0), (2, 0), (1, 1))
    }
    assert len(losses) == 3


@pytest.mark.parametrize("family", TINY)
def test_batch_norms_stand_in_stem_and_layers_alone(family: str) -> None:
    backbone = tiny_backbone(family)
    placement = Placement.all_vanilla(describe(backbone).depths)
    network = build(NetworkSpec(backbone, placement))
    called: list[nn.Module] = []
    for norm in {norm for norm, _, _ in statistics_of(network)}:
        norm.register_forward_hook(lambda module, *_: called.append(module))
    tree = PlacementTree([placement])
    own = PrefixStatistics(network, tree)
    for step in tree.depth_first():
        called.clear()
        if step.act is Act.BEGIN:
            tokens, state = network.begin(torch.zeros(2, 1, 16, 16))
        elif step.act is Act.ENTER:
            tokens, state = network.enter(step.stage, tokens, state)
        elif step.act is Act.FINISH:
            network.finish(tokens)
        elif step.act is Act.START:
            assert step.choice is not None
            started = network.layer(step.stage, step.index).start(tokens, state, step.choice)
        else:
            assert step.choice is not None
            tokens, state = network.layer(step.stage, step.index).complete(started, step.choice)
        assert set(called) == {norm for norm, _, _ in own._own(step)}, step


def test_a_family_without_batch_norms_has_nothing_to_calibrate() -> None:
    network = shared("vit")
    given = (network, PLACEMENTS, DATA, "validation")
    with_them = TreeEvaluation(*given, calibration=1, **SIZES)
    plain = TreeEvaluation(*given, **SIZES)
    assert with_them.run() == plain.run()


@pytest.mark.parametrize("calibration", [0, 641])
def test_as_many_batches_as_there_are(calibration: int) -> None:
    with pytest.raises(InputError, match=f"`calibration`={calibration} is not from 1 to 640"):
        TreeEvaluation(
            shared("ceit"), PLACEMENTS, DATA, "validation", calibration=calibration, **SIZES
        )
