"""Less attention: a layer transforms the scores of an earlier layer instead of making its own.

LaViT, "You Only Need Less Attention at Each Stage in Vision Transformers" (CVPR 2024,
arXiv:2406.00427), with scores A^l = Psi(Theta(A^{l-1})^T)^T and output softmax(A^l) V^l.

It is computed in factored form, which is exact. Theta and Psi are linear maps over tokens, shared
over heads and images, and the chain of scores begins at Q K^T, so

    Psi (Q K^T) Theta^T = (Psi Q) (Theta K)^T :

the layer mixes the carried queries and keys over tokens and attends with its own values. No N x N
scores are stored, and it costs less than a vanilla layer where N < D. Layers in a chain compose to
one map on each side. A bias of the scores, which no image changes, is mapped as Psi B Theta^T.

Besides the full maps there are forms of ours: keys alone (no Psi, whose size is the number of
queries squared), maps of low rank I + U V, and plain reuse of the scores without any map.

Departures from the paper: the maps are identity plus a learned difference (zero at first: plain
reuse), so weight decay pulls towards reuse and scores do not shrink layer by layer; no biases
(Psi's vanishes under the softmax); the diagonality term has the sign that its name requires.

Shape letters: B batch, N queries, M keys, D embed_dim, H heads, K head_dim, R rank.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from sharedattn.errors import InputError
from sharedattn.mechanisms.interface import (
    OUTPUT,
    SCORES,
    Branch,
    BranchCall,
    BranchResult,
    Colors,
    FormOption,
    MapShape,
    Options,
    PartCost,
)
from sharedattn.mechanisms.options import MechanismOptions
from sharedattn.mechanisms.scores import Scores, sums_dtype
from sharedattn.mechanisms.vanilla import token_map_shape
from sharedattn.shape import AttentionShape, StageShape

MAX_MAP_PARAMS = 2**21
"""The most parameters of one map over tokens, 1,448 tokens squared. Psi over the 3,136 tokens of a
pyramid's first stage has 9.8 M, more than many backbones."""


def rank_of(form: str | None) -> int | None:
    """R of the form `lowrankR`, or None for every other form."""
    match = re.fullmatch(r"lowrank([1-9]\d{0,5})", form or "")
    return int(match[1]) if match else None


def default_form(sizes: AttentionShape) -> str:
    """The form of a layer that names none: full, or keys alone if the stage reduces its keys."""
    return "full" if sizes.num_queries == sizes.num_keys else "keys"


class ScoreMaps(nn.Module, ABC):
    """Computes a less-attention layer's scores from those of an earlier layer."""

    @abstractmethod
    def forward(self, scores: Scores) -> Scores:
        """Compute the layer's scores."""

    @abstractmethod
    def reset_parameters(self) -> None:
        """Reset to plain reuse, where the maps equal the identity."""


class PlainReuse(ScoreMaps):
    """Returns the scores unchanged."""

    def forward(self, scores: Scores) -> Scores:
        """`scores`."""
        return scores

    def reset_parameters(self) -> None:
        """Do nothing."""


