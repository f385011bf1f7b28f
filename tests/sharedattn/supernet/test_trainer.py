"""The supernet's training: what each update runs, what it leaves alone, and that it goes on."""

import itertools
from dataclasses import replace

import pytest
import torch
from shades import RECIPE, SPEC, Shades
from torch.nn import functional as F

from sharedattn.backbones import build
from sharedattn.errors import InputError
from sharedattn.mechanisms.joint import joint_name
from sharedattn.placement import Envelope, NetworkSpec, Placement
from sharedattn.recipe import RECIPES
from sharedattn.supernet.trainer import (
    SUPERNET_RECIPES,
    SupernetRecipe,
    SupernetTrainer,
    check_supernet_weights,
    supernet_network,
)
from sharedattn.training.trainer import evaluate
from sharedattn.weights.extract import extract
from sharedattn.weights.pretrained import start_from

LARGEST, SMALLEST = Placement.parse("V2"), Placement.parse("N1/cb")
OTHERS = [Placement.parse(text) for text in ("V1L1", "E2/s3", "V1L1/dia1", "E1V1/s5/cb", "V1")]
ENVELOPE = Envelope.of(LARGEST, SMALLEST, *OTHERS)
SUPERNET = SupernetRecipe(training=replace(RECIPE, epochs=3, lr=1e-2), strata=1)


class Listed:
    """Draws from a list."""

    def __init__(self, placements=OTHERS):
        self.placements = placements

    def sample(self, rng):
        return rng.choice(self.placements)


def trainer(recipe=SUPERNET, *, seed=3, sampler=None, network=None, largest=LARGEST):
    if network is None:
        network = supernet_network(SPEC.backbone, ENVELOPE, recipe, seed=seed)
    return SupernetTrainer(
        network,
        Shades(),
        recipe,
        largest=largest,
        smallest=SMALLEST,
        sampler=sampler or Listed(),
        seed=seed,
    )


def run(training):
    while not training.finished:
        training.run_epoch()
    return training.trained()


def test_each_update_runs_both_ends_and_some_drawn_by_its_number_alone():
    training = trainer()
    runs = [training.placements_of(update) for update in range(40)]
    assert all(placements[:2] == [LARGEST, SMALLEST] for placements in runs)
    assert {len(placements) for placements in runs} <= {3, 4}
    assert {p for placements in runs for p in placements[2:]} == set(OTHERS)
    assert runs == [trainer().placements_of(update) for update in range(40)]
    assert runs != [trainer(seed=4).placements_of(update) for update in range(40)]
    alone = replace(SUPERNET, sandwich=False, distillation=0.0, sampled_per_step=3)
    assert all(LARGEST not in trainer(alone).placements_of(update) for update in range(9))


def test_it_learns_for_all_placements_and_equal_seeds_are_equal():
    recipe = replace(SUPERNET, training=replace(SUPERNET.training, epochs=12, lr=2e-2))
    one, same = run(trainer(recipe)), run(trainer(recipe))
    assert all(
        torch.equal(a, b)
        for a, b in zip(one.state_dict().values(), same.state_dict().values(), strict=True)
    )
    found = [
        evaluate(one, Shades(), "validation", placement=p, batch_size=23).quality
        for p in [LARGEST, SMALLEST, *OTHERS]
    ]
    assert min(found) > 0.7
    assert max(found) > 0.85


def test_a_placement_by_shared_weights_is_its_own_network_with_a_copy_of_them():
    network = run(trainer())
    for placement in [LARGEST, *OTHERS]:
        alone = extract(network, placement)
        shared = evaluate(network, Shades(), "validation", placement=placement, batch_size=23)
        own = evaluate(alone, Shades(), "validation", batch_size=23)
        assert own.quality == shared.quality
        assert own.loss == pytest.approx(shared.loss, abs=1e-6)
    assert set(extract(network, LARGEST).state_dict()) == set(
        build(NetworkSpec(SPEC.backbone, LARGEST)).state_dict()
    )


