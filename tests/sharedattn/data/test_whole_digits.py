"""The embedded data set of whole digits: real ones, resized, numbered."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from sharedattn.data import DataConfig, open_data
from sharedattn.data.digits import split_indices
from sharedattn.data.whole_digits import whole_digits
from sharedattn.errors import InputError
from sharedattn.recipe import Recipe

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data():
    return open_data(DataConfig(name="digits", task="denoise"))


def test_images_are_scikit_learns_resized_by_hand():
    raw = load_digits()
    numbers = split_indices(1797)["validation"]
    images, labels = whole_digits()["validation"]
    assert images.shape == (359, 1, 16, 16) and images.dtype == torch.float32
    assert labels.tolist() == raw.target[numbers].tolist()
    own = raw.images[numbers[3]] / 8.0 - 1.0
    drawn = images[3, 0].double().numpy()
    # Bilinear at twice the size: corners are kept, and a pixel between has 3/4 of the nearer one.
    assert drawn[0, 0] == pytest.approx(own[0, 0], abs=1e-6)
    by_hand = 0.75 * (0.75 * own[2, 4] + 0.25 * own[2, 5]) + 0.25 * (
        0.75 * own[3, 4] + 0.25 * own[3, 5]
    )
    assert drawn[5, 9] == pytest.approx(by_hand, abs=1e-6)
    assert images.min() == -1.0 and images.max() <= 1.0


def test_no_image_is_in_two_splits():
    parts = split_indices(1797)
    assert [len(part) for part in parts.values()] == [1078, 359, 360]
    assert np.unique(np.concatenate(list(parts.values()))).tolist() == list(range(1797))


def test_an_epoch_has_every_image_once_in_an_order_of_its_own(data):
    def numbers(seed, epoch):
        recipe = Recipe(epochs=3, batch_size=49)
        batches = data.train_batches(recipe, seed=seed, epoch=epoch, device=CPU)
        images, numbers = (torch.cat(parts) for parts in zip(*batches, strict=True))
        assert images.equal(whole_digits()["train"][0][numbers])
        return numbers

    first = numbers(0, 0)
    assert sorted(first.tolist()) == list(range(1078)) and first.equal(numbers(0, 0))
    assert not first.equal(numbers(0, 1)) and not first.equal(numbers(1, 0))


def test_an_evaluation_sees_each_image_with_four_noises(data):
    batches = list(data.eval_batches("test", batch_size=500, device=CPU))
    images, numbers = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert data.num_images("test") == len(images) == 4 * 360
    assert numbers.tolist() == list(range(1440))
    assert images[29].equal(images[31]) and images[29].equal(whole_digits()["test"][0][7])
    assert not images[28].equal(images[32])


def test_its_identity_and_its_task(data):
    assert (data.num_classes, data.in_chans, data.image_size.given) == (1, 1, 16)
    assert data.task == "denoise" and data.identity["noises"] == 4
    assert data.identity["transform"] == "bilinear, from -1 to 1"
    with pytest.raises(InputError, match="digits, which is to denoise, but this network is to cl"):
        DataConfig(name="digits")
    with pytest.raises(InputError, match="digit-pairs, whose images are labelled as a whole"):
        DataConfig(name="digit-pairs", task="denoise")
    with pytest.raises(InputError, match="images of 16x16 pixels and 1 channel"):
        open_data(DataConfig(name="digits", task="denoise", image_size=32))


def test_a_folder_of_its_name_is_told_apart(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="name other data$"):
        DataConfig(name="digits")
    (tmp_path / "digits").mkdir()
    with pytest.raises(InputError, match=r"name other data, or \./digits for the folder$"):
        DataConfig(name="digits")
    assert DataConfig(name="./digits").is_folder
