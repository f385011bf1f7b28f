"""What a training is made of, from the names that the command line gives."""

from __future__ import annotations

from dataclasses import replace

from search.config import DEFAULT_DATA
from sharedattn.backbones import describe
from sharedattn.data import DataConfig
from sharedattn.placement import BackboneSpec
from sharedattn.recipe import Recipe
from sharedattn.supernet import SupernetRecipe

GENERAL_RECIPE = "deit"


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
    name: str | None, data: str, epochs: int | None, *, from_weights: bool = False
) -> Recipe:
    """A recipe for some data.

    Args:
        name: a recipe's name or file; None: the data's own.
        data: name of the data.
        epochs: in place of the recipe's; None: as they are.
        from_weights: whether networks start from trained weights, for which the data's own recipe
            is another.

    Raises:
        InputError: no such recipe, or one with a value out of range.
    """
    recipe = Recipe.load(name or _own_recipe(data, from_weights))
    return recipe if epochs is None else recipe.with_changes(epochs=epochs)


def load_supernet_recipe(
    name: str | None, data: str, epochs: int | None, *, from_weights: bool = False
) -> SupernetRecipe:
    """A supernet's recipe for some data; arguments and errors as `load_recipe`."""
    recipe = SupernetRecipe.load(name or _own_recipe(data, from_weights))
    return recipe if epochs is None else recipe.with_epochs(epochs)


def _own_recipe(data: str, from_weights: bool) -> str:
    own = DEFAULT_DATA if data == DEFAULT_DATA else GENERAL_RECIPE
    return f"{own}-fine-tuning" if from_weights else own
