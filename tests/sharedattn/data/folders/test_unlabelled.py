"""Folders of images without labels: which images they are, their pixels and their numbers."""

import numpy as np
import pytest
import torch
from PIL import Image

from sharedattn.data import DataConfig, open_data
from sharedattn.errors import InputError
from sharedattn.recipe import RECIPES, Recipe
from sharedattn.training.tasks.diffusion import fixed_noise

CPU = torch.device("cpu")


def write(root, *names, size=(7, 7)):
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", size, 10 * number).save(path)
    return root


def opened(root, **more):
    config = {"image_size": 7, "in_chans": 1, "task": "denoise", **more}
    return open_data(DataConfig(name=str(root), **config))


def test_all_images_below_a_folder_count_and_splits_are_cut(tmp_path):
    names = [f"{folder}{i}.png" for folder in ("", "a/", "a/b/", "c/") for i in range(5)]
    data = opened(write(tmp_path, *names), val_fraction=0.2)
    assert [data.num_images(split) for split in ("train", "validation", "test")] == [12, 4, 4]
    assert (data.num_classes, data.class_names, data.class_counts("train")) == (1, None, None)
    assert data.task == "denoise" and data.cuts == {"validation", "test"}


def test_pixels_go_from_minus_1_to_1_and_targets_are_numbers(tmp_path):
    write(tmp_path / "train", *(f"{i}.png" for i in range(13)))
    write(tmp_path / "val/x", *(f"{i}.png" for i in range(3)))
    write(tmp_path / "test", "0.png")
    data = opened(tmp_path)
    [(images, numbers)] = data.eval_batches("validation", batch_size=4, device=CPU)
    assert numbers.tolist() == [0, 1, 2]
    for image, value in zip(images, (0, 10, 20), strict=True):
        torch.testing.assert_close(image, torch.full((1, 7, 7), value / 127.5 - 1))
    recipe = Recipe(epochs=1, batch_size=13, loader_workers=0)
    [(images, numbers)] = data.train_batches(recipe, seed=0, epoch=0, device=CPU)
    assert sorted(numbers.tolist()) == list(range(13)) != numbers.tolist()
    values = ((images[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()
    seen = dict(zip(numbers.tolist(), values, strict=True))
    files = sorted(f"{i}.png" for i in range(13))
    assert seen == {n: 10 * int(files[n].removesuffix(".png")) for n in range(13)}


def test_images_are_whole_but_for_what_is_not_of_the_networks_shape(tmp_path):
    pixels = np.zeros((14, 28), dtype=np.uint8)
    pixels[:, 7:21] = 255  # the middle, which alone is seen
    for i in range(9):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    data = opened(tmp_path)
    [(images, _)] = data.eval_batches("test", batch_size=4, device=CPU)
    assert images[:, :, :, 1:-1].min() == 1.0


def test_part_of_an_evaluation_has_the_noise_of_the_whole(tmp_path):
    write(tmp_path / "train", "a.png", "b.png")
    write(tmp_path / "val", *(f"{i}.png" for i in range(5)))
    data = opened(tmp_path, test_fraction=0.0)
    [(images, numbers)] = data.eval_batches("validation", batch_size=5, device=CPU)
    [(some, chosen)] = data.eval_batches("validation", batch_size=5, device=CPU, at_most=2)
    whole, steps = fixed_noise(images, numbers)
    part, own = fixed_noise(some, chosen)
    assert chosen.tolist() == [0, 2]
    assert part.equal(whole[chosen]) and own.equal(steps[chosen])


def test_what_a_generator_would_draw_is_refused(tmp_path):
    data = opened(write(tmp_path, *(f"{i}.png" for i in range(9))))
    for change in ({"mixup": 0.2}, {"random_erasing": 0.1}, {"auto_augment": "rand-m3"}):
        with pytest.raises(InputError, match=f"`{next(iter(change))}` of the recipe is"):
            data.check_recipe(Recipe(epochs=1, **change))
    data.check_recipe(RECIPES["small-denoise"])
    with pytest.raises(InputError, match="`--classes` orders classes"):
        opened(tmp_path, classes=("a", "b"))


def test_folders_that_are_ambiguous_are_refused(tmp_path):
    write(tmp_path / "one", "train/a.png", "other/b.png")
    with pytest.raises(InputError, match="images beside its splits, such as other"):
        opened(tmp_path / "one")
    write(tmp_path / "two", "val/a.png", "test/b.png")
    with pytest.raises(InputError, match="no training split; add a folder train/"):
        opened(tmp_path / "two")
    write(tmp_path / "three", "a.png", "b.png", "c.png")
    (tmp_path / "three/d.heic").write_bytes(b"x")
    with pytest.raises(InputError, match="d.heic"):
        opened(tmp_path / "three", val_fraction=0.34, test_fraction=0.0)