class TokenMaps(ScoreMaps):
    """Psi on queries and Theta on keys, each identity plus a learned difference.

    Attributes:
        psi: (N, N), the difference of Psi from the identity, or None to map keys alone.
        theta: (M, M), the difference of Theta from the identity.
    """

    psi: nn.Parameter | None

    def __init__(
        self, num_queries: int, num_keys: int | None = None, *, keys_alone: bool = False
    ) -> None:
        """Make maps for exactly these numbers of queries and keys, which are equal by default."""
        super().__init__()
        M = num_queries if num_keys is None else num_keys
        psi = None if keys_alone else nn.Parameter(torch.empty(num_queries, num_queries))
        self.register_parameter("psi", psi)
        self.theta = nn.Parameter(torch.empty(M, M))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reset the differences from the identity to zero."""
        if self.psi is not None:
            nn.init.zeros_(self.psi)
        nn.init.zeros_(self.theta)

    def forward(self, scores: Scores) -> Scores:
        """Scores of Psi q and Theta k, with the bias Psi B Theta^T."""
        theta_MM = _with_identity(self.theta, scores.k_BHMK)
        k_BHMK, bias = _mix_tokens(theta_MM, scores.k_BHMK), scores.bias
        q_BHNK = scores.q_BHNK
        if bias is not None:
            bias = nn.functional.linear(bias, theta_MM)
        if self.psi is not None:
            psi_NN = _with_identity(self.psi, q_BHNK)
            q_BHNK = _mix_tokens(psi_NN, q_BHNK)
            if bias is not None:
                bias = _on_queries(bias, psi_NN)
        return replace(scores, q_BHNK=q_BHNK, k_BHMK=k_BHMK, bias=bias)


class LowRankMaps(ScoreMaps):
    """Psi and Theta as I + U V, of rank R.

    Attributes:
        psi_down: (R, N), V of Psi.
        psi_up: (N, R), U of Psi.
        theta_down: (R, M), V of Theta.
        theta_up: (M, R), U of Theta.
    """

    def __init__(self, num_queries: int, num_keys: int, rank: int) -> None:
        """Make maps for exactly these numbers of queries and keys."""
        super().__init__()
        self.psi_down = nn.Parameter(torch.empty(rank, num_queries))
        self.psi_up = nn.Parameter(torch.empty(num_queries, rank))
        self.theta_down = nn.Parameter(torch.empty(rank, num_keys))
        self.theta_up = nn.Parameter(torch.empty(num_keys, rank))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reset V as torch does a linear map, U to zero: the identity, with a gradient at U."""
        for down in (self.psi_down, self.theta_down):
            bound = 1 / math.sqrt(down.shape[1])
            nn.init.uniform_(down, -bound, bound)
        for up in (self.psi_up, self.theta_up):
            nn.init.zeros_(up)

    def forward(self, scores: Scores) -> Scores:
        """Scores of Psi q and Theta k, with the bias Psi B Theta^T."""
        q_BHNK = _mix_tokens_through(self.psi_down, self.psi_up, scores.q_BHNK)
        k_BHMK = _mix_tokens_through(self.theta_down, self.theta_up, scores.k_BHMK)
        bias = scores.bias
        if bias is not None:
            linear = nn.functional.linear
            bias = bias + linear(linear(bias, self.theta_down), self.theta_up)
            bias = bias + _on_queries(_on_queries(bias, self.psi_down), self.psi_up)
        return replace(scores, q_BHNK=q_BHNK, k_BHMK=k_BHMK, bias=bias)


def make_maps(form: str, num_queries: int, num_keys: int) -> ScoreMaps:
    """Make the maps of a form: `full`, `keys`, `lowrankR` or `reuse`.

    Args:
        form: name of the form.
        num_queries: N, per window.
        num_keys: M, per window.
    """
    rank = rank_of(form)
    if rank is not None:
        return LowRankMaps(num_queries, num_keys, rank)
    if form == "reuse":
        return PlainReuse()
    return TokenMaps(num_queries, num_keys, keys_alone=form == "keys")


def _with_identity(difference_NN: Tensor, like: Tensor) -> Tensor:
    # Adding the identity to the small map rather than to the result saves a pass over the tokens.
    return difference_NN + torch.eye(len(difference_NN), dtype=like.dtype, device=like.device)


def _mix_tokens(map_PN: Tensor, x_BHNK: Tensor) -> Tensor:
    # `bmm` of a map without batch strides reads and writes the tokens in place: any other form
    # copies them, or leaves the last axis strided, which no fused kernel accepts. (`map @ tokens`
    # would work, but fvcore miscounts a 2-D left operand.) `len` would fix the batch size of an
    # exported program, while `shape` does not.
    H, x_BND = x_BHNK.shape[1], _joined(x_BHNK)
    return _split(torch.bmm(map_PN.expand(x_BND.shape[0], -1, -1), x_BND), H)


def _mix_tokens_through(down_RN: Tensor, up_NR: Tensor, x_BHNK: Tensor) -> Tensor:
    """(I + U V) x; the second product includes the sum, which saves a pass over the tokens."""
    H, x_BND = x_BHNK.shape[1], _joined(x_BHNK)
    B = x_BND.shape[0]
    low_BRD = torch.bmm(down_RN.expand(B, -1, -1), x_BND)
    return _split(torch.baddbmm(x_BND, up_NR.expand(B, -1, -1), low_BRD), H)


def _joined(x_BHNK: Tensor) -> Tensor:
    """Concatenate heads, (B, N, D)."""
    return x_BHNK.transpose(1, 2).flatten(2)


def _split(x_BND: Tensor, num_heads: int) -> Tensor:
    """Split heads, (B, H, N, K)."""
    B, N, _ = x_BND.shape
    return x_BND.reshape(B, N, num_heads, -1).transpose(1, 2)


def _on_queries(bias: Tensor, map_PN: Tensor) -> Tensor:
    """Apply a map over the queries of a bias (..., N, M), giving (..., P, M)."""
    return nn.functional.linear(bias.transpose(-2, -1), map_PN).transpose(-2, -1)


