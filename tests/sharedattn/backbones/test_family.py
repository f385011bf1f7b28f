"""What families share in reading a model: ratios, grids, numbers of stages."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sharedattn.backbones.family import mlp_ratio, per_stage
from sharedattn.errors import InputError
from sharedattn.networks.part_sizes import conv_grid


@pytest.mark.parametrize(
    ("embed_dim", "hidden_dim", "shortest"),
    [(64, 512, 8.0), (22, 33, 1.5), (13, 17, 1.31), (7, 5, 0.8), (1, 3, 3.0)],
)
def test_the_shortest_ratio(embed_dim: int, hidden_dim: int, shortest: float) -> None:
    assert mlp_ratio((embed_dim, hidden_dim)) == shortest


def test_every_ratio_gives_its_hidden_channels() -> None:
    # 29 / 100 is 0.29, and 100 * 0.29 is 28.999999999999996: it must be another decimal.
    assert int(100 * (29 / 100)) == 28
    for embed_dim in (6, 65, 100, 192, 768):
        for hidden_dim in range(1, 4 * embed_dim, 7):
            ratio = mlp_ratio((embed_dim, hidden_dim))
            assert int(embed_dim * float(f"{ratio:g}")) == hidden_dim
    assert int(100 * mlp_ratio((100, 29))) == 29


def test_one_ratio_of_several_widths() -> None:
    # From 2 to 2 + 1 / 96, and from 2 + 1 / 384 to 2 + 2 / 384.
    assert mlp_ratio((96, 192)) == 2.0
    assert mlp_ratio((96, 192), (192, 384), (384, 769)) == 2.003
    with pytest.raises(InputError, match="96 to 96, 192 to 1 channels, by no one ratio; raise"):
        mlp_ratio((96, 96), (192, 1))


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(7, 4, 3), (3, 2, 1), (4, 4, 0)])
def test_the_grid_that_a_convolution_leaves(kernel: int, stride: int, padding: int) -> None:
    conv = nn.Conv2d(1, 1, kernel, stride, padding)
    for grid in ((11, 17), (12, 19), (13, 23)):
        assert conv_grid(grid, conv) == tuple(conv(torch.zeros(1, 1, *grid)).shape[2:])


def test_numbers_of_stages() -> None:
    whole = per_stage(lambda numbers: numbers)
    assert whole.per_stage and whole.read((2, 13)) == "2-13"
    assert whole.to_argument("2-13") == (2, 13)
    fractions = per_stage(lambda numbers: numbers, whole=False)
    assert fractions.read((1.5, 4)) == "1.5-4" and fractions.to_argument("1.5-4") == (1.5, 4.0)
    with pytest.raises(ValueError, match="'1.5-4' is not one whole number above 0 per stage"):
        whole.to_argument("1.5-4")
    with pytest.raises(ValueError, match="'1.5--4' is not one number above 0 per stage"):
        fractions.to_argument("1.5--4")
    with pytest.raises(ValueError, match="'2-14' has a number above 13"):
        per_stage(lambda numbers: numbers, most=13).to_argument("2-14")


@pytest.mark.parametrize(
    ("numbers", "value"),
    [((7,), 7), ((1.5,), 1.5), ((0.00001, 8.0), "0.00001-8"), ((1000000, 20), "1000000-20")],
)
def test_numbers_of_stages_as_they_are_written(
    numbers: tuple[float, ...], value: float | str
) -> None:
    rule = per_stage(lambda numbers: numbers, whole=False)
    shown = rule.read(numbers)
    assert (shown, type(shown)) == (value, type(value))
    assert rule.to_argument(value) == numbers
