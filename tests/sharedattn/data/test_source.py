"""What says which data: read back from JSON, checked."""

import pytest

from sharedattn.data import DataConfig
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
    ],
)
def test_json_round_trip(config):
    assert DataConfig.from_json(config.to_json()) == config


def test_fields_left_out_take_their_defaults():
    assert DataConfig.from_json({"name": "pets"}) == DataConfig(name="pets")


@pytest.mark.parametrize(
    ("document", "rule"),
    [
        ({"name": "pets", "size": 32}, r"data has fields of .* but got \['size'\]"),
        (["pets"], r"data has fields of .* but got \['pets'\]"),
        ({"root": "data"}, "data has a name"),
        ({"name": None}, "`name` of data is str, but got None"),
        ({"name": "pets", "root": 3}, r"`root` of data is str \| None, but got 3"),
        ({"name": "pets", "image_size": 32.5}, r"`image_size` of data is int \| None"),
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