def diagonality(maps_BHNN: Tensor) -> Tensor:
    """The diagonality preserving term of one layer: small for symmetric, diagonal maps.

    With A row-stochastic, averaged over batch and heads:

        ( sum_ij |A_ij - A_ji| - sum_i ((N-1) A_ii - sum_{j != i} A_ij) ) / N^2

    The printed term adds the second sum, whose minimum is an empty diagonal; a term that
    preserves the diagonal subtracts it. On softmaxed maps it is bounded below by -(N-1)/N, the
    value at the identity; uniform maps give 0.

    Args:
        maps_BHNN: (B, H, N, N), rows summing to 1.

    Returns:
        A scalar, differentiable; float32 for maps in half precision.
    """
    # N times the diagonal's sum is up to N^2, which overflows float16 from 256 tokens on.
    N, dtype = maps_BHNN.shape[-1], sums_dtype(maps_BHNN)
    asymmetry_BH = (maps_BHNN - maps_BHNN.transpose(-2, -1)).abs().sum((-2, -1), dtype=dtype)
    diagonal_BH = maps_BHNN.diagonal(dim1=-2, dim2=-1).sum(-1, dtype=dtype)
    # (N-1) A_ii - sum_{j != i} A_ij = N A_ii - sum_j A_ij
    dominance_BH = N * diagonal_BH - maps_BHNN.sum((-2, -1), dtype=dtype)
    return ((asymmetry_BH - dominance_BH) / N**2).mean()


def map_params(form: str, num_queries: int, num_keys: int) -> int:
    """Parameters of the maps of a form, N queries and M keys of a window.

    Full N^2 + M^2, keys M^2, rank R 2 R (N + M), reuse 0.
    """
    N, M, rank = num_queries, num_keys, rank_of(form)
    if rank is not None:
        return 2 * rank * (N + M)
    return {"full": N**2 + M**2, "keys": M**2, "reuse": 0}[form]


def map_macs(form: str, num_queries: int, num_keys: int, embed_dim: int) -> int:
    """Multiply-accumulates of the maps of a form on one window's queries and keys.

    Of D channels each: full (N^2 + M^2) D, keys M^2 D, rank R 2 R (N + M) D, reuse 0; a
    multiply-add for each parameter and channel.
    """
    return map_params(form, num_queries, num_keys) * embed_dim


def bias_macs(form: str, num_queries: int, num_keys: int, num_heads: int) -> int:
    """Multiply-accumulates of mapping a bias of the scores, (H, N, M).

    A bias that no image changes is mapped once per batch. It still counts for each image, since
    the batch of the convention is one image.

    Full H N M (N + M), keys H N M^2, rank R 2 R H N M 2, reuse 0.
    """
    N, M, H, rank = num_queries, num_keys, num_heads, rank_of(form)
    if rank is not None:
        return 4 * rank * H * N * M
    return H * N * M * {"full": N + M, "keys": M, "reuse": 0}[form]


def params(
    num_tokens: int,
    embed_dim: int,
    *,
    qkv_bias: bool,
    proj_bias: bool,
    num_keys: int | None = None,
    form: str = "full",
) -> int:
    """Parameters of a less-attention layer: 2 D^2, D for each bias, and its maps.

    The maps are over `num_tokens` queries and `num_keys` keys of a window, equal by default; see
    `map_params`.
    """
    D = embed_dim
    maps = map_params(form, num_tokens, num_tokens if num_keys is None else num_keys)
    return 2 * D**2 + D * qkv_bias + D * proj_bias + maps


def macs(
    num_tokens: int,
    embed_dim: int,
    *,
    num_keys: int | None = None,
    num_windows: int = 1,
    form: str = "full",
) -> int:
    """Multiply-accumulates of a less-attention layer's attention for one image, factored.

    They are values and output projection, the maps over tokens, and the two token-token products.
    With W windows of n queries and m keys:

        macs = W * (n*D**2 + m*D**2 + maps + 2*n*m*D)

    which is 2*N*D**2 + 4*N**2*D for full maps in one window. A bias of the scores adds
    `bias_macs`.

    Args:
        num_tokens: n, queries of a window, prefix tokens included; > 0.
        embed_dim: D; > 0.
        num_keys: m; defaults to the number of queries.
        num_windows: W.
        form: form of the maps.

    Returns:
        MACs, one multiply-add being 1.
    """
    n, D, W = num_tokens, embed_dim, num_windows
    m = n if num_keys is None else num_keys
    return W * ((n + m) * D**2 + map_macs(form, n, m, D) + 2 * n * m * D)


def paper_form_macs(
    num_tokens: int,
    embed_dim: int,
    num_heads: int,
    *,
    num_keys: int | None = None,
    num_windows: int = 1,
) -> int:
    """Cost of the layer as printed, with both maps applied to the scores of every head.

        macs = W * (n*D**2 + m*D**2 + n*m*D + H*n*m*(n + m))

    which is 2*N*D**2 + N**2*D + 2*H*N**3 in one window.

    Args:
        num_tokens: n; > 0.
        embed_dim: D; > 0.
        num_heads: H; > 0.
        num_keys: m; defaults to the number of queries.
        num_windows: W.

    Returns:
        MACs per image; sharing the maps over heads saves parameters, not MACs.
    """
    n, D, W = num_tokens, embed_dim, num_windows
    m = n if num_keys is None else num_keys
    maps = paper_map_macs(n, m, num_heads, num_windows=W)
    return W * ((n + m) * D**2 + n * m * D) + maps


