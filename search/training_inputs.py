"""What a training is made of, from the names that the command line gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from search.config import DEFAULT_DATA
from sharedattn.backbones import describe
from sharedattn.data import DataConfig
from sharedattn.placement import BackboneSpec
from sharedattn.recipe import Recipe
from sharedattn.supernet import SupernetRecipe

GENERAL_RECIPE = "deit"

Start = Literal["scratch", "supernet", "weights"]
"""What a network's training starts from: its initialisation, its share of the weights of a
supernet that was trained from scratch, or a trained model's, through a supernet or not."""

_SUFFIXES: dict[Start, str] = {
    "scratch": "",
    "supernet": "-from-supernet",
    "weights": "-fine-tuning",
}


def data_for(
    backbone: BackboneSpec, name: str, root: str | None, val_fraction: float | None = None
) -> DataConfig:
    """Data by its name, at the size and with the channels that a backbone takes.

    Args:
        backbone: what will look at it.
        name: `digit-pairs`, a folder, or a name that timm opens.
        root: folder that holds a named data set.
        val_fraction: share of train that is cut off where there is no validation; None: a tenth.
    """
    config = DataConfig(
        name=name,
        root=root,
        image_size=describe(backbone).image_size,
        in_chans=backbone.in_chans,
    )
    return config if val_fraction is None else replace(config, val_fraction=val_fraction)


def load_recipe(
    name: str | None, data: str, epochs: int | None, *, start: Start = "scratch"
) -> Recipe:
    """A recipe for some data.

    Args:
        name: a recipe's name or file; None: the data's own.
        data: name of the data.
        epochs: in place of the recipe's; None: as they are.
        start: what networks start from; for each the data has a recipe of its own.

    Raises:
        InputError: no such recipe, or one with a value out of range.
    """
    recipe = Recipe.load(name or _own_recipe(data, start))
    return recipe if epochs is None else recipe.with_changes(epochs=epochs)


def load_supernet_recipe(
    name: str | None, data: str, epochs: int | None, *, start: Start = "scratch"
) -> SupernetRecipe:
    """A supernet's recipe for some data; arguments and errors as `load_recipe`."""
    recipe = SupernetRecipe.load(name or _own_recipe(data, start))
    return recipe if epochs is None else recipe.with_epochs(epochs)


def _own_recipe(data: str, start: Start) -> str:
    own = DEFAULT_DATA if data == DEFAULT_DATA else GENERAL_RECIPE
    return own + _SUFFIXES[start]
