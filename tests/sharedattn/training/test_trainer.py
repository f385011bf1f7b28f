"""The training loop and the evaluation: seeded, on train and validation alone, and it learns."""

import io
import math
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch
from shades import RECIPE, SPEC, Shades
from torch import nn
from torch.nn import functional as F

from sharedattn.backbones import build, resolve
from sharedattn.distributed import Rank
from sharedattn.errors import InputError
from sharedattn.placement import Envelope, NetworkSpec, Placement
from sharedattn.recipe import Recipe
from sharedattn.testing.tiny_backbones import TINY
from sharedattn.training.trainer import Schedule, Trainer, check_fit, check_recipe, evaluate, train


def test_it_learns_and_equal_seeds_are_equal():
    recipe = replace(RECIPE, epochs=8, lr=2e-2)
    one, same = (train(SPEC, Shades(), recipe, seed=4) for _ in range(2))
    assert one.metrics.quality > 0.8
    assert one.curve == same.curve
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            one.network.state_dict().values(), same.network.state_dict().values(), strict=True
        )
    )
    assert train(SPEC, Shades(), recipe, seed=5).curve != one.curve


def test_the_test_split_is_never_opened():
    data = Shades()
    train(SPEC, data, RECIPE, seed=0, validate_at={1, 2, 3})
    assert {split for split, _ in data.opened} == {"train", "validation"}


def test_validation_comes_after_the_last_epoch_or_when_asked():
    curve = train(SPEC, Shades(), RECIPE, seed=0).curve
    assert [epoch.validation is not None for epoch in curve] == [False, False, True]
    often = train(SPEC, Shades(), replace(RECIPE, epochs=4), seed=0, validate_at=(2,)).curve
    assert [epoch.validation is not None for epoch in often] == [False, True, False, True]


def test_evaluate_equals_accuracy_and_loss_by_hand():
    torch.manual_seed(0)
    network = build(SPEC)
    data = Shades()
    images, labels = data.draw(23, 55)
    with torch.no_grad():
        logits = network.eval()(images)
    metrics = evaluate(network, data, "validation", batch_size=5)
    assert metrics.num_images == 23
    assert metrics.quality == (logits.argmax(1) == labels).sum().item() / 23
    assert metrics.loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)


def test_the_diagonality_term_is_trained_where_the_recipe_weighs_it():
    plain = train(SPEC, Shades(), RECIPE, seed=0)
    weighed = train(SPEC, Shades(), replace(RECIPE, diagonality_weight=50.0), seed=0)
    images, _ = Shades().draw(23, 55)

    def diagonality(training):
        with torch.no_grad():
            return training.network.run(images, collect={"diagonality"}).diagonality.item()

    assert diagonality(weighed) < diagonality(plain) - 0.01


def test_a_taught_step_is_that_of_the_two_losses_by_hand():
    recipe = replace(
        RECIPE,
        epochs=1,
        distillation=0.3,
        optimizer="sgd",
        optimizer_options=(("momentum", 0.0), ("nesterov", False)),
        weight_decay=0.0,
        lr=0.7,
        schedule="constant",
        warmup_epochs=0.0,
        label_smoothing=0.1,
        batch_size=35,
    )
    data = Shades()
    torch.manual_seed(11)
    teacher = build(SPEC).train()
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    torch.manual_seed(13)
    network = build(SPEC)
    by_hand = build(SPEC)
    by_hand.load_state_dict(network.state_dict())
    trainer = Trainer(SPEC, data, recipe, seed=3, network=network, teacher=teacher)
    [(images, labels)] = data.train_batches(recipe, seed=3, epoch=0, device=torch.device("cpu"))
    with torch.no_grad():
        taught = teacher.eval()(images).softmax(1)
    logits = by_hand(images)
    loss = 0.7 * F.cross_entropy(logits, labels, label_smoothing=0.1)
    loss -= 0.3 * (taught * logits.log_softmax(1)).sum(1).mean()
    loss.backward()
    with torch.no_grad():
        for parameter in by_hand.parameters():
            parameter -= 0.7 * parameter.grad
    assert trainer.run_epoch().train_loss == pytest.approx(loss.item(), rel=1e-6)
    for name, tensor in by_hand.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], tensor, rtol=1e-5, atol=1e-7)
    assert all(torch.equal(before[n], tensor) for n, tensor in teacher.state_dict().items())
    # Without a share for it, a teacher changes nothing.
    plain = replace(recipe, distillation=0.0)
    alone, taught_nothing = (
        Trainer(SPEC, data, plain, seed=3, teacher=one).run_epoch() for one in (None, teacher)
    )
    assert alone == taught_nothing


