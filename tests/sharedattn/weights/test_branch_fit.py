"""Memories fitted to vanilla attention: the errors on a trained network, the least squares."""

from __future__ import annotations

import copy

import contract
import pytest
import torch
from shades import RECIPE, Shades
from torch import Tensor

from sharedattn.backbones import build, build_network
from sharedattn.data import DataConfig, open_data
from sharedattn.errors import InputError
from sharedattn.mechanisms.external import ExternalAttention
from sharedattn.mechanisms.external_fit import nested_centres
from sharedattn.networks.network import Network
from sharedattn.placement import BackboneSpec, Envelope, NetworkSpec, Placement
from sharedattn.recipe import Recipe
from sharedattn.training.trainer import train
from sharedattn.weights.branch_fit import branch_errors, fit_branches
from sharedattn.weights.pretrained import start_from

BACKBONE = BackboneSpec.parse(
    "vit(class_token=false,depth=2,embed_dim=10,global_pool=avg,in_chans=1,mlp_ratio=2.0,"
    "num_classes=3,num_heads=2,patch_size=2)@6"
)
SLOTS = (11, 5, 2)


def images_of(seed: int) -> Tensor:
    return Shades().draw(53, seed)[0]


@pytest.fixture(scope="module")
def trained() -> Network:
    """A network that can be V2 and E2 with 11 slots, over the weights of a trained V2."""
    spec = NetworkSpec(BACKBONE, Placement.parse("V2"))
    model = train(spec, Shades(), RECIPE, seed=0).network
    placements = [Placement.parse(text) for text in ("V2", "E2/s11", "V1E1/s7/mea")]
    torch.manual_seed(1)
    network = build_network(BACKBONE, Envelope.of(*placements)).eval()
    start_from(network, model.state_dict())
    return network


def test_the_fit_is_nearer_than_the_start_in_every_layer_and_for_every_slots(
    trained: Network,
) -> None:
    network = copy.deepcopy(trained)
    images, others = images_of(3), images_of(4)
    before = [branch_errors(network, x, numbers=SLOTS) for x in (images, others)]
    fit_branches(network, images, numbers=SLOTS)
    after = [branch_errors(network, x, numbers=SLOTS) for x in (images, others)]
    assert before[0].keys() == after[0].keys() == {(0, 0), (0, 1)}
    for old, new in zip(before, after, strict=True):
        for layer, errors in new.items():
            assert tuple(errors) == SLOTS
            for slots, error in errors.items():
                assert error < 0.95 * old[layer][slots], (layer, slots)
    # Images that it was not fitted to are no worse.
    assert after[1][0, 0][11] == pytest.approx(after[0][0, 0][11], rel=0.05)


@pytest.mark.slow
def test_the_fit_where_tokens_are_compared() -> None:
    data, recipe = open_data(DataConfig(name="digit-pairs")), Recipe.load("digit-pairs")
    backbone = BackboneSpec.parse(
        "vit(class_token=false,depth=2,embed_dim=32,global_pool=avg,in_chans=1,mlp_ratio=2.0,"
        "num_classes=2,num_heads=2,patch_size=4)@16"
    )
    vanilla, external = Placement.parse("V2"), Placement.parse("E2/s16")
    model = train(NetworkSpec(backbone, vanilla), data, recipe.with_changes(epochs=3), seed=0)
    network = build_network(backbone, Envelope.of(vanilla, external)).eval()
    start_from(network, model.network.state_dict())
    [(images, _), (others, _), *_] = data.eval_batches(
        "validation", batch_size=256, device=torch.device("cpu")
    )
    before = branch_errors(network, others)
    fit_branches(network, images)
    after = branch_errors(network, others)
    for index in range(2):
        network.blocks[index].external.memory_value.detach().zero_()
    of_the_mean = branch_errors(network, others)
    for layer, errors in after.items():
        assert tuple(errors) == (16, 8, 4)
        for slots, error in errors.items():
            assert error < 0.9 * before[layer][slots], (layer, slots)
            assert error < 0.97 * of_the_mean[layer][slots], (layer, slots)


def test_vanilla_placements_and_the_multi_head_form_stay_as_they_are(trained: Network) -> None:
    network = copy.deepcopy(trained).train()
    fit_branches(network, images_of(3))
    assert network.training
    changed = {
        name
        for name, weight in network.state_dict().items()
        if not torch.equal(weight, trained.state_dict()[name])
    }
    parts = ("query.weight", "memory_key", "memory_value", "proj.weight", "proj.bias")
    assert changed == {f"blocks.{i}.external.{part}" for i in range(2) for part in parts}
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


def test_equal_seeds_give_equal_memories(trained: Network) -> None:
    fitted = []
    for seed in (5, 5, 6):
        network = copy.deepcopy(trained)
        fit_branches(network, images_of(3), seed=seed)
        fitted.append(network.blocks[1].external.memory_key)
    assert torch.equal(fitted[0], fitted[1]) and not torch.equal(fitted[0], fitted[2])