def test_the_gradient_is_the_mean_over_placements_of_labels_and_the_largest_ones_guess():
    recipe = replace(SUPERNET, distillation=0.25)
    training = trainer(recipe, sampler=Listed(OTHERS[:1]))
    images, labels = Shades().draw(7, 1)
    network = training.network.train()
    loss = training._accumulate(images, labels, update=0)
    gradients = {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
    network.zero_grad(set_to_none=True)
    teacher = network(images, LARGEST)
    total = F.cross_entropy(teacher, labels)
    for placement in (SMALLEST, OTHERS[0]):
        logits = network(images, placement)
        soft = -(teacher.detach().softmax(1) * logits.log_softmax(1)).sum(1).mean()
        total = total + 0.75 * F.cross_entropy(logits, labels) + 0.25 * soft
    (total / 3).backward()
    assert loss.item() == pytest.approx(total.item() / 3, rel=1e-6)
    by_hand = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
    assert by_hand.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, by_hand[name], rtol=1e-4, atol=1e-6)


def test_a_step_with_layers_left_out_trains_the_others_alone():
    cut = Placement.parse("X1V1/dia1")
    envelope = ENVELOPE.union(Envelope.of(cut))
    network = supernet_network(SPEC.backbone, envelope, SUPERNET, seed=3)
    alone = replace(SUPERNET, sandwich=False, distillation=0.0)
    training = trainer(alone, sampler=Listed([cut]), network=network)
    images, labels = Shades().draw(7, 1)
    loss = training._accumulate(images, labels, update=0)
    reached = {n for n, p in network.named_parameters() if p.grad is not None}
    assert loss.item() == pytest.approx(F.cross_entropy(network(images, cut), labels).item())
    assert {name.split(".")[1] for name in reached if name.startswith("blocks.")} == {"1"}
    assert {name.split(".")[0] for name in reached} >= {"blocks", "dia_cells", "head"}
    trained = run(trainer(SUPERNET, sampler=Listed([cut, *OTHERS]), network=network))
    own = extract(trained, cut)
    assert {name.split(".")[1] for name in own.state_dict() if name.startswith("blocks.")} == {"1"}
    shared = evaluate(trained, Shades(), "validation", placement=cut, batch_size=23)
    assert evaluate(own, Shades(), "validation", batch_size=23).quality == shared.quality


def test_micro_batches_change_nothing_but_the_order_of_sums():
    recipe = replace(SUPERNET, training=replace(SUPERNET.training, batch_size=6))
    images, labels = Shades().draw(6, 1)
    losses, gradients = [], []
    for num_parts in (1, 3):
        training = trainer(replace(recipe, micro_batches=num_parts))
        network = training.network.train()
        losses.append(training._accumulate(images, labels, update=0).item())
        gradients.append({n: p.grad for n, p in network.named_parameters() if p.grad is not None})
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6)


def test_weights_that_no_placement_of_an_update_uses_are_neither_moved_nor_decayed():
    only = Placement.parse("V1L1")
    recipe = SupernetRecipe(
        training=replace(RECIPE, weight_decay=0.5), sandwich=False, distillation=0.0, strata=1
    )
    training = trainer(recipe, sampler=Listed([only]))
    before = {n: p.detach().clone() for n, p in training.network.named_parameters()}
    training.run_epoch()
    moved = {
        name
        for name, parameter in training.network.named_parameters()
        if not torch.equal(parameter, before[name])
    }
    # The second layer is less attention: of its joint map the values alone are used.
    assert "blocks.1.attn.qkv.parts.2.weight" in moved
    assert not {f"blocks.1.attn.qkv.parts.{i}.weight" for i in (0, 1)} & moved
    assert not any("external" in name or "dia_cells" in name for name in moved)
    assert {"blocks.0.attn.qkv.parts.0.weight", "blocks.1.less.theta"} <= moved


def test_while_new_parts_learn_alone_those_of_the_largest_stay_as_they_are():
    recipe = replace(SUPERNET, alone_epochs=2)
    training = trainer(recipe)
    own = {name for name, _ in build(NetworkSpec(SPEC.backbone, LARGEST)).named_parameters()}
    before = {n: p.detach().clone() for n, p in training.network.named_parameters()}

    def moved():
        return {
            joint_name(name)
            for name, parameter in training.network.named_parameters()
            if not torch.equal(parameter, before[name])
        }

    training.run_epoch()
    training.run_epoch()
    assert moved()
    assert not moved() & own
    training.run_epoch()
    assert own <= moved()


