"""The second embedded data set: real digits, labels recounted from them, exact balance."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from sharedattn.data import DataConfig, open_data
from sharedattn.data.digit_count import DigitCount, draw_counts
from sharedattn.data.digits import digit_splits
from sharedattn.distributed import ALONE, Rank
from sharedattn.errors import InputError
from sharedattn.recipe import Recipe

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=1, batch_size=64)


@pytest.fixture(scope="module")
def data():
    return open_data(DataConfig(name="digit-count"))


def cells_of(images):
    """The cells of each canvas, (n, 4, 8, 8), pixel by pixel."""
    n = len(images)
    cells = np.empty((n, 4, 8, 8), dtype=np.float32)
    for cell, (top, left) in enumerate(itertools.product((0, 8), (0, 8))):
        cells[:, cell] = images.numpy()[:, 0, top : top + 8, left : left + 8]
    return cells


def digits_of(images):
    """Number and digit of each image of scikit-learn's on each canvas, found by its pixels."""
    raw = load_digits()
    by_pixels = {
        image.astype(np.uint8).tobytes(): (i, int(digit))
        for i, (image, digit) in enumerate(zip(raw.images, raw.target, strict=True))
    }
    cells = cells_of(images)
    background, peak = cells.min(), cells.max()
    pixels = np.rint((cells - background) / (peak - background) * 16).astype(np.uint8)
    return [[by_pixels[cell.tobytes()] for cell in canvas] for canvas in pixels]


def all_of(batches):
    return [torch.cat(parts) for parts in zip(*batches, strict=True)]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_the_label_is_the_number_of_different_digits(split):
    images, labels = draw_counts(split, 401, np.random.default_rng(3))
    assert images.shape == (401, 1, 16, 16)
    assert images.dtype == torch.float32 and labels.dtype == torch.int64
    for canvas, label in zip(digits_of(images), labels.tolist(), strict=True):
        assert len({digit for _, digit in canvas}) == label + 1
        assert len({number for number, _ in canvas}) == 4


def test_a_canvas_made_by_hand_has_the_label_that_is_counted_on_it():
    # The first canvases of this seed, read off them once.
    images, labels = draw_counts("validation", 4, np.random.default_rng(0))
    digits = [[digit for _, digit in canvas] for canvas in digits_of(images)]
    assert (digits, labels.tolist()) == (FROZEN_DIGITS, FROZEN_LABELS)


FROZEN_DIGITS = [[6, 0, 6, 7], [0, 0, 0, 0], [3, 3, 8, 8], [4, 6, 0, 7]]
FROZEN_LABELS = [2, 0, 1, 3]


def test_classes_are_balanced_exactly(data):
    assert data.num_classes == 4
    for split in ("validation", "test"):
        _, labels = all_of(data.eval_batches(split, batch_size=501, device=CPU))
        assert Counter(labels.tolist()) == {0: 1000, 1: 1000, 2: 1000, 3: 1000}
        assert data.class_counts(split) == (1000,) * 4
    _, labels = draw_counts("train", 4480, np.random.default_rng(1))
    assert Counter(labels.tolist()) == dict.fromkeys(range(4), 1120)
    assert data.class_counts("train") == (1120,) * 4
    _, labels = draw_counts("train", 7, np.random.default_rng(1))
    assert Counter(labels.tolist()) == {0: 2, 1: 2, 2: 2, 3: 1}


def test_neither_a_cell_nor_a_digit_tells_the_label():
    images, labels = draw_counts("train", 8000, np.random.default_rng(5))
    digits = np.array([[digit for _, digit in canvas] for canvas in digits_of(images)])
    for label in range(4):
        of_label = digits[labels.numpy() == label]
        for cell in range(4):
            counts = np.bincount(of_label[:, cell], minlength=10)
            # 200 of each expected, of 2,000 draws of a tenth: a standard deviation of 13.4.
            assert abs(counts - 200).max() < 60
    # Two different digits are parted 3 + 1 or 2 + 2, each in a half of the draws: of the pairs of
    # cells 1/2 are equal in the one, 1/3 in the other, whichever cells they are.
    two = digits[labels.numpy() == 1]
    shares = [
        (two[:, one] == two[:, other]).mean() for one, other in itertools.combinations(range(4), 2)
    ]
    assert np.allclose(shares, np.mean(shares), atol=0.05)
    assert np.mean(shares) == pytest.approx((1 / 2 + 1 / 3) / 2, abs=0.02)


