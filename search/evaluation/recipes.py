"""Training recipes by the names that the command line gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from sharedattn.data import EMBEDDED, DataSource
from sharedattn.recipe import RECIPES, Recipe
from sharedattn.supernet.trainer import SUPERNET_RECIPES, SupernetRecipe
from sharedattn.tasks import CLASSIFY

GENERAL_RECIPE = "deit"
SMALL_RECIPE = "small"
SMALL_IMAGE_SIZE = 64  # pixels on a side, at most, of images that have the small recipe
SMALL_NUM_IMAGES = 20_000  # training images, at most

Start = Literal["scratch", "supernet", "weights"]
"""What a network's training starts from: random weights, its share of the weights of a supernet
trained from scratch, or a trained model's weights, directly or through a supernet."""

_SUFFIXES: dict[Start, str] = {
    "scratch": "",
    "supernet": "-from-supernet",
    "weights": "-fine-tuning",
}


def recipe_for(
    name: str | None, source: DataSource, epochs: int | None, *, start: Start = "scratch"
) -> Recipe:
    """The recipe by which networks are trained on some data.

    Args:
        name: a recipe's name or file; defaults to the data's own, whose batches the images fill.
        source: the data.
        epochs: number of epochs; defaults to the recipe's.
        start: what networks start from; the data has a recipe for each.

    Raises:
        InputError: no such recipe, or a value in it is out of range.
    """
    if name is None:
        recipe = for_images(RECIPES[_own_name(source, start)], source.num_images("train"))
    else:
        recipe = Recipe.load(name)
    return recipe if epochs is None else recipe.with_changes(epochs=epochs)


def supernet_recipe_for(
    name: str | None, source: DataSource, epochs: int | None, *, start: Start = "scratch"
) -> SupernetRecipe:
    """The recipe by which a supernet is trained; arguments and errors as in `recipe_for`."""
    if name is None:
        recipe = SUPERNET_RECIPES[_own_name(source, start)]
        training = for_images(recipe.training, source.num_images("train"))
        recipe = replace(recipe, training=training)
    else:
        recipe = SupernetRecipe.load(name)
    return recipe if epochs is None else recipe.with_epochs(epochs)


def for_images(recipe: Recipe, num_images: int) -> Recipe:
    """A default recipe for few images: one whose batches they cannot fill gets smaller ones.

    Args:
        recipe: a recipe that the user did not choose.
        num_images: training images.

    Returns:
        The recipe, or one with batches of about a quarter of the images, an even number as mixing
        pairs them, and with the learning rate scaled as the batches are.
    """
    if recipe.batch_size <= num_images:
        return recipe
    batch_size = max(2, num_images // 8 * 2)
    return recipe.with_changes(
        batch_size=batch_size, lr=recipe.lr * batch_size / recipe.batch_size
    )


def for_start(recipe: Recipe, *, keeps_head: bool) -> Recipe:
    """A default recipe for a training from trained weights.

    Args:
        recipe: a recipe that the user did not choose.
        keeps_head: whether the trained model's own head is kept.

    Returns:
        The recipe; without distillation if the head is new, since a model that was not trained on
        the classes has little to teach about them.
    """
    return recipe if keeps_head else replace(recipe, distillation=0.0)


def _own_name(source: DataSource, start: Start) -> str:
    if source.task != CLASSIFY:
        # There is none for many or large images yet.
        own = f"{SMALL_RECIPE}-{source.task}"
    elif source.name in EMBEDDED:
        own = source.name
    else:
        own = SMALL_RECIPE if _is_small(source) else GENERAL_RECIPE
    return own + _SUFFIXES[start]


def _is_small(source: DataSource) -> bool:
    """Whether data has so few and small images that it has the small recipe."""
    return (
        max(source.image_size) <= SMALL_IMAGE_SIZE
        and source.num_images("train") <= SMALL_NUM_IMAGES
    )
