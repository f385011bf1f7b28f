"""Window attention against timm's blocks, and its scores through the maps of less attention."""

from __future__ import annotations

import itertools

import pytest
import torch
from timm.models.swin_transformer import (
    SwinTransformerBlock,
    get_relative_position_index,
    window_partition,
)
from torch import Tensor, nn

from sharedattn.mechanisms.less import TokenMaps
from sharedattn.mechanisms.windows import (
    WindowAttention,
    Windows,
    position_params,
    relative_position_index,
)

B, D, H = 3, 10, 2
WINDOWS = [
    Windows((5, 11), (5, 11), (0, 0)),
    Windows((10, 9), (5, 3), (0, 0)),
    Windows((10, 9), (5, 3), (2, 1)),
    Windows((7, 11), (3, 5), (0, 0)),  # padding
    Windows((7, 11), (3, 5), (1, 2)),
    Windows((5, 11), (5, 3), (0, 1)),  # one window high, no shift that way
    Windows((3, 2), (2, 2), (1, 0)),
]
SHIFTED = [windows for windows in WINDOWS if any(windows.shift)]


def timm_block(windows: Windows) -> SwinTransformerBlock:
    block = SwinTransformerBlock(
        D, windows.grid, num_heads=H, window_size=windows.size, shift_size=windows.shift
    )
    assert (block.window_size, block.shift_size) == (windows.size, windows.shift)
    for parameter in block.attn.parameters():
        nn.init.normal_(parameter, std=0.3)
    return block


def attention_of(block: SwinTransformerBlock, windows: Windows, **kwargs: bool) -> WindowAttention:
    attn = block.attn
    table = attn.relative_position_bias_table
    return WindowAttention(attn.qkv, attn.proj, table, windows, **kwargs)


def tokens_of(windows: Windows) -> Tensor:
    Y, X = windows.grid
    return torch.randn(B, Y * X, D)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("windows", WINDOWS)
def test_equals_timms_attention(windows: Windows, fused: bool) -> None:
    block = timm_block(windows)
    attention = attention_of(block, windows, fused=fused)
    x = tokens_of(windows)
    out, maps = attention(*attention.scores_and_values(x))
    expected = block._attn(x.view(B, *windows.grid, D)).flatten(1, 2)
    torch.testing.assert_close(out, expected)
    assert maps is None
    out, maps = attention(*attention.scores_and_values(x), with_maps=True)
    torch.testing.assert_close(out, expected)
    W, M = windows.num_windows, windows.num_tokens
    assert maps.shape == (B * W, H, M, M)
    torch.testing.assert_close(maps.sum(-1), torch.ones(B * W, H, M))


@pytest.mark.parametrize("windows", WINDOWS)
def test_windows_join_to_what_was_partitioned(windows: Windows) -> None:
    x = tokens_of(windows)
    parts = windows.partition(x)
    assert parts.shape == (B * windows.num_windows, windows.num_tokens, D)
    assert torch.equal(windows.join(parts), x)


def test_windows_by_hand() -> None:
    # Rows 0 to 2 of columns 0 and 1, rolled by one both ways: row 1, column 1 comes first.
    windows = Windows((3, 2), (2, 2), (1, 1))
    assert (windows.counts, windows.num_windows, windows.num_tokens) == ((2, 1), 2, 4)
    parts = windows.partition(torch.arange(1.0, 7).view(1, 6, 1)).squeeze(-1)
    assert parts.tolist() == [[4, 3, 6, 5], [2, 1, 0, 0]]


def test_padding_in_both_directions_is_timms() -> None:
    windows = Windows((7, 11), (3, 5), (0, 0))
    x = tokens_of(windows)
    padded = nn.functional.pad(x.view(B, 7, 11, D), (0, 0, 0, 4, 0, 2))
    expected = window_partition(padded, (3, 5)).flatten(1, 2)
    assert torch.equal(windows.partition(x), expected)


@pytest.mark.parametrize("windows", SHIFTED)
def test_the_mask_forbids_what_timms_mask_forbids(windows: Windows) -> None:
    timms = timm_block(windows).attn_mask
    mask = windows.mask()
    assert torch.equal(mask == -torch.inf, timms == -100) and timms.any()
    assert torch.equal(mask == 0, timms == 0)


def test_the_mask_forbids_pairs_beyond_a_windows_reach() -> None:
    windows = Windows((10, 9), (5, 3), (2, 1))
    y, x = torch.meshgrid(torch.arange(10), torch.arange(9), indexing="ij")
    place = torch.stack([y, x], -1).view(1, 90, 2)
    place_WM2 = windows.partition(place)
    apart = (place_WM2[:, :, None] - place_WM2[:, None]).abs() >= torch.tensor([5, 3])
    assert torch.equal(windows.mask() < 0, apart.any(-1))


