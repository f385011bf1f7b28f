"""The embedded data: real digits, no image in two splits, balanced labels, fixed evaluation."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from sharedattn.data import DataConfig, open_data
from sharedattn.data.digit_pairs import DigitPairs, draw_pairs
from sharedattn.distributed import ALONE, Rank
from sharedattn.errors import InputError
from sharedattn.recipe import Recipe

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=1, batch_size=64)


@pytest.fixture(scope="module")
def data():
    return open_data(DataConfig(name="digit-pairs"))


def digits_of(images, labels):
    """The two digits of each canvas, as raw 8x8 images of scikit-learn's, with their labels."""
    raw = load_digits()
    by_pixels = {
        image.astype(np.uint8).tobytes(): (i, digit)
        for i, (image, digit) in enumerate(zip(raw.images, raw.target, strict=True))
    }
    cells = images.numpy().reshape(-1, 2, 8, 2, 8).transpose(0, 1, 3, 2, 4).reshape(-1, 4, 8, 8)
    background, peak = cells.min(), cells.max()
    pixels = np.rint((cells - background) / (peak - background) * 16).astype(np.uint8)
    for canvas in pixels:
        yield [by_pixels[cell.tobytes()] for cell in canvas if cell.any()]


def test_an_example_is_two_real_digits_and_the_label_says_whether_they_are_equal():
    images, labels = draw_pairs("train", 101, np.random.default_rng(3))
    assert images.shape == (101, 1, 16, 16)
    assert images.dtype == torch.float32
    assert labels.sum() == 50
    for pair, label in zip(digits_of(images, labels), labels, strict=True):
        assert len(pair) == 2
        (one, digit_one), (two, digit_two) = pair
        assert one != two
        assert (digit_one == digit_two) == bool(label)


def test_no_image_is_in_two_splits():
    rng = np.random.default_rng(5)
    used = {
        split: {i for pair in digits_of(*draw_pairs(split, 1500, rng)) for i, _ in pair}
        for split in ("train", "validation", "test")
    }
    for one, other in itertools.combinations(used.values(), 2):
        assert not one & other
    # 60/20/20 of 1,797; 3,000 draws reach nearly all images of the small splits.
    assert len(used["train"]) <= 1078
    assert 340 <= len(used["validation"]) <= 359
    assert 340 <= len(used["test"]) <= 360


def test_every_pair_of_cells_is_used():
    images, _ = draw_pairs("validation", 2000, np.random.default_rng(7))
    cells = images.reshape(-1, 2, 8, 2, 8).permute(0, 1, 3, 2, 4).reshape(-1, 4, 64)
    filled = (cells > cells.min()).any(-1)
    patterns = {tuple(row.tolist()) for row in filled}
    assert len(patterns) == 6
    assert filled.sum(1).eq(2).all()


def test_training_pairs_are_standardised_where_there_is_a_digit():
    images, _ = draw_pairs("train", 4000, np.random.default_rng(11))
    cells = images.reshape(-1, 2, 8, 2, 8).permute(0, 1, 3, 2, 4).reshape(-1, 64)
    digits = cells[(cells > cells.min()).any(-1)]
    assert abs(digits.mean()) < 0.02
    assert abs(digits.std() - 1.0) < 0.02


def test_epochs_differ_and_equal_seeds_are_equal(data):
    def epoch(seed, number):
        return [
            torch.cat(parts)
            for parts in zip(
                *data.train_batches(RECIPE, seed=seed, epoch=number, device=CPU), strict=True
            )
        ]

    first, again, later, other = epoch(1, 0), epoch(1, 0), epoch(1, 1), epoch(2, 0)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], later[0])
    assert not torch.equal(first[0], other[0])
    assert len(first[1]) == 4480


def test_evaluation_pairs_are_fixed_and_balanced(data):
    for split in ("validation", "test"):
        images, labels = (
            torch.cat(parts)
            for parts in zip(*data.eval_batches(split, batch_size=501, device=CPU), strict=True)
        )
        again = next(iter(data.eval_batches(split, batch_size=4000, device=CPU)))
        assert len(labels) == data.num_images(split) == 4000
        assert labels.sum() == 2000
        assert torch.equal(images, again[0])
        some = list(data.eval_batches(split, batch_size=2, device=CPU, at_most=3))
        assert [len(labels) for _, labels in some] == [2, 1]
        assert torch.equal(torch.cat([part for part, _ in some]), images[[0, 1333, 2666]])


def test_processes_share_the_very_batches_of_one(data):
    ranks = [Rank(index, 2) for index in range(2)]

    def train(rank):
        return list(data.train_batches(RECIPE, seed=1, epoch=0, device=CPU, rank=rank))

    def evaluated(rank):
        return list(data.eval_batches("validation", batch_size=900, device=CPU, rank=rank))

    whole, evaluated_whole = train(ALONE), evaluated(ALONE)
    assert len(whole) == 4480 // RECIPE.batch_size and len(evaluated_whole) == 5
    for rank in ranks:
        for batch, part in zip(whole, train(rank), strict=True):
            for every, own in zip(batch, part, strict=True):
                assert torch.equal(own, every[rank.shard_positions(RECIPE.batch_size)])
        turns = evaluated_whole[rank.index :: 2]
        for batch, own_batch in zip(turns, evaluated(rank), strict=True):
            assert all(map(torch.equal, batch, own_batch))


def test_the_fingerprint_says_what_the_data_is(data):
    assert data.fingerprint == DigitPairs(DataConfig(name="digit-pairs")).fingerprint
    assert len(data.fingerprint) == 64


@pytest.mark.parametrize("wrong", [{"image_size": 32}, {"in_chans": 3}])
def test_another_size_is_refused(wrong):
    with pytest.raises(InputError, match="digit-pairs has images of 16x16 pixels and 1 channel"):
        open_data(DataConfig(name="digit-pairs", **wrong))


def test_a_root_is_refused():
    with pytest.raises(
        InputError, match="`--data-root` is 'somewhere', but digit-pairs is embedded"
    ):
        open_data(DataConfig(name="digit-pairs", root="somewhere"))
