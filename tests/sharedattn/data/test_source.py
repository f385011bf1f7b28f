"""What says which data: read back from JSON, checked."""

import pytest

from sharedattn.data import DataConfig
from sharedattn.data.pixels import PixelChanges
from sharedattn.data.source import spread
from sharedattn.errors import InputError


@pytest.mark.parametrize(
    "config",
    [
        DataConfig(name="digit-pairs"),
        DataConfig(
            name="torch/cifar10",
            root="data",
            image_size=32,
            in_chans=1,
            val_fraction=0.25,
            split_seed=7,
        ),
        DataConfig(
            name="pets",
            reader=1,
            test_fraction=0.0,
            classes=("b", "a"),
            left_out=("train/a/1.png",),
            pixels=PixelChanges(mean=(0.5,), crop_mode="squash"),
        ),
    ],
)
def test_json_round_trip(config):
    assert DataConfig.from_json(config.to_json()) == config


def test_a_document_from_before_there_were_readers_is_of_reader_1():
    assert DataConfig.from_json({"name": "pets"}) == DataConfig(name="pets", reader=1)
    assert DataConfig.from_json({"name": "digit-pairs"}) == DataConfig(name="digit-pairs")


def test_fields_that_came_later_are_left_out_at_their_defaults():
    first = {"root", "image_size", "in_chans", "val_fraction", "split_seed"}
    assert set(DataConfig(name="digit-pairs").to_json()) == {"name", *first}
    assert set(DataConfig(name="pets").to_json()) == {"name", *first, "reader"}


@pytest.mark.parametrize(
    ("document", "rule"),
    [
        ({"name": "pets", "size": 32}, r"`data` has no field \['size'\]; known are"),
        (["pets"], r"`data` has no field \['pets'\]"),
        ({"root": "data"}, "`data` has no name"),
        ({"name": None}, "`name` of data is str, but got None"),
        ({"name": "pets", "root": 3}, r"`root` of data is str \| None, but got 3"),
        ({"name": "pets", "image_size": 32.5}, "`image_size` is 32.5; it is a whole number"),
        ({"name": "pets", "in_chans": True}, r"`in_chans` of data is int \| None, but got True"),
        ({"name": "pets", "val_fraction": "0.1"}, "`val_fraction` of data is float"),
        ({"name": "pets", "split_seed": None}, "`split_seed` of data is int, but got None"),
    ],
)
def test_bad_documents(document, rule):
    with pytest.raises(InputError, match=rule):
        DataConfig.from_json(document)


def test_some_of_many_are_evenly_spread():
    assert list(spread(7, None)) == list(spread(7, 7)) == list(spread(7, 9)) == list(range(7))
    assert list(spread(7, 3)) == [0, 2, 4]
    assert list(spread(7, 1)) == [0]
