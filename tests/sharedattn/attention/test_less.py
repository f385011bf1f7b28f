"""Less attention against the paper's form, the diagonality term against its bounds."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sharedattn.attention import less, vanilla
from sharedattn.attention.less import TokenMaps, diagonality
from sharedattn.attention.scores import Scores
from sharedattn.attention.vanilla import SelfAttention

B, H, N, K = 3, 2, 7, 5


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