def test_a_recipe_with_distillation_needs_a_teacher():
    recipe = replace(RECIPE, distillation=0.5)
    rule = "`distillation` of the recipe is 0.5, but this training starts from no trained model"
    with pytest.raises(InputError, match=rule):
        check_recipe(SPEC, Shades(), recipe)
    with pytest.raises(InputError, match=rule):
        train(SPEC, Shades(), recipe, seed=0)
    check_recipe(SPEC, Shades(), recipe, has_teacher=True)
    with pytest.raises(InputError, match="`distillation` of a recipe is a number from 0 to 1"):
        replace(RECIPE, distillation=1.5)


def fewer_keys(spec):
    """The network, its backbone said to have 2 keys a window."""
    [stage] = spec.shape.stages
    attention = replace(stage.attention, num_keys=2)
    return replace(spec, shape=replace(spec.shape, stages=(replace(stage, attention=attention),)))


def test_maps_without_a_diagonal_are_refused_before_anything_is_trained():
    spec = fewer_keys(SPEC)
    weighed = replace(RECIPE, diagonality_weight=0.5)
    data = Shades()
    rule = "L in stage 1 has 9 queries and 2 keys; train with diagonality_weight=0"
    for refuse in (check_recipe, partial(train, seed=0)):
        with pytest.raises(InputError, match=rule):
            refuse(spec, data, weighed)
        assert data.opened == []
    vanilla = replace(spec, placement=Placement.parse("V2"))
    check_recipe(vanilla, data, weighed)
    check_recipe(SPEC, data, RECIPE)
    # A search checks one placement for all: what others of them would do is in the envelope.
    with pytest.raises(InputError, match=rule):
        check_recipe(vanilla, data, weighed, Envelope.of(vanilla.placement, SPEC.placement))


def test_activation_checkpointing_changes_no_result():
    recipe = replace(RECIPE, drop_path_rate=0.5, diagonality_weight=0.5)
    plain = train(SPEC, Shades(), recipe, seed=0)
    checkpointed = train(SPEC, Shades(), replace(recipe, grad_checkpointing=True), seed=0)
    assert checkpointed.network.grad_checkpointing and not plain.network.grad_checkpointing
    assert checkpointed.curve == plain.curve


def test_averaged_weights_are_what_is_evaluated():
    last = train(SPEC, Shades(), RECIPE, seed=0)
    averaged = train(SPEC, Shades(), replace(RECIPE, ema_decay=0.5), seed=0)
    unaveraged = train(SPEC, Shades(), replace(RECIPE, ema_decay=0.0), seed=0)
    assert unaveraged.metrics == last.metrics
    assert averaged.metrics != last.metrics
    assert averaged.metrics == evaluate(
        averaged.network, Shades(), "validation", batch_size=RECIPE.batch_size
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"drop_path_rate": 0.5, "ema_decay": 0.5},
        {"optimizer": "muon", "optimizer_options": (("nesterov", True),), "schedule": "wsd"},
        {"rungs": (1, 3), "restarts": True, "warmup_epochs": 2.0},
    ],
)
def test_a_training_goes_on_from_any_epoch_as_if_it_had_never_stopped(changes):
    recipe = replace(RECIPE, epochs=5, **changes)
    whole = train(SPEC, Shades(), recipe, seed=4, validate_at=range(1, 6))
    first = Trainer(SPEC, Shades(), recipe, seed=4)
    for epoch in range(5):
        first.run_epoch(validate=True)
        torch.manual_seed(epoch)  # what others draw in between is no matter
        file = io.BytesIO()
        torch.save(first.state_dict(), file)
        file.seek(0)
        first = Trainer(SPEC, Shades(), recipe, seed=4)
        # Nothing of a checkpoint is executed: tensors, numbers and texts alone are in it.
        first.load_state_dict(torch.load(file, weights_only=True))
        assert first.epoch == epoch + 1
    assert first.finished
    result = first.result()
    assert result.curve == whole.curve
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(result.network.state_dict()[name], tensor), name
    assert result.wall_time_s > 0


def learning_rates(recipe, steps_per_epoch):
    """The rate of every update, and the one that stands after the last."""
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=recipe.lr)
    schedule = Schedule(optimizer, recipe, steps_per_epoch)
    rates = []
    for update in range(recipe.epochs * steps_per_epoch + 1):
        schedule.step_update(update)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def test_with_restarts_the_schedule_comes_down_at_each_rung_and_starts_again():
    recipe = Recipe(epochs=7, lr=0.8, min_lr=0.1, schedule="cosine")
    whole = learning_rates(recipe, 3)
    for update, rate in enumerate(whole):
        assert rate == pytest.approx(0.1 + 0.35 * (1 + math.cos(math.pi * update / 21)))
    assert learning_rates(replace(recipe, rungs=(1, 3)), 3) == whole
    parts = learning_rates(replace(recipe, rungs=(1, 3), restarts=True), 3)
    bounds = (0, 3, 9, 21)
    for first, last in pairwise(bounds):
        for update in range(first, last):
            angle = math.pi * (update - first) / (last - first)
            assert parts[update] == pytest.approx(0.1 + 0.35 * (1 + math.cos(angle)))
    assert parts[21] == pytest.approx(0.1)


