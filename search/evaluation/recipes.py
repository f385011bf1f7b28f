"""Training recipes by the names that the command line gives."""

from __future__ import annotations

from typing import Literal

from sharedattn.data import EMBEDDED
from sharedattn.recipe import Recipe
from sharedattn.supernet.trainer import SupernetRecipe

GENERAL_RECIPE = "deit"

Start = Literal["scratch", "supernet", "weights"]
"""What a network's training starts from: random weights, its share of the weights of a supernet
trained from scratch, or a trained model's weights, directly or through a supernet."""

_SUFFIXES: dict[Start, str] = {
    "scratch": "",
    "supernet": "-from-supernet",
    "weights": "-fine-tuning",
}


def load_recipe(
    name: str | None, data: str, epochs: int | None, *, start: Start = "scratch"
) -> Recipe:
    """Load a recipe for some data.

    Args:
        name: a recipe's name or file; defaults to the data's own.
        data: name of the data.
        epochs: number of epochs; defaults to the recipe's.
        start: what networks start from; the data has a recipe for each.

    Raises:
        InputError: no such recipe, or a value in it is out of range.
    """
    recipe = Recipe.load(name or _own_recipe(data, start))
    return recipe if epochs is None else recipe.with_changes(epochs=epochs)


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


def load_supernet_recipe(
    name: str | None, data: str, epochs: int | None, *, start: Start = "scratch"
) -> SupernetRecipe:
    """Load a supernet's recipe for some data; arguments and errors as in `load_recipe`."""
    recipe = SupernetRecipe.load(name or _own_recipe(data, start))
    return recipe if epochs is None else recipe.with_epochs(epochs)


def _own_recipe(data: str, start: Start) -> str:
    own = data if data in EMBEDDED else GENERAL_RECIPE
    return own + _SUFFIXES[start]