@pytest.mark.parametrize("stop_after", [1, 2])
def test_it_goes_on_from_a_checkpoint_as_if_it_had_not_been_stopped(stop_after):
    recipe = replace(SUPERNET, alone_epochs=1, training=replace(SUPERNET.training, ema_decay=0.5))
    whole = trainer(recipe)
    stopped, resumed = trainer(recipe), trainer(recipe)
    for _ in range(stop_after):
        stopped.run_epoch()
    resumed.load_state_dict(stopped.state_dict())
    one, other = run(whole), run(resumed)
    assert whole.curve == resumed.curve
    for name, weight in one.state_dict().items():
        assert torch.equal(other.state_dict()[name], weight)


def test_recipes_are_read_and_written_and_their_keys_tell_them_apart(tmp_path):
    recipe = replace(SUPERNET, micro_batches=7, scored_images=11)
    assert SupernetRecipe.from_json(recipe.to_json()) == recipe
    path = tmp_path / "recipe.yaml"
    path.write_text("training: digit-pairs\nsampled_per_step: 3\ndistillation: 0\n")
    read = SupernetRecipe.load(str(path))
    assert read == SupernetRecipe(
        training=RECIPES["digit-pairs"], sampled_per_step=3, distillation=0
    )
    assert SupernetRecipe.load("digit-pairs") == SUPERNET_RECIPES["digit-pairs"]
    keys = {r.key for r in (recipe, SUPERNET, read, recipe.with_epochs(5))}
    assert len(keys) == 4
    shorter = replace(SUPERNET, alone_epochs=3).with_epochs(1)
    assert (shorter.training.epochs, shorter.alone_epochs) == (1, 1)
    assert shorter.training.warmup_epochs == pytest.approx(1 / 3, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"sampled_per_step": -1}, "`sampled_per_step` .* >= 0, but got -1"),
        (
            {"sandwich": False, "distillation": 0.0, "sampled_per_step": 0},
            "`sampled_per_step` .* >= 1, but got 0",
        ),
        ({"strata": 0}, "`strata` .* >= 1, but got 0"),
        ({"distillation": 1.5}, "`distillation` .* from 0 to 1, but got 1.5"),
        ({"sandwich": False}, "`distillation` .* learns from the largest placement"),
        ({"sandwich": 1}, "sandwich` of a supernet's recipe is true or false"),
        ({"micro_batches": 2}, "`micro_batches` .* is 2, which does not divide batch_size"),
        ({"alone_epochs": 4}, "`alone_epochs` .* is 4, more than"),
        ({"scored_images": 0}, "`scored_images` .* >= 1, but got 0"),
        ({"separate_norms": 0}, "separate_norms` of a supernet's recipe is true or false"),
        ({"neutral_gates": 0}, "neutral_gates` of a supernet's recipe is true or false"),
        ({"training": replace(RECIPE, rungs=(1,))}, "not stopped at rungs"),
    ],
)
def test_recipes_with_a_value_out_of_range_are_refused(change, rule):
    with pytest.raises(InputError, match=rule):
        replace(SUPERNET, **change)


def test_documents_that_are_no_recipe_are_refused(tmp_path):
    with pytest.raises(InputError, match="has no field 'epochs'"):
        SupernetRecipe.from_json({"epochs": 3})
    with pytest.raises(InputError, match="needs `training`"):
        SupernetRecipe.from_json({"strata": 3})
    with pytest.raises(InputError, match="no recipe but digit-pairs, digit-count, small, deit, "):
        SupernetRecipe.load("nothing")
    path = tmp_path / "broken.yaml"
    path.write_text("a: [")
    with pytest.raises(InputError, match="is not YAML of plain values"):
        SupernetRecipe.load(str(path))