def test_no_image_is_in_two_splits():
    rng = np.random.default_rng(7)
    used = {
        split: {
            number
            for canvas in digits_of(draw_counts(split, 1500, rng)[0])
            for number, _ in canvas
        }
        for split in ("train", "validation", "test")
    }
    for one, other in itertools.combinations(used.values(), 2):
        assert not one & other
    # 60/20/20 of 1,797; 6,000 draws reach nearly all images.
    assert 1060 <= len(used["train"]) <= 1078
    assert 355 <= len(used["validation"]) <= 359
    assert 355 <= len(used["test"]) <= 360
    assert [len(digit_splits()[split].labels) for split in used] == [1078, 359, 360]


def test_training_images_are_standardised():
    images, _ = draw_counts("train", 4000, np.random.default_rng(11))
    assert abs(images.mean()) < 0.02
    assert abs(images.std() - 1.0) < 0.02


def test_epochs_differ_and_equal_seeds_are_equal(data):
    def epoch(seed, number):
        return all_of(data.train_batches(RECIPE, seed=seed, epoch=number, device=CPU))

    first, again, later, other = epoch(1, 0), epoch(1, 0), epoch(1, 1), epoch(2, 0)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], later[0])
    assert not torch.equal(first[0], other[0])
    assert len(first[1]) == data.num_images("train") == 4480


def test_evaluation_images_are_fixed(data):
    for split in ("validation", "test"):
        images, labels = all_of(data.eval_batches(split, batch_size=501, device=CPU))
        fresh = DigitCount(DataConfig(name="digit-count"))
        again = next(iter(fresh.eval_batches(split, batch_size=4000, device=CPU)))
        assert len(labels) == data.num_images(split) == 4000
        assert torch.equal(images, again[0]) and torch.equal(labels, again[1])
        some = list(data.eval_batches(split, batch_size=2, device=CPU, at_most=3))
        assert [len(labels) for _, labels in some] == [2, 1]
        assert torch.equal(torch.cat([part for part, _ in some]), images[[0, 1333, 2666]])


def test_processes_share_the_very_batches_of_one(data):
    whole = list(data.train_batches(RECIPE, seed=1, epoch=0, device=CPU, rank=ALONE))
    for index in range(2):
        rank = Rank(index, 2)
        parts = data.train_batches(RECIPE, seed=1, epoch=0, device=CPU, rank=rank)
        for batch, part in zip(whole, parts, strict=True):
            for every, own in zip(batch, part, strict=True):
                assert torch.equal(own, every[rank.shard_positions(RECIPE.batch_size)])


def test_the_fingerprint_is_what_it_was():
    assert DigitCount(DataConfig(name="digit-count")).fingerprint == FINGERPRINT


FINGERPRINT = "71714c2ffbf62a818bdc6616dae240e8ea9ebf280f9fba8ce7c02eb6cc7a6be7"


@pytest.mark.parametrize("wrong", [{"image_size": 32}, {"in_chans": 3}])
def test_another_size_is_refused(wrong):
    with pytest.raises(InputError, match="digit-count has images of 16x16 pixels and 1 channel"):
        open_data(DataConfig(name="digit-count", **wrong))


def test_what_is_of_data_on_disk_is_refused():
    with pytest.raises(
        InputError, match="`--data-root` is 'somewhere', but digit-count is embedded"
    ):
        open_data(DataConfig(name="digit-count", root="somewhere"))
    with pytest.raises(InputError, match="--test-split: digit-count has its own splits"):
        open_data(DataConfig(name="digit-count", test_fraction=0.1))