def paper_map_macs(
    num_queries: int, num_keys: int, num_heads: int, *, num_windows: int = 1
) -> int:
    """Multiply-accumulates of both maps on the scores of every head: W H n m (n + m)."""
    n, m, H, W = num_queries, num_keys, num_heads, num_windows
    return W * H * n * m * (n + m)


class Less(Branch):
    """Less attention: maps an earlier layer's scores; has its own values and output projection."""

    letter = "L"
    name = "less"
    title = "less attention"
    rank = 30
    options = (
        FormOption(
            key="less_form",
            codes={"full": "", "keys": "", "lowrank": r"[1-9]\d{0,5}", "reuse": ""},
        ),
    )
    colors = Colors(fill="#56b4e9", ink="#10222e", dark_fill="#56b4e9", dark_ink="#10222e")
    uses = frozenset({"values"})
    takes = (SCORES,)
    leaves = (SCORES, OUTPUT)
    has_diagonality = True

    def canonical(self, options: Options, stage: StageShape) -> Options:
        """Omit the form if it is the stage's default."""
        is_default = options == (("form", default_form(stage.attention)),)
        return () if is_default else options

    def check(
        self, options: Options, stage: StageShape, network_options: MechanismOptions
    ) -> None:
        """Check that the maps fit the stage.

        Raises:
            InputError: a map is larger than `MAX_MAP_PARAMS`, or a rank above the tokens.
        """
        form = form_of(options, stage.attention)
        n, m = stage.attention.num_queries, stage.attention.num_keys
        rank = rank_of(form)
        if rank is not None:
            if rank > min(n, m):
                raise InputError(
                    f"`/{form}` has a higher rank than there are tokens, {n} queries and {m} "
                    f"keys; the most that fits is /lowrank{min(n, m)}"
                )
            return
        largest = {"full": max(n, m), "keys": m, "reuse": 0}[form]
        if largest**2 > MAX_MAP_PARAMS:
            fitting = "/keys" if m**2 <= MAX_MAP_PARAMS else "/lowrank16 or /reuse"
            raise InputError(
                f"`/{form}` over {largest:,} tokens has a map of {largest**2:,} parameters "
                f"({map_params(form, n, m):,} in all), and a map has at most "
                f"{MAX_MAP_PARAMS:,}; write {fitting}"
            )

    def make(
        self, options: Options, stage: StageShape, network_options: MechanismOptions
    ) -> nn.Module:
        """Make the maps."""
        sizes = stage.attention
        return make_maps(form_of(options, sizes), sizes.num_queries, sizes.num_keys)

    def run(self, call: BranchCall) -> BranchResult:
        """Attend with mapped scores of an earlier layer."""
        assert call.attention is not None
        scores = call.module(call.carried[SCORES.name])
        v_BHMK = call.attention.values(call.x_BND)
        branch_BND, maps = call.attention(scores, v_BHMK, with_maps=call.with_maps)
        return BranchResult(branch_BND=branch_BND, maps=maps, left={SCORES.name: scores})

    def cost(
        self,
        options: Options,
        stage: StageShape,
        network_options: MechanismOptions,
        *,
        has_bias: bool,
    ) -> PartCost:
        """`params` and `macs`, the cost of the values' tokens, and the map of a bias."""
        sizes, D, form = stage.attention, stage.embed_dim, form_of(options, stage.attention)
        n, m = sizes.num_queries, sizes.num_keys
        biases = {"qkv_bias": stage.qkv_bias, "proj_bias": stage.proj_bias}
        return PartCost(
            params(n, D, num_keys=m, form=form, **biases) + sizes.context_params,
            macs(n, D, num_keys=m, num_windows=sizes.num_windows, form=form)
            + sizes.context_macs
            + (bias_macs(form, n, m, stage.num_heads) if has_bias else 0),
        )

    def norm_macs(self, options: Options, stage: StageShape) -> int:
        """MACs of the norms before the values."""
        return stage.attention.context_norm_macs

    def map_shape(
        self, options: Options, stage: StageShape, network_options: MechanismOptions
    ) -> MapShape:
        """W H maps of n queries and m keys."""
        return token_map_shape(stage)

    def score_bias(self, options: Options) -> Literal["own", "kept", "mapped"]:
        """Plain reuse keeps the bias; maps map it."""
        return "kept" if dict(options).get("form") == "reuse" else "mapped"


def form_of(options: Options, sizes: AttentionShape) -> str:
    """The form of a layer with these options, with the default by name."""
    return str(dict(options).get("form") or default_form(sizes))


LESS = Less()