def test_without_a_shift_there_is_no_mask() -> None:
    assert Windows((7, 11), (3, 5), (0, 0)).mask() is None


def test_relative_positions() -> None:
    index = relative_position_index((3, 5))
    assert torch.equal(index, get_relative_position_index(3, 5))
    # Two rows of two: a token to itself is the middle of the 3 x 3 differences.
    assert relative_position_index((2, 2)).tolist() == [
        [4, 3, 1, 0],
        [5, 4, 2, 1],
        [7, 6, 4, 3],
        [8, 7, 5, 4],
    ]


@pytest.mark.parametrize("windows", SHIFTED)
def test_values_alone(windows: Windows) -> None:
    block = timm_block(windows)
    shared = attention_of(block, windows)
    alone = attention_of(block, windows, own_scores=False)
    x = tokens_of(windows)
    v = shared.scores_and_values(x)[1]
    torch.testing.assert_close(shared.values(x), v)
    torch.testing.assert_close(alone.values(x), v)
    names = ["v.weight", "v.bias", "proj.weight", "proj.bias"]
    assert list(alone.state_dict()) == [name for name, _ in alone.named_parameters()] == names


def test_what_follows_from_the_sizes_is_no_weight() -> None:
    windows = Windows((7, 11), (3, 5), (1, 2))
    block = timm_block(windows)
    attention = attention_of(block, windows)
    assert list(attention.state_dict()) == list(block.attn.state_dict())
    buffers = {name: tuple(buffer.shape) for name, buffer in attention.named_buffers()}
    assert buffers == {"relative_position_index": (15, 15), "mask_WMM": (9, 15, 15)}


def test_two_less_layers_transform_the_scores_with_their_bias() -> None:
    windows = Windows((7, 11), (3, 5), (1, 2))
    block = timm_block(windows).double()
    attention = attention_of(block, windows).double()
    x = tokens_of(windows).double()
    chain = [TokenMaps(15).double(), TokenMaps(15).double()]
    for maps in chain:
        nn.init.normal_(maps.psi, std=0.3)
        nn.init.normal_(maps.theta, std=0.3)
    scores, v = attention.scores_and_values(x)
    explicit = scores.explicit()
    q, k, _ = attention.qkv(windows.partition(x)).view(-1, 15, 3, H, D // H).unbind(2)
    bias = block.attn._get_rel_pos_bias()
    product = torch.einsum("bnhk,bmhk->bhnm", q, k) / (D // H) ** 0.5
    torch.testing.assert_close(explicit, product + bias, rtol=0, atol=1e-12)
    identity = torch.eye(15, dtype=torch.float64)
    for maps in chain:
        scores = maps(scores)
        explicit = (maps.psi + identity) @ explicit @ (maps.theta + identity).T
        torch.testing.assert_close(scores.explicit(), explicit, rtol=1e-12, atol=1e-12)
    assert scores.bias.shape == (H, 15, 15)
    masked = explicit.unflatten(0, (B, -1)) + windows.mask().double().unsqueeze(1)
    expected_maps = masked.flatten(0, 1).softmax(-1)
    expected = attention.proj((expected_maps @ v).transpose(1, 2).flatten(2))
    for with_maps in (True, False):
        out, maps = attention(scores, v, with_maps=with_maps)
        torch.testing.assert_close(out, windows.join(expected), rtol=0, atol=1e-12)
        if with_maps:
            torch.testing.assert_close(maps, expected_maps, rtol=0, atol=1e-12)


def test_masked_scores_leave_nothing_subnormal() -> None:
    windows = Windows((10, 9), (5, 3), (2, 1))
    attention = attention_of(timm_block(windows), windows)
    _, maps = attention(*attention.scores_and_values(tokens_of(windows)), with_maps=True)
    forbidden = (windows.mask() < 0).repeat(B, 1, 1).unsqueeze(1).expand_as(maps)
    assert not maps[forbidden].any() and maps[~forbidden].min() > torch.finfo(maps.dtype).tiny


def test_position_params() -> None:
    # Swin-T: 169 rows of 3 heads; windows of 12: 529 rows of 4.
    assert [position_params((7, 7), 3), position_params((12, 12), 4)] == [507, 2116]
    for size, heads in itertools.product([(3, 5), (1, 7)], [2, 5]):
        block = SwinTransformerBlock(10, (7, 11), num_heads=heads, window_size=size)
        table = block.attn.relative_position_bias_table
        assert position_params(size, heads) == table.numel()
