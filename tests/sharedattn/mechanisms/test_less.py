"""Less attention against the paper's form, the diagonality term against its bounds."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sharedattn.mechanisms import less, vanilla
from sharedattn.mechanisms.less import LowRankMaps, ScoreMaps, TokenMaps, diagonality, make_maps
from sharedattn.mechanisms.scores import Scores
from sharedattn.mechanisms.vanilla import SelfAttention

B, H, N, K = 3, 2, 7, 5
M = 3  # keys, where they are fewer than queries


def trained_maps() -> TokenMaps:
    """Maps in float64 that have left the identity."""
    maps = TokenMaps(N).double()
    nn.init.normal_(maps.psi)
    nn.init.normal_(maps.theta)
    return maps


def random_scores() -> Scores:
    """Scores in float64, of scale 1."""
    q, k = torch.randn(2, B, H, N, K, dtype=torch.float64)
    return Scores(q, k, 1.0)


def test_a_chain_of_three_equals_the_papers_form() -> None:
    factored = random_scores()
    scores = factored.explicit()
    identity = torch.eye(N, dtype=torch.float64)
    for _ in range(3):
        maps = trained_maps()
        factored = maps(factored)
        # A^l = Psi(Theta(A^{l-1})^T)^T with nn.Linear's meaning: both act on the last axis.
        theta_scores = nn.functional.linear(scores, maps.theta + identity)
        scores = nn.functional.linear(
            theta_scores.transpose(-2, -1), maps.psi + identity
        ).transpose(-2, -1)
        assert ((factored.explicit() - scores).norm() / scores.norm()).item() < 1e-12


def test_a_new_layer_is_plain_reuse() -> None:
    scores = random_scores()
    maps = TokenMaps(N).double()
    new = maps(maps(maps(scores)))
    assert torch.equal(new.q_BHNK, scores.q_BHNK) and torch.equal(new.k_BHMK, scores.k_BHMK)


def test_reset_parameters_returns_to_plain_reuse() -> None:
    maps = trained_maps()
    maps.reset_parameters()
    assert not maps.psi.any() and not maps.theta.any()


def test_psi_maps_queries_and_theta_keys() -> None:
    scores = random_scores()
    maps = trained_maps()
    nn.init.zeros_(maps.theta)
    new = maps(scores)
    assert torch.equal(new.k_BHMK, scores.k_BHMK)
    mapped = torch.einsum("nm,bhmk->bhnk", maps.psi, scores.q_BHNK)
    torch.testing.assert_close(new.q_BHNK, scores.q_BHNK + mapped)


def test_the_fused_kernel_takes_what_the_maps_give() -> None:
    new = trained_maps()(random_scores())
    # A strided last axis sends scaled_dot_product_attention to a form that stores the scores.
    assert new.q_BHNK.stride(-1) == new.k_BHMK.stride(-1) == 1


def one_sided(down: Tensor | None, up: Tensor | None, maps: Tensor | None, size: int) -> Tensor:
    """Identity plus difference of one side: full, of low rank, or none."""
    identity = torch.eye(size, dtype=torch.float64)
    if up is not None and down is not None:
        return identity + up @ down
    return identity if maps is None else identity + maps


def both_sides(maps: ScoreMaps) -> tuple[Tensor, Tensor]:
    """Psi (N, N) and Theta (M, M) of maps of any form."""
    own = dict(maps.named_parameters())
    psi, theta = (
        one_sided(own.get(f"{side}_down"), own.get(f"{side}_up"), own.get(side), size)
        for side, size in (("psi", N), ("theta", M))
    )
    return psi, theta


def randomised(maps: ScoreMaps) -> ScoreMaps:
    """The maps in float64, having left the identity."""
    for parameter in maps.double().parameters():
        nn.init.normal_(parameter)
    return maps


@pytest.mark.parametrize("bias_shape", [None, (H, N, M), (B, H, N, M)])
@pytest.mark.parametrize(
    "forms",
    [
        ("full", "full", "full", "full", "full"),
        ("lowrank3", "lowrank2", "lowrank3"),
        ("keys", "keys"),
        ("full", "reuse", "lowrank2", "keys", "full"),
    ],
)
def test_a_chain_of_layers_is_one_map_on_each_side(
    forms: tuple[str, ...], bias_shape: tuple[int, ...] | None
) -> None:
    bias = None if bias_shape is None else torch.randn(bias_shape, dtype=torch.float64)
    q = torch.randn(B, H, N, K, dtype=torch.float64)
    k = torch.randn(B, H, M, K, dtype=torch.float64)
    scores = Scores(q, k, 0.7, bias)
    expected = 0.7 * torch.einsum("bhnk,bhmk->bhnm", q, k) + (0 if bias is None else bias)
    # Of L layers, the last one is applied last, on both sides.
    psi, theta = torch.eye(N, dtype=torch.float64), torch.eye(M, dtype=torch.float64)
    for form in forms:
        maps = randomised(make_maps(form, N, M))
        scores = maps(scores)
        layer_psi, layer_theta = both_sides(maps)
        psi, theta = layer_psi @ psi, layer_theta @ theta
    composed = torch.einsum("np,bhpq,mq->bhnm", psi, expected, theta)
    assert ((scores.explicit() - composed).norm() / composed.norm()).item() < 1e-12
    # And the one map is a layer of its own.
    one = make_maps("full", N, M).double()
    assert isinstance(one, TokenMaps)
    one.psi.data = psi - torch.eye(N, dtype=torch.float64)
    one.theta.data = theta - torch.eye(M, dtype=torch.float64)
    alone = one(Scores(q, k, 0.7, bias)).explicit()
    assert ((alone - composed).norm() / composed.norm()).item() < 1e-12


def test_a_bias_of_all_images_stays_one() -> None:
    bias = torch.randn(H, N, M, dtype=torch.float64)
    q, k = (torch.randn(B, H, size, K, dtype=torch.float64) for size in (N, M))
    mapped = randomised(make_maps("full", N, M))(Scores(q, k, 1.0, bias)).bias
    assert mapped is not None and mapped.shape == (H, N, M)


def test_full_rank_can_equal_full_maps() -> None:
    full = randomised(make_maps("full", N, M))
    low = make_maps(f"lowrank{M}", N, M).double()
    assert isinstance(full, TokenMaps) and isinstance(low, LowRankMaps)
    # The larger side needs a rank of N, so its difference is cut to rank M first.
    u, s, v = torch.linalg.svd(full.psi.data)
    full.psi.data = u[:, :M] @ s[:M].diag() @ v[:M]
    low.psi_up.data, low.psi_down.data = u[:, :M] @ s[:M].diag(), v[:M]
    low.theta_up.data, low.theta_down.data = full.theta.data, torch.eye(M, dtype=torch.float64)
    q, k = (torch.randn(B, H, size, K, dtype=torch.float64) for size in (N, M))
    scores = Scores(q, k, 1.0, torch.randn(H, N, M, dtype=torch.float64))
    expected = full(scores).explicit()
    torch.testing.assert_close(low(scores).explicit(), expected, rtol=0, atol=1e-10)


def test_low_rank_begins_at_the_identity_and_can_leave_it() -> None:
    maps = make_maps("lowrank2", N, M).double()
    q, k = (torch.randn(B, H, size, K, dtype=torch.float64) for size in (N, M))
    scores = maps(Scores(q, k, 1.0))
    assert torch.equal(scores.q_BHNK, q) and torch.equal(scores.k_BHMK, k)
    scores.explicit().square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in maps.named_parameters()}
    assert gradients["psi_up"].any() and gradients["theta_up"].any()
    assert not gradients["psi_down"].any() and not gradients["theta_down"].any()


@settings(max_examples=50, deadline=None)
@given(
    form=st.sampled_from(("full", "keys", "reuse", "lowrank1", "lowrank2", "lowrank3")),
    num_queries=st.integers(3, 13),
    num_keys=st.integers(3, 13),
    num_heads=st.integers(1, 5),
    head_dim=st.integers(1, 7),
    has_bias=st.booleans(),
)
def test_params_and_macs_of_a_form_are_those_of_its_module(
    form: str, num_queries: int, num_keys: int, num_heads: int, head_dim: int, has_bias: bool
) -> None:
    maps = make_maps(form, num_queries, num_keys)
    assert sum(p.numel() for p in maps.parameters()) == less.map_params(
        form, num_queries, num_keys
    )
    scores = Scores(
        torch.zeros(1, num_heads, num_queries, head_dim),
        torch.zeros(1, num_heads, num_keys, head_dim),
        1.0,
        torch.zeros(num_heads, num_queries, num_keys) if has_bias else None,
    )
    with FlopCounterMode(display=False) as counter:
        maps(scores)
    expected = less.map_macs(form, num_queries, num_keys, num_heads * head_dim)
    if has_bias:
        expected += less.bias_macs(form, num_queries, num_keys, num_heads)
    assert counter.get_total_flops() == 2 * expected


def row_stochastic() -> torch.Tensor:
    return torch.randn(B, H, N, N, dtype=torch.float64).mul(3).softmax(-1)


def test_diagonality_of_known_maps() -> None:
    identity = torch.eye(N, dtype=torch.float64).expand(B, H, N, N)
    uniform = torch.full((B, H, N, N), 1 / N, dtype=torch.float64)
    one_key = torch.zeros(B, H, N, N, dtype=torch.float64)
    one_key[..., 0] = 1
    assert diagonality(identity).item() == pytest.approx(-(N - 1) / N, abs=1e-15)
    assert diagonality(uniform).item() == pytest.approx(0, abs=1e-15)
    # Trace 1 as in the uniform map; 2 (N - 1) entries differ from their mirror image by 1.
    assert diagonality(one_key).item() == pytest.approx(2 * (N - 1) / N**2, abs=1e-15)


def test_diagonality_by_its_sums() -> None:
    maps = row_stochastic()
    total = 0.0
    for a in maps.flatten(0, 1):
        total += sum(abs(a[i, j] - a[j, i]).item() for i in range(N) for j in range(N))
        for i in range(N):
            others = sum(a[i, j].item() for j in range(N) if j != i)
            total -= (N - 1) * a[i, i].item() - others
    assert diagonality(maps).item() == pytest.approx(total / (B * H * N**2), abs=1e-12)
    assert diagonality(maps).item() > -(N - 1) / N


def test_descending_the_diagonality_term_raises_the_diagonal() -> None:
    scores = torch.randn(B, H, N, N, dtype=torch.float64, requires_grad=True)
    before = scores.softmax(-1).diagonal(dim1=-2, dim2=-1).sum().item()
    diagonality(scores.softmax(-1)).backward()
    after = (scores - 10 * scores.grad).softmax(-1).diagonal(dim1=-2, dim2=-1).sum().item()
    assert after > before


@pytest.mark.parametrize("bias", [True, False])
def test_params(bias: bool) -> None:
    D = H * K
    attention = SelfAttention(nn.Linear(D, 3 * D, bias=bias), nn.Linear(D, D), H, own_scores=False)
    built = [*attention.parameters(), *TokenMaps(N).parameters()]
    expected = less.params(N, D, qkv_bias=bias, proj_bias=True)
    assert sum(p.numel() for p in built) == expected


@pytest.mark.parametrize(("num_tokens", "embed_dim"), [(197, 192), (49, 512), (13, 11), (7, 7)])
def test_it_saves_exactly_below_the_break_even(num_tokens: int, embed_dim: int) -> None:
    N, D = num_tokens, embed_dim
    saved = vanilla.macs(N, D) - less.macs(N, D)
    assert saved == 2 * N * D * (D - N)


def test_macs_by_their_terms() -> None:
    N, D, H = 13, 22, 2
    assert less.macs(N, D) == 2 * N * D**2 + 2 * N**2 * D + 2 * N**2 * D
    # DeiT-T, -S and ViT-B at 197 tokens, in millions: 67.8, 164.7 and 445.7.
    assert [round(less.paper_form_macs(197, d, d // 64) / 1e5) for d in (192, 384, 768)] == [
        678,
        1647,
        4457,
    ]
    assert less.paper_form_macs(N, D, H) == 2 * N * D**2 + N**2 * D + 2 * H * N**3