def test_groups_were_removed_and_keys_still_say_that_there_are_none(tmp_path):
    document = SUPERNET.to_json()
    assert document["split_by"] == "none"
    assert SupernetRecipe.from_json(document) == SUPERNET
    with pytest.raises(InputError, match="`split_by: dia`.*was removed: one network for all"):
        SupernetRecipe.from_json({**document, "split_by": "dia"})
    path = tmp_path / "split.yaml"
    for value in ("none", "dia"):
        path.write_text(f"training: digit-pairs\nsplit_by: {value}\n")
        with pytest.raises(InputError, match="has `split_by`, which was removed: one network"):
            SupernetRecipe.load(str(path))


def test_weights_of_another_space_are_refused_by_name():
    network = supernet_network(SPEC.backbone, ENVELOPE, SUPERNET, seed=0)
    check_supernet_weights(network, network.state_dict())
    other = supernet_network(
        SPEC.backbone, Envelope.of(LARGEST, Placement.parse("E2/s3")), SUPERNET, seed=0
    )
    with pytest.raises(InputError, match="of another space or backbone: .* differ"):
        check_supernet_weights(network, other.state_dict())


def test_envelopes_are_joined_position_by_position():
    one, other = (
        Envelope.of(Placement.parse("V1L1")),
        Envelope.of(Placement.parse("E3/s7/dia1/cb")),
    )
    assert one.union(other) == Envelope.of(
        Placement.parse("V1L1"), Placement.parse("E3/s7/dia1/cb")
    )
    assert one.union(one) == one
    with pytest.raises(InputError, match="equally many stages"):
        one.union(Envelope.of(Placement.parse("V1 | V1")))


SEPARATE = replace(SUPERNET, separate_norms=True)


def test_norms_that_are_apart_begin_as_one():
    apart = supernet_network(SPEC.backbone, ENVELOPE, SEPARATE, seed=0)
    common = supernet_network(SPEC.backbone, ENVELOPE, SUPERNET, seed=0)
    added = {name for name, _ in apart.named_parameters()} - {
        n for n, _ in common.named_parameters()
    }
    assert added == {
        f"blocks.{layer}.norm1_{kind}.{leaf}"
        for layer, kind in ((0, "external"), (1, "external"), (1, "less"))
        for leaf in ("weight", "bias")
    }
    images, _ = Shades().draw(7, 1)
    for placement in [LARGEST, SMALLEST, *OTHERS]:
        assert torch.equal(apart(images, placement), common(images, placement))
    # So do those that start from a trained model, and not from ones and zeros.
    state = build(NetworkSpec(SPEC.backbone, LARGEST)).state_dict()
    state["blocks.1.norm1.weight"] = torch.linspace(1, 2, len(state["blocks.1.norm1.weight"]))
    start_from(apart, state)
    for name in ("norm1", "norm1_less", "norm1_external"):
        assert torch.equal(
            apart.get_parameter(f"blocks.1.{name}.weight"), state["blocks.1.norm1.weight"]
        )


def test_norms_that_are_apart_learn_apart_and_a_placement_takes_its_own():
    network = run(trainer(SEPARATE))
    norms = [
        network.get_parameter(f"blocks.1.norm1{of}.weight") for of in ("", "_less", "_external")
    ]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(norms, 2))
    images, _ = Shades().draw(7, 1)
    for placement in [LARGEST, SMALLEST, *OTHERS]:
        alone = extract(network, placement)
        assert not any("norm1_" in name for name in alone.state_dict())
        torch.testing.assert_close(alone(images), network(images, placement), rtol=1e-5, atol=1e-5)
    less, external = extract(network, OTHERS[0]), extract(network, OTHERS[1])
    assert torch.equal(less.get_parameter("blocks.1.norm1.weight"), norms[1])
    assert torch.equal(external.get_parameter("blocks.1.norm1.weight"), norms[2])


def test_the_published_gates_are_shared_where_the_recipe_says_so():
    options = [
        supernet_network(SPEC.backbone, ENVELOPE, recipe, seed=0).backbone.options.dia_start
        for recipe in (SUPERNET, replace(SUPERNET, neutral_gates=False))
    ]
    assert options == ["one", "paper"]
