"""Which recipe data is trained by where none is named."""

from dataclasses import dataclass

import pytest

from sharedattn.image_size import ImageSize
from sharedattn.recipe import RECIPES
from sharedattn.search.evaluation.recipes import (
    for_images,
    for_start,
    recipe_for,
    supernet_recipe_for,
)
from sharedattn.supernet.trainer import SUPERNET_RECIPES


@dataclass(frozen=True)
class Source:
    """What the choice depends on of data."""

    name: str
    side: int = 64
    total: int = 20_000
    task: str = "classify"

    @property
    def image_size(self):
        return ImageSize(self.side, self.side)

    def num_images(self, split):
        assert split == "train"
        return self.total


COUNT = Source("digit-count", 16, 4480)


@pytest.mark.parametrize(
    ("source", "own"),
    [
        (Source("digit-pairs", 16, 4480), "digit-pairs"),
        (COUNT, "digit-count"),
        (Source("a/folder"), "small"),
        (Source("a/folder", 65), "deit"),
        (Source("a/folder", 64, 20_001), "deit"),
    ],
)
def test_data_has_recipes_of_its_own(source, own):
    assert recipe_for(None, source, None) == RECIPES[own]
    assert recipe_for(None, source, None, start="supernet") == RECIPES[f"{own}-from-supernet"]
    assert recipe_for(None, source, None, start="weights") == RECIPES[f"{own}-fine-tuning"]
    assert supernet_recipe_for(None, source, None) == SUPERNET_RECIPES[own]
    assert (
        supernet_recipe_for(None, source, None, start="weights")
        == SUPERNET_RECIPES[f"{own}-fine-tuning"]
    )


def test_a_name_and_epochs_go_before_the_datas_own():
    assert recipe_for("deit", COUNT, None) == RECIPES["deit"]
    # Half the epochs have half the warm-up.
    assert (recipe_for(None, COUNT, 8).epochs, RECIPES["digit-count"].epochs) == (8, 16)
    assert recipe_for(None, COUNT, 8).warmup_epochs == 0.25
    assert supernet_recipe_for("deit", COUNT, 7).training.epochs == 7


def test_a_new_head_teaches_nothing():
    recipe = recipe_for(None, Source("a/folder"), None, start="weights")
    assert recipe.distillation == 0.5
    assert for_start(recipe, keeps_head=True) == recipe
    without = for_start(recipe, keeps_head=False)
    assert without.distillation == 0 and without.key != recipe.key
    # Recipes from before distillation keep their keys.
    assert "distillation" not in without.to_json()


def test_few_images_have_smaller_batches_of_a_default_recipe_alone():
    few = Source("a/folder", 24, 40)
    assert recipe_for(None, few, None).batch_size == 10
    assert supernet_recipe_for(None, few, None).training.batch_size == 10
    assert recipe_for("small", few, None).batch_size == 100


@pytest.mark.parametrize(
    ("num_images", "batch_size"), [(256, 256), (255, 62), (200, 50), (43, 10), (5, 2)]
)
def test_a_default_recipe_suits_few_images(num_images, batch_size):
    recipe = RECIPES["deit"]
    fitted = for_images(recipe, num_images)
    assert fitted.batch_size == batch_size
    assert fitted.batch_size <= num_images
    assert fitted.batch_size % 2 == 0
    # The learning rate an image is the same.
    assert fitted.lr / fitted.batch_size == pytest.approx(recipe.lr / recipe.batch_size)
    assert (fitted == recipe) is (batch_size == recipe.batch_size)