def test_the_values_are_the_least_squares_of_all_numbers_of_slots(trained: Network) -> None:
    """The stacked problem, solved by another routine, up to the ridge."""
    network = copy.deepcopy(trained).double()
    images = images_of(3).double()
    fit_branches(network, images, numbers=(7, 3))
    external = network.blocks[0].external
    with torch.no_grad():
        tokens, _ = network.begin(images)
        x = network.blocks[0].norm1(tokens)
        scores, v = network.blocks[0].attn.scores_and_values(x)
        y = network.blocks[0].attn(scores, v)[0].flatten(0, 1)
        rows = []
        for s in (7, 3):
            maps = external(x, s)[1].flatten(0, 2)
            rows.append(torch.nn.functional.pad(maps, (0, 7 - s)))
        stacked, target = torch.cat(rows), (y - y.mean(0)).repeat(2, 1)
        best = torch.linalg.lstsq(stacked, target).solution
        error = (stacked @ external.memory_value[:7] - target).norm()
        assert error < 1.02 * (stacked @ best - target).norm()
    assert not external.memory_value[7:].any()
    torch.testing.assert_close(external.proj.bias, y.mean(0))
    assert torch.equal(external.proj.weight, torch.eye(10, dtype=torch.float64))
    assert torch.equal(external.query.weight, network.blocks[0].attn.qkv.weight[:10])


@pytest.mark.parametrize(
    "text",
    [
        "pvt(depths=2-2,embed_dims=6-10,mlp_ratios=2-1,num_heads=1-2,sr_ratios=2-1)@16: "
        "E2/s7 | E2/s7",
        "swin(depths=2-2,embed_dim=6,num_heads=1-3,patch_size=2,window_size=2-2)@16: "
        "E2/s7 | E2/s7",
    ],
)
def test_reduced_keys_and_windows(text: str) -> None:
    spec = NetworkSpec.parse(text)
    vanilla = Placement.all_vanilla(spec.placement.depths)
    network = contract.randomised(
        build_network(spec.backbone, Envelope.of(spec.placement, vanilla))
    )
    images = contract.random_images(spec.backbone, 5)
    before = branch_errors(network, images)
    fit_branches(network, images)
    after = branch_errors(network, images)
    assert len(before) == 4
    for layer, errors in after.items():
        assert set(errors) == {7, 3, 1}
        assert all(error < before[layer][slots] for slots, error in errors.items())
        assert all(error <= 1 for error in errors.values())


def test_centres_of_separate_clusters_come_largest_first() -> None:
    at = torch.tensor([[0.0, 0.0], [100.0, 0.0], [0.0, 110.0]])
    sizes = (29, 13, 5)
    noise = torch.randn(sum(sizes), 2)
    points = at.repeat_interleave(torch.tensor(sizes), 0) + noise
    centres = nested_centres(points, 3, torch.Generator().manual_seed(2))
    means = torch.stack([part.mean(0) for part in points.split(sizes)])
    torch.testing.assert_close(centres, means, rtol=0, atol=1e-4)


@pytest.mark.parametrize("num_points", [1, 3])
def test_more_centres_than_points(num_points: int) -> None:
    points = torch.randn(num_points, 5)
    centres = nested_centres(points, 7, torch.Generator().manual_seed(2))
    assert centres.shape == (7, 5)
    assert torch.cdist(points, centres).min(1).values.max() < 1e-3


def test_of_very_many_points_some_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sharedattn.mechanisms.external_fit.MAX_POINTS", 13)
    points = torch.randn(101, 3)
    centres = nested_centres(points, 13, torch.Generator().manual_seed(2))
    assert (torch.cdist(centres, points).min(1).values < 1e-3).sum() == 13


def test_what_cannot_be_fitted(trained: Network) -> None:
    network = copy.deepcopy(trained)
    with pytest.raises(
        InputError, match=r"`numbers` holds \[0, 13\], and layer 1 of stage 1 holds 1 to 11 slots"
    ):
        fit_branches(network, images_of(3), numbers=(0, 13))
    with pytest.raises(InputError, match="`images_BCYX` holds no image"):
        branch_errors(network, images_of(3)[:0])
    with pytest.raises(InputError, match="`images_BCYX` has"):
        fit_branches(network, torch.zeros(1, 1, 8, 8))
    alone = build(NetworkSpec(BACKBONE, Placement.parse("V1E1/s7")))
    with pytest.raises(InputError, match="every layer can be vanilla.*layer 2 of .* with 'V2'"):
        fit_branches(alone, images_of(3))
    assert alone.training and isinstance(alone.blocks[1].external, ExternalAttention)
