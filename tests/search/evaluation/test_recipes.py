"""Which recipe data is trained by where none is named."""

import pytest

from sharedattn.recipe import RECIPES
from sharedattn.search.evaluation.recipes import for_images, load_recipe, load_supernet_recipe
from sharedattn.supernet.trainer import SUPERNET_RECIPES


@pytest.mark.parametrize(
    ("data", "own"),
    [("digit-pairs", "digit-pairs"), ("digit-count", "digit-count"), ("a/folder", "deit")],
)
def test_embedded_data_has_recipes_of_its_own(data, own):
    assert load_recipe(None, data, None) == RECIPES[own]
    assert load_recipe(None, data, None, start="supernet") == RECIPES[f"{own}-from-supernet"]
    assert load_recipe(None, data, None, start="weights") == RECIPES[f"{own}-fine-tuning"]
    assert load_supernet_recipe(None, data, None) == SUPERNET_RECIPES[own]
    assert (
        load_supernet_recipe(None, data, None, start="weights")
        == SUPERNET_RECIPES[f"{own}-fine-tuning"]
    )


def test_a_name_and_epochs_go_before_the_datas_own():
    assert load_recipe("deit", "digit-count", None) == RECIPES["deit"]
    # Half the epochs have half the warm-up.
    assert (load_recipe(None, "digit-count", 8).epochs, RECIPES["digit-count"].epochs) == (8, 16)
    assert load_recipe(None, "digit-count", 8).warmup_epochs == 0.25


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
