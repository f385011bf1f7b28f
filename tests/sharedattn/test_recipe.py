"""Recipes: canonical, hashed, validated."""

from dataclasses import replace

import pytest

from sharedattn.errors import InputError
from sharedattn.recipe import RECIPES, Recipe


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_json_round_trip(name):
    recipe = Recipe.load(name)
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert Recipe.from_json(recipe.to_json()).key == recipe.key


def test_every_field_that_changes_results_changes_the_key():
    recipe = Recipe(epochs=7)
    changed = {
        "epochs": 5,
        "batch_size": 3,
        "init": "torch",
        "optimizer": "sgd",
        "optimizer_options": (("momentum", 0.5),),
        "lr": 0.5,
        "weight_decay": 0.5,
        "schedule": "constant",
        "warmup_epochs": 0.5,
        "min_lr": 0.5,
        "clip_grad_norm": 0.5,
        "drop_path_rate": 0.5,
        "label_smoothing": 0.5,
        "diagonality_weight": 0.5,
        "ema_decay": 0.5,
        "amp": "bfloat16",
        "hflip": 0.25,
        "crop_scale_min": 0.5,
        "color_jitter": 0.5,
        "auto_augment": "rand-m9",
        "random_erasing": 0.5,
        "mixup": 0.5,
        "cutmix": 0.5,
        "rungs": (1, 3),
        "restarts": True,
    }
    assert set(changed) | {"loader_workers", "grad_checkpointing"} == set(recipe.to_json())
    keys = {replace(recipe, **{name: value}).key for name, value in changed.items()}
    assert len(keys | {recipe.key}) == len(changed) + 1
    assert replace(recipe, loader_workers=3, grad_checkpointing=True).key == recipe.key


@pytest.mark.parametrize("name", ["channels_last", "tf32", "fused_optimizer", "compile"])
def test_later_switches_are_stored_and_in_the_key_only_if_they_are_on(name):
    recipe = Recipe(epochs=7)
    on = replace(recipe, **{name: True})
    assert name not in recipe.to_json() and on.to_json() == {**recipe.to_json(), name: True}
    assert Recipe.from_json(on.to_json()) == on
    assert replace(recipe, **{name: False}).key == recipe.key != on.key
    with pytest.raises(InputError, match=f"`{name}` of a recipe is true or false, but got 1"):
        Recipe.from_json({"epochs": 7, name: 1})


def test_fewer_epochs_shrink_the_warm_up():
    assert Recipe(epochs=10, warmup_epochs=2.5).with_changes(epochs=4).warmup_epochs == 1.0


def test_a_recipe_from_a_file(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("epochs: 3\nlr: 0.5\noptimizer_options: {nesterov: true}\n")
    assert Recipe.load(str(path)) == Recipe(
        epochs=3, lr=0.5, optimizer_options=(("nesterov", True),)
    )


def test_an_option_may_be_a_list():
    recipe = Recipe.from_json({"epochs": 3, "optimizer_options": {"betas": [0.5, 0.75]}})
    assert recipe.optimizer_options == (("betas", (0.5, 0.75)),)
    assert hash(recipe) == hash(Recipe.from_json(recipe.to_json()))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("lr: 0.5\n", "a recipe needs `epochs`"),
        ("epochs: 3\nspeed: 1\n", "a recipe has no field 'speed'; its fields are amp, "),
        ("epochs: 0\n", "`epochs` of a recipe is a number from 1 to 100000"),
        ("epochs: 2.5\n", "`epochs` of a recipe is a whole number"),
        ("epochs: 3\ngrad_checkpointing: 1\n", "recipe is true or false, but got 1"),
        ("epochs: 3\nrestarts: twice\n", "`restarts` of a recipe is true or false"),
        ("epochs: 3\nlr: fast\n", "`lr` of a recipe is a number from 0 to 1000, but got"),
        ("epochs: 3\nlr: .nan\n", "`lr` of a recipe is a number from 0 to 1000, but got"),
        ("epochs: 3\ninit: jax\n", "`init` of a recipe is one of timm, torch"),
        (
            "epochs: 3\nrungs: [0, 1]\n",
            r"`rungs` is \[0, 1\]; write ascending whole numbers .* 3 epochs",
        ),
        ("epochs: 3\nrungs: [1, 3]\n", r"`rungs` is \[1, 3\]; write ascending"),
        ("epochs: 3\nrungs: [2, 1]\n", r"`rungs` is \[2, 1\]; write ascending"),
        ("epochs: 3\nrungs: 1.5\n", r"`rungs` is \[1.5\]"),
        ("epochs: 3\nwarmup_epochs: 4\n", "`warmup_epochs` of a recipe is 4, more than"),
        ("epochs: 3\noptimizer_options: [a]\n", r"mapping of names to values, but got \['a'\]"),
        ("epochs: 3\noptimizer_options: {3: 4}\n", "optimizer_options: the key 3 is no text"),
        ("epochs: 3\noptimizer_options: {a: {b: 1}}\n", "mapping of names to plain values"),
        ("epochs: [3\n", "the document is not YAML of plain values"),
        ("- 3\n", r"a recipe is a mapping of its fields, but got \[3\]"),
    ],
)
def test_bad_recipes(text, rule, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=rule):
        Recipe.load(str(path))


def test_an_unknown_recipe():
    with pytest.raises(
        InputError,
        match="`recipe` is '.*', but there is no such file, and no recipe but digit-pairs",
    ):
        Recipe.load("imagenet")
