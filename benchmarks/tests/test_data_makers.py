"""The makers of data sets: splits, classes, and labels that are true of the pictures."""

import json

import data_makers
import numpy as np
import pytest
from data_makers import KINDS, Material, _parts_of_photographs, make
from PIL import Image
from sklearn.datasets import load_digits

NUM_CLASSES = {"clutter": 10, "pairs": 10, "textures": 4, "shapes": 4}


@pytest.fixture
def material():
    digits = load_digits()
    images = (digits.images * (255.0 / 16.0)).astype(np.uint8)
    return Material(images, digits.target, np.arange(0, 1797, 3), _parts_of_photographs(0.0, 0.7))


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_has_three_splits_and_is_made_again_alike(tmp_path, kind):
    for name in ("one", "other"):
        make(kind, tmp_path / name, 200, 26, seed=3)
    found = {}
    for split, count in (("train", 140), ("val", 30), ("test", 30)):
        files = sorted((tmp_path / "one" / split).glob("*/*.png"))
        assert len(files) == count
        found[split] = {file.parent.name for file in files}
        for file in files:
            with Image.open(file) as image:
                assert image.size == (26, 26)
            again = tmp_path / "other" / file.relative_to(tmp_path / "one")
            assert file.read_bytes() == again.read_bytes()
    assert len(found["train"]) == NUM_CLASSES[kind]
    with pytest.raises(SystemExit, match="is not empty"):
        make(kind, tmp_path / "one", 20, 26)


def test_splits_share_no_digit_and_no_part_of_a_photograph(tmp_path, monkeypatch):
    seen = []
    plain = data_makers.draw_clutter
    monkeypatch.setitem(
        KINDS, "clutter", lambda material, *rest: seen.append(material) or plain(material, *rest)
    )
    make("clutter", tmp_path / "made", 20, 24)
    train, val, test = (seen[i] for i in (0, 14, 17))
    assert sum(len(set(one.own)) for one in (train, val, test)) == 1797
    assert len({*train.own, *val.own, *test.own}) == 1797
    for number in range(2):
        widths = [one.photographs[number].shape[1] for one in (train, val, test)]
        whole = data_makers._photographs()[number]
        assert sum(widths) <= whole.shape[1]
        assert (test.photographs[number][:, 0] == whole[:, round(0.85 * whole.shape[1])]).all()


def test_pairs_are_labelled_by_the_larger_digit(material, monkeypatch):
    shown = []
    resized = data_makers._resized
    monkeypatch.setattr(
        data_makers, "_resized", lambda digit, side: shown.append(digit) or resized(digit, side)
    )
    for number in range(11):
        example = data_makers.draw_pair(material, number, 24, np.random.default_rng(number))
        one, other = (
            int(material.target[(material.images == digit).all(axis=(1, 2)).argmax()])
            for digit in shown
        )
        assert example.label == str(max(one, other)) == str(number % 10)
        shown.clear()


def test_textures_are_labelled_by_how_many_differ(material, monkeypatch):
    shown = []
    monkeypatch.setattr(
        data_makers,
        "_textured",
        lambda _, texture, side, rng: shown.append(texture) or np.zeros((side, side, 3)),
    )
    for number in range(13):
        example = data_makers.draw_textures(material, number, 24, np.random.default_rng(number))
        assert len(shown) == 4 and set(shown) <= set(range(12))
        assert example.label == str(len(set(shown))) == str(number % 4 + 1)
        shown.clear()


def test_shapes_are_labelled_by_how_many_are_of_the_coloured_ones_kind(material, monkeypatch):
    shown = []
    shape = data_makers._shape
    monkeypatch.setattr(
        data_makers, "_shape", lambda kind, *rest: shown.append(kind) or shape(kind, *rest)
    )
    for number in range(13):
        example = data_makers.draw_shapes(material, number, 24, np.random.default_rng(number))
        # The first is the coloured one.
        assert example.label == str(shown[1:].count(shown[0])) == str(number % 4)
        redness = example.picture[..., 0].astype(int) - example.picture[..., 2]
        assert redness.max() > 90
        shown.clear()


def test_masks_and_boxes_are_of_the_same_scenes(tmp_path):
    make("masks", tmp_path / "masks", 20, (32, 64), seed=3)
    make("boxes", tmp_path / "boxes", 20, (32, 64), seed=3)
    for split, count in (("train", 14), ("val", 3), ("test", 3)):
        file = tmp_path / "boxes" / "annotations" / f"instances_{split}.json"
        document = json.loads(file.read_text())
        assert len(document["images"]) == count
        for image in document["images"]:
            assert (image["height"], image["width"]) == (32, 64)
            places = ("masks/images", "masks/masks", "boxes")
            picture, mask, other = (
                np.asarray(Image.open(tmp_path / place / split / image["file_name"]))
                for place in places
            )
            assert np.array_equal(picture, other)
            own = [a for a in document["annotations"] if a["image_id"] == image["id"]]
            assert 1 <= len(own) <= 3
            labels = {1 + annotation["category_id"] for annotation in own}
            assert set(np.unique(mask)) == {0, 255, *labels}
            # The boxes hold every labelled pixel, and touch some at each side.
            inside = np.zeros_like(mask, dtype=bool)
            for annotation in own:
                x, y, width, height = annotation["bbox"]
                part = mask[y : y + height, x : x + width] == 1 + annotation["category_id"]
                inside[y : y + height, x : x + width] = True
                assert part[0].any() and part[-1].any()
                assert part[:, 0].any() and part[:, -1].any()
            assert not ((mask > 0) & (mask < 255) & ~inside).any()
    with pytest.raises(SystemExit, match="makes square pictures"):
        make("clutter", tmp_path / "clutter", 20, (32, 64))
