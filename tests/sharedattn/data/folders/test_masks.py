"""Folders of images and masks: layouts, classes, splits, and bad input."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scenes import HEIGHT, SPLITS, WIDTH, write_masks

from sharedattn.data import DataConfig, reopen_data
from sharedattn.data.folders.decode import ImageReadError
from sharedattn.errors import InputError
from sharedattn.recipe import Recipe
from sharedattn.search.data_plan import DataOptions, look_at

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_masks(tmp_path / "made")


def config(folder: Path, **changes: object) -> DataConfig:
    own = {"name": str(folder), "image_size": (HEIGHT, WIDTH), "task": "segment"}
    return DataConfig(**{**own, **changes})


def masks_of(data, split="validation") -> torch.Tensor:
    return torch.cat([masks for _, masks in data.eval_batches(split, batch_size=5, device=CPU)])


def test_images_and_masks_as_they_are(folder: Path) -> None:
    data = reopen_data(config(folder))
    assert data.class_names == ("background", "red", "blue")
    found = {split: data.num_images(split) for split in ("train", "validation", "test")}
    assert found == {"train": 23, "validation": 11, "test": 7}
    assert (data.task, data.num_classes, data.notes) == ("segment", 3, ())
    masks = masks_of(data)
    for number, mask in enumerate(masks):
        with Image.open(folder / "masks" / "val" / f"{number:03d}.png") as image:
            assert np.array_equal(mask.numpy(), np.asarray(image))
    assert DataConfig.from_json(data.config.to_json()) == data.config
    assert "task" not in DataConfig(name=str(folder)).to_json()


def test_without_names_classes_are_numbers(tmp_path: Path) -> None:
    folder = write_masks(tmp_path / "made", names=False)
    assert reopen_data(config(folder)).class_names == ("0", "1", "2")
    assert reopen_data(config(folder, classes=("a", "b", "c"))).class_names == ("a", "b", "c")


@pytest.mark.parametrize("masks", ["annotations", "labels"])
def test_layouts_of_others_and_missing_splits(tmp_path: Path, masks: str) -> None:
    folder = write_masks(tmp_path / "made", {"training": 23})
    (folder / "masks").rename(folder / masks)
    data = reopen_data(config(folder, val_fraction=0.2, test_fraction=0.1))
    found = [data.num_images(split) for split in ("train", "validation", "test")]
    assert found == [16, 5, 2]


def test_without_folders_of_splits_all_is_training_data(tmp_path: Path) -> None:
    folder = write_masks(tmp_path / "made", {"train": 23})
    for kind in ("images", "masks"):
        for path in (folder / kind / "train").iterdir():
            path.rename(folder / kind / path.name)
        (folder / kind / "train").rmdir()
    assert reopen_data(config(folder, test_fraction=0.0)).num_images("train") == 21


def test_resized_masks_have_no_new_labels_and_flips_go_together(folder: Path) -> None:
    data = reopen_data(config(folder, image_size=(11, 17)))
    assert set(masks_of(data).unique().tolist()) == {0, 1, 2}
    plain = Recipe(epochs=1, batch_size=23, loader_workers=0)
    images, masks = next(iter(data.train_batches(plain, seed=0, epoch=0, device=CPU)))
    flip = Recipe(epochs=1, batch_size=23, loader_workers=0, hflip=1.0)
    flipped, turned = next(iter(data.train_batches(flip, seed=0, epoch=0, device=CPU)))
    assert torch.equal(turned, masks.flip(-1)) and torch.equal(flipped, images.flip(-1))


def test_crops_take_the_same_part_of_image_and_mask(folder: Path) -> None:
    # The class of a pixel is its colour, so every crop shows whether the two still match.
    data = reopen_data(config(folder, pixels=config(folder).pixels))
    recipe = Recipe(epochs=1, batch_size=23, loader_workers=0, crop_scale_min=0.3)
    images, masks = next(iter(data.train_batches(recipe, seed=0, epoch=0, device=CPU)))
    red_less_blue = images[:, 0] - images[:, 2]
    means = [red_less_blue[masks == label].mean().item() for label in range(3)]
    assert means[1] > means[0] + 1.0 and means[2] < means[0] - 1.0
    whole = Recipe(epochs=1, batch_size=23, loader_workers=0)
    assert not torch.equal(
        masks, next(iter(data.train_batches(whole, seed=0, epoch=0, device=CPU)))[1]
    )


def test_batches_do_not_depend_on_workers(folder: Path) -> None:
    found = []
    for workers in (0, 1):
        recipe = Recipe(
            epochs=1,
            batch_size=7,
            loader_workers=workers,
            hflip=0.5,
            color_jitter=0.3,
            crop_scale_min=0.5,
        )
        batches = reopen_data(config(folder)).train_batches(recipe, seed=3, epoch=1, device=CPU)
        found.append(list(batches))
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])


def test_the_fingerprint_follows_masks(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    before = reopen_data(config(folder))
    assert reopen_data(config(copy)).fingerprint == before.fingerprint
    with Image.open(copy / "masks" / "train" / "003.png") as image:
        values = np.array(image)
    values[0, 0] = 2 - values[0, 0]
    Image.fromarray(values).save(copy / "masks" / "train" / "003.png")
    assert reopen_data(config(copy)).fingerprint != before.fingerprint


def change(folder: Path, path: str, made: Image.Image) -> None:
    made.save(folder / path)


def test_every_bad_mask_is_in_the_table_before_any_work(folder: Path) -> None:
    change(folder, "masks/train/001.png", Image.new("L", (WIDTH, HEIGHT), 3))
    change(folder, "masks/val/002.png", Image.new("L", (WIDTH - 1, HEIGHT)))
    change(folder, "masks/train/003.png", Image.new("RGB", (WIDTH, HEIGHT)))
    (folder / "masks/test/004.png").write_bytes(b"no picture")
    (folder / "masks/val/005.png").unlink()
    with pytest.raises(InputError) as caught:
        look_at(config(folder), DataOptions(), None)
    text = str(caught.value)
    assert "5 files cannot be used" in text
    assert "masks/train/001.png  has the label 3, but there are 3 classes" in text
    assert "masks/val/002.png  has 33 x 22 pixels (width x height), its image 34 x 22" in text
    assert "masks/train/003.png  is no mask of 8 bits" in text and "mode RGB" in text
    assert "masks/test/004.png  cannot identify image file" in text
    assert "images/val/005.png  has no mask in masks/" in text
    skipped = look_at(config(folder), DataOptions(on_bad_image="skip"), None)
    data = reopen_data(skipped)
    assert [data.num_images(s) for s in ("train", "validation", "test")] == [21, 9, 6]
    assert len(masks_of(data)) == 9


def test_a_mask_that_changes_later_is_named(folder: Path) -> None:
    data = reopen_data(config(folder))
    change(folder, "masks/val/002.png", Image.new("L", (WIDTH, HEIGHT), 9))
    with pytest.raises(ImageReadError, match="002.png: has the label 9, but there are 3 classes"):
        masks_of(data)
    change(folder, "masks/val/002.png", Image.new("L", (WIDTH + 1, HEIGHT)))
    with pytest.raises(ImageReadError, match="image 2 of validation has 34 x 22 pixels"):
        masks_of(reopen_data(config(folder)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "digit-count"}, "is digit-count, whose images are labelled as a whole.* masks"),
        ({"name": "nowhere"}, "'nowhere' is no folder here; to segment, name one that holds"),
        ({"task": "sing"}, "`task` of data is 'sing'; it is one of classify"),
        ({"reader": 1}, "whose images are labelled as a whole"),
        ({"classes": ("one",)}, "has 1 class; at least two"),
    ],
)
def test_data_that_does_not_serve(folder: Path, changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        reopen_data(config(folder, **changes))


def test_folders_of_another_layout(folder: Path, tmp_path: Path) -> None:
    (folder / "masks").rename(folder / "elsewhere")
    with pytest.raises(InputError, match="has elsewhere, images; to segment, it is to hold"):
        reopen_data(config(folder))
    (folder / "elsewhere").rename(folder / "masks")
    shutil.copytree(folder / "masks", folder / "labels")
    with pytest.raises(InputError, match="with one folder masks or annotations or labels"):
        reopen_data(config(folder))
    shutil.rmtree(folder / "labels")
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "images" / "loose.png")
    with pytest.raises(InputError, match="images beside its splits, such as images/loose.png"):
        reopen_data(config(folder))


@pytest.mark.parametrize(
    "changes",
    [{"mixup": 0.2}, {"cutmix": 1.0}, {"random_erasing": 0.1}, {"auto_augment": "rand-m9"}],
)
def test_augmentation_that_leaves_masks_behind_is_refused(folder: Path, changes: dict) -> None:
    [name] = changes
    with pytest.raises(InputError, match=f"`{name}` of the recipe is .* without their masks"):
        reopen_data(config(folder)).check_recipe(Recipe(epochs=1, **changes))
    assert sum(SPLITS.values()) == 41