def test_each_descent_has_its_share_of_the_warm_up():
    recipe = Recipe(epochs=8, lr=1.0, warmup_epochs=2.0, rungs=(4,), restarts=True)
    rates = learning_rates(recipe, 2)
    # A quarter of 8 updates is 2: from lr / 25 in two steps to where the cosine stands by then.
    peak = rates[2]
    assert rates[0] == rates[8] == pytest.approx(1 / 25)
    assert rates[1] == pytest.approx(1 / 25 + (1.0 - 1 / 25) / 2)
    assert rates[10] == peak == max(rates)


def test_a_loss_that_is_not_finite_raises():
    with pytest.raises(FloatingPointError, match="the training loss is nan"):
        train(SPEC, Shades(poison=True), RECIPE, seed=0)
    network = build(SPEC)
    nn.init.constant_(network.head.bias, torch.nan)
    with pytest.raises(FloatingPointError, match="the validation loss is nan"):
        evaluate(network, Shades(), "validation", batch_size=7)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"optimizer": "no-such"}, "timm refuses the recipe's `optimizer`"),
        ({"optimizer_options": (("speed", 1),)}, "timm refuses the recipe's `optimizer`"),
        ({"schedule": "no-such"}, "the recipe's `schedule` 'no-such'"),
        ({"batch_size": 36}, "`batch_size` of the recipe is 36, more than the"),
        ({"mixup": 0.5}, "`mixup` and `cutmix` pair the images that a process has"),
    ],
)
def test_recipes_that_cannot_be_trained(changes, rule):
    with pytest.raises(InputError, match=rule):
        train(SPEC, Shades(), replace(RECIPE, **changes), seed=0)
    with pytest.raises(InputError, match=rule):
        check_recipe(SPEC, Shades(), replace(RECIPE, **changes))


CEIT = resolve(NetworkSpec.parse(f"{TINY['ceit']},in_chans=1,num_classes=3)@16: V1"))


@pytest.mark.parametrize(
    ("spec", "changes", "rule"),
    [
        (SPEC, {"batch_size": 9}, "`batch_size` of the recipe is 9, which the 2 processes"),
        (
            SPEC,
            {"batch_size": 10, "cutmix": 0.5},
            "`batch_size` gives each 5, an odd number;",
        ),
        (
            CEIT,
            {"batch_size": 10},
            "networks of ceit have batch norms, which processes share on GPUs only",
        ),
    ],
)
def test_trainings_that_processes_cannot_share(spec, changes, rule):
    recipe = replace(RECIPE, **changes)
    check_recipe(spec, Shades(), recipe)
    with pytest.raises(InputError, match=rule):
        check_recipe(spec, Shades(), recipe, num_processes=2)
    with pytest.raises(InputError, match=rule):
        Trainer(spec, Shades(), recipe, seed=0, rank=Rank(1, 2))
    if spec is CEIT:
        check_recipe(spec, Shades(), recipe, device="cuda", num_processes=2)


def test_batch_norms_of_any_placement_of_a_search_are_seen():
    # Those of DeepViT are of its vanilla layers.
    external, vanilla = (
        resolve(NetworkSpec.parse(f"{TINY['deepvit']},in_chans=1,num_classes=3)@16: {placement}"))
        for placement in ("E1", "V1")
    )
    recipe = replace(RECIPE, batch_size=10)
    check_recipe(external, Shades(), recipe, num_processes=2)
    envelope = Envelope.of(external.placement, vanilla.placement)
    with pytest.raises(InputError, match="networks of deepvit have batch norms"):
        check_recipe(external, Shades(), recipe, envelope, num_processes=2)


def test_checking_a_recipe_draws_nothing():
    before = torch.random.get_rng_state()
    check_recipe(SPEC, Shades(), RECIPE)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(("name", "value"), [("num_classes", 5), ("in_chans", 3)])
def test_data_that_does_not_fit(name, value):
    spec = NetworkSpec(replace(SPEC.backbone, **{name: value}), SPEC.placement)
    with pytest.raises(InputError, match=f"`{name}` of the network is"):
        check_fit(spec.backbone, Shades())
