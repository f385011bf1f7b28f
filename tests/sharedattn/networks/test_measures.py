"""Measures of maps and gates, by hand on tiny cases."""

import math

import numpy as np
import pytest
import torch

from sharedattn.mechanisms.broadcasting import broadcast_context
from sharedattn.mechanisms.less import diagonality
from sharedattn.networks.measures import (
    PooledCorrelation,
    broadcasting_entropy,
    correlation,
    cosine,
    diagonality_by_image,
    row_entropy,
)

B, W, H, N, M = 2, 3, 5, 7, 11


def random_maps(*sizes):
    return torch.softmax(torch.randn(sizes, generator=torch.Generator().manual_seed(0)), dim=-1)


def test_uniform_rows_have_entropy_1_and_one_hot_rows_0():
    uniform = torch.full((B, W, H, N, M), 1 / M)
    one_hot = torch.zeros(B, W, H, N, M)
    one_hot[..., 4] = 1
    torch.testing.assert_close(row_entropy(uniform), torch.ones(B).double())
    assert row_entropy(one_hot).tolist() == [0.0, 0.0]
    # Half of the queries each: the mean over queries, by image.
    mixed = torch.stack([uniform[:, :, :, 0], one_hot[:, :, :, 0]], dim=3)
    torch.testing.assert_close(row_entropy(mixed), torch.full((B,), 0.5).double())


def test_entropy_of_a_row_by_hand():
    # 1/2, 1/4, 1/4: 3/2 bits of the log2(3) that three keys could have.
    maps = torch.tensor([0.5, 0.25, 0.25]).expand(1, 1, 1, 1, 3)
    assert row_entropy(maps).item() == pytest.approx(1.5 / math.log2(3), abs=1e-12)
    # Without the first query and the first key, the rest of a row is one half each.
    maps = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.25, 0.25]]).expand(1, 1, 1, 2, 3)
    assert row_entropy(maps).item() == pytest.approx(0.75 / math.log2(3), abs=1e-12)
    without = row_entropy(maps, num_prefix_queries=1, num_prefix_keys=1)
    assert without.item() == pytest.approx(1.0, abs=1e-12)


def test_entropy_of_what_is_no_distribution_is_undefined():
    maps = random_maps(B, W, H, N, M)
    maps[1, 2, 3, 4] *= 1.5
    assert row_entropy(maps).isnan().tolist() == [False, True]
    negative = random_maps(B, W, H, N, M)
    negative[0, 0, 0, 0, :2] += torch.tensor([-2.0, 2.0])
    assert row_entropy(negative).isnan().tolist() == [True, False]
    assert row_entropy(torch.ones(B, W, H, N, 1)).isnan().all()


@pytest.mark.parametrize("num_left_out", [0, 1, 3])
def test_the_entropy_of_broadcasting_is_that_of_its_map(num_left_out):
    map_NN = broadcast_context(torch.eye(N, dtype=torch.float64).unsqueeze(0), num_left_out)
    torch.testing.assert_close(map_NN.sum(-1), torch.ones(1, N, dtype=torch.float64))
    found = row_entropy(map_NN.view(1, 1, 1, N, N)).item()
    assert broadcasting_entropy(N, num_left_out) == pytest.approx(found, abs=1e-12)


def test_entropy_of_broadcasting_over_the_tokens_of_deit():
    # 198/394 at itself and 1/394 at 196 others: 0.345788 + 2.973006 nats of ln 197 = 5.283204.
    assert broadcasting_entropy(197) == pytest.approx(0.628178, abs=1e-6)


def test_correlation_and_cosine_by_hand():
    one = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    other = torch.tensor([[5.0, 7.0, 9.0], [3.0, 2.0, 1.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    torch.testing.assert_close(
        correlation(one, other), torch.tensor([1.0, -1.0, -0.5, -0.5]).double()
    )
    torch.testing.assert_close(
        cosine(one, other),
        torch.tensor([46 / (14 * 155) ** 0.5, 10 / 14, 0.5, 0.0]).double(),
    )


def test_correlation_with_a_constant_is_undefined_whatever_its_rounding():
    varied = torch.rand(4, 13, generator=torch.Generator().manual_seed(1))
    constant = torch.tensor([[0.1], [0.25], [0.3], [0.7]]).expand(4, 13)
    assert correlation(varied, constant).isnan().all()
    assert correlation(constant, constant).isnan().all()
    torch.testing.assert_close(correlation(varied, varied), torch.ones(4).double())
    assert cosine(varied, torch.zeros(4, 13)).isnan().all()


def test_diagonality_of_each_image_is_that_of_the_loss():
    maps = random_maps(B, W, H, N, N)
    found = diagonality_by_image(maps)
    for image, value in zip(maps, found, strict=True):
        assert value.item() == pytest.approx(diagonality(image).item(), abs=1e-6)
    identity = torch.eye(N).expand(1, W, H, N, N)
    assert diagonality_by_image(identity).item() == pytest.approx(-(N - 1) / N, abs=1e-12)
    uniform = torch.full((1, W, H, N, N), 1 / N)
    assert diagonality_by_image(uniform).item() == pytest.approx(0.0, abs=1e-7)


def test_pooled_correlation_is_numpy_s_over_images_and_channels():
    x_BLC = torch.rand(13, 3, 5, generator=torch.Generator().manual_seed(2))
    x_BLC[:, 2] = 0.5 * x_BLC[:, 0] + 0.1 * x_BLC[:, 2]
    pooled = PooledCorrelation()
    for part in torch.split(x_BLC, 4):
        pooled.add(part)
    expected = np.corrcoef(x_BLC.double().transpose(0, 1).flatten(1).numpy())
    torch.testing.assert_close(pooled.result(), torch.from_numpy(expected))


def test_pooled_correlation_sees_a_constant_over_all_batches():
    x_BLC = torch.rand(6, 3, 5, generator=torch.Generator().manual_seed(3))
    x_BLC[:, 1] = 0.3
    x_BLC[:4, 2] = 0.3
    pooled = PooledCorrelation()
    pooled.add(x_BLC[:4])
    assert pooled.result()[2].isnan().all()
    pooled.add(x_BLC[4:])
    is_nan = pooled.result().isnan()
    assert is_nan[1].all() and is_nan[:, 1].all()
    assert not is_nan[0, 2] and not is_nan[2, 2]


def test_what_all_images_have_in_common_inflates_the_pooled_correlation():
    generator = torch.Generator().manual_seed(4)
    channels_C = torch.rand(17, generator=generator)
    x_BLC = channels_C + 0.1 * torch.randn(29, 2, 17, generator=generator)
    pooled = PooledCorrelation()
    pooled.add(x_BLC)
    centred = PooledCorrelation()
    centred.add(x_BLC - channels_C)
    assert pooled.result()[0, 1] > 0.8
    assert abs(centred.result()[0, 1]) < 0.2
