"""External attention: tokens attend to a small learned memory instead of to each other.

"Beyond Self-attention: External Attention using Two Linear Layers for Visual Tasks" (TPAMI,
arXiv:2105.02358): linear in tokens. Tokens meet only in the double normalisation, a softmax over
tokens followed by a division by the sum over slots.

Departures from the paper: the double norm is taken in log space, as a softmax over slots of the
log-softmax over tokens, which is the same function without the 1e-9 of the published code. The
single-head form has no query bias and no bias on the key memory: both add a constant along tokens,
which vanishes under the softmax over tokens.

After a residual block of convolutions it is the block of EANet, the paper's network for
segmentation, in its published form with the query's bias: 1 x 1 convolution, memories, 1 x 1
convolution without bias, batch norm, addition of the input and ReLU.

Shape letters: B batch, N tokens, D embed_dim, G external heads, K head_dim, S slots, c expansion.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sharedattn.errors import InputError
from sharedattn.mechanisms.external_fit import fit_keys, fit_values
from sharedattn.mechanisms.interface import (
    Branch,
    BranchCall,
    BranchResult,
    Colors,
    FormOption,
    MapShape,
    NumberOption,
    Options,
    PartCost,
    VanillaExample,
)
from sharedattn.mechanisms.options import MechanismOptions
from sharedattn.mechanisms.scores import sums_dtype
from sharedattn.shape import StageShape, batch_norm_macs

DEFAULT_SLOTS = 64


def double_norm(logits_NS: Tensor) -> Tensor:
    """Apply a softmax over tokens, then divide by the sum over slots.

    Args:
        logits_NS: (..., N, S), tokens on the last axis but one, slots on the last.

    Returns:
        (..., N, S), in the logits' dtype; the slots of each token sum to 1.
    """
    # exp(l_ij) / sum_j exp(l_ij) with l = log_softmax over i: a softmax of l over j. Rounding
    # l ~ -log N to half precision would change it by more than the logits of some slots differ,
    # so both norms use float32; the dtype is explicit, because autocast leaves it to the device.
    dtype = sums_dtype(logits_NS)
    log_NS = torch.log_softmax(logits_NS, dim=-2, dtype=dtype)
    return torch.softmax(log_NS, dim=-1, dtype=dtype).to(logits_NS.dtype)


class ExternalAttention(nn.Module):
    """Single-head external attention: out = double_norm(Q M_k^T) M_v, then an output projection.

    Attributes:
        query: D -> D without bias.
        memory_key: M_k, (S, D).
        memory_value: M_v, (S, D); initialised as a copy of M_k, but a separate parameter.
        proj: D -> D with bias.
    """

    def __init__(self, embed_dim: int, max_slots: int) -> None:
        """Make memories of `max_slots` slots; a call may use only the first ones."""
        super().__init__()
        self.query = nn.Linear(embed_dim, embed_dim, bias=False)
        self.memory_key = nn.Parameter(torch.empty(max_slots, embed_dim))
        self.memory_value = nn.Parameter(torch.empty(max_slots, embed_dim))
        self.proj = nn.Linear(embed_dim, embed_dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reset the memories only: M_k as torch initialises a linear map from D, M_v its copy."""
        bound = 1 / math.sqrt(self.memory_key.shape[1])
        nn.init.uniform_(self.memory_key, -bound, bound)
        with torch.no_grad():
            self.memory_value.copy_(self.memory_key)

    def forward(self, x_BND: Tensor, slots: int) -> tuple[Tensor, Tensor]:
        """Attend to the first `slots` slots.

        Args:
            x_BND: (B, N, D).
            slots: S, at most the slots the memories hold.

        Returns:
            Tokens (B, N, D), and the maps (B, 1, N, S).
        """
        logits_BNS = F.linear(self.query(x_BND), self.memory_key[:slots])
        maps_BNS = double_norm(logits_BNS)
        out_BND = F.linear(maps_BNS, self.memory_value[:slots].t())
        return self.proj(out_BND), maps_BNS.unsqueeze(1)


class MultiHeadExternalAttention(nn.Module):
    """The multi-head form of the paper's code: wider queries, more heads, one memory for all.

    The query widens to c D in G = c H heads of K = D / H channels each; key and value memory are
    linear maps K -> S and S -> K with biases, shared by all heads.

    Attributes:
        query: D -> c D.
        memory_key: K -> S.
        memory_value: S -> K.
        proj: c D -> D.
        num_external_heads: G = c H.
    """

    def __init__(self, embed_dim: int, max_slots: int, num_heads: int, expansion: int) -> None:
        """Make memories of `max_slots` slots; a call may use only the first ones."""
        super().__init__()
        head_dim = embed_dim // num_heads
        self.num_external_heads = expansion * num_heads
        self.query = nn.Linear(embed_dim, expansion * embed_dim)
        self.memory_key = nn.Linear(head_dim, max_slots)
        self.memory_value = nn.Linear(max_slots, head_dim)
        self.proj = nn.Linear(expansion * embed_dim, embed_dim)

    def forward(self, x_BND: Tensor, slots: int) -> tuple[Tensor, Tensor]:
        """Attend to the first `slots` slots.

        Args:
            x_BND: (B, N, D).
            slots: S, at most the slots the memories hold.

        Returns:
            Tokens (B, N, D), and the maps (B, G, N, S).
        """
        B, N, _ = x_BND.shape
        q_BGNK = self.query(x_BND).reshape(B, N, self.num_external_heads, -1).transpose(1, 2)
        logits_BGNS = F.linear(
            q_BGNK, self.memory_key.weight[:slots], self.memory_key.bias[:slots]
        )
        maps_BGNS = double_norm(logits_BGNS)
        out_BGNK = F.linear(maps_BGNS, self.memory_value.weight[:, :slots], self.memory_value.bias)
        return self.proj(out_BGNK.transpose(1, 2).flatten(2)), maps_BGNS


class SpatialExternalAttention(ExternalAttention):
    """The branch of EANet's block: a query with bias, and a batch norm after the projection.

    Attributes:
        norm: batch norm of D channels.
    """

    def __init__(self, embed_dim: int, max_slots: int) -> None:
        """Make memories of `max_slots` slots; a call may use only the first ones."""
        super().__init__(embed_dim, max_slots)
        self.query = nn.Linear(embed_dim, embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim, bias=False)
        self.norm = nn.BatchNorm1d(embed_dim)

    def forward(self, x_BND: Tensor, slots: int) -> tuple[Tensor, Tensor]:
        """As in `ExternalAttention`, over N pixels."""
        out_BND, maps_B1NS = super().forward(x_BND, slots)
        return self.norm(out_BND.transpose(1, 2)).transpose(1, 2), maps_B1NS


def params(embed_dim: int, slots: int) -> int:
    """Parameters of the single-head form: 2 D^2 + D + 2 S D."""
    D, S = embed_dim, slots
    return 2 * D**2 + D + 2 * S * D


def macs(num_tokens: int, embed_dim: int, slots: int) -> int:
    """Multiply-accumulates of the single-head form for one image: 2 N D^2 + 2 N S D."""
    N, D, S = num_tokens, embed_dim, slots
    return 2 * N * D**2 + 2 * N * S * D


def spatial_params(embed_dim: int, slots: int) -> int:
    """Parameters of the branch of EANet's block: 2 D^2 + D + 2 S D, and 2 D of the norm."""
    return params(embed_dim, slots) + 2 * embed_dim


def spatial_macs(num_pixels: int, embed_dim: int, slots: int) -> int:
    """Multiply-accumulates of that: 2 N D^2 + 2 N S D, and 2 N D of the norm."""
    return macs(num_pixels, embed_dim, slots) + batch_norm_macs(num_pixels, embed_dim)


def multi_head_params(embed_dim: int, num_heads: int, slots: int, expansion: int) -> int:
    """Parameters of the multi-head form: 2 c D^2 + c D + D + 2 S K + S + K."""
    D, S, c = embed_dim, slots, expansion
    K = D // num_heads
    return 2 * c * D**2 + c * D + D + 2 * S * K + S + K


def multi_head_macs(num_tokens: int, embed_dim: int, slots: int, expansion: int) -> int:
    """Multiply-accumulates of the multi-head form for one image: 2 c N D^2 + 2 c N S D."""
    return expansion * macs(num_tokens, embed_dim, slots)


class External(Branch):
    """External attention: a query, two memories and an output projection of its own."""

    letter = "E"
    name = "external"
    title = "external attention"
    rank = 10
    options = (
        NumberOption(
            name="slots", key="slots", code="s", default=DEFAULT_SLOTS, title="memory slots"
        ),
        FormOption(key="external_form", codes={"mea": ""}, default_name="single"),
    )
    colors = Colors(fill="#e69f00", ink="#2b1e00", dark_fill="#e69f00", dark_ink="#2b1e00")
    fits_convolutions = True
    follows_convolutions = True

    def check(
        self, options: Options, stage: StageShape, network_options: MechanismOptions
    ) -> None:
        """Check that the form exists after convolutions, which is the single-head form.

        Raises:
            InputError: it does not.
        """
        if stage.convolution is not None and _is_multi_head(options):
            raise InputError(
                f"the multi-head form, /mea, takes the place of attention with heads, which a "
                f"residual block of convolutions does not have; write E/s{_slots(options)}, which "
                f"follows the block"
            )

    def used_network_options(self, options: Options) -> frozenset[str]:
        """The multi-head form depends on `external_expansion`."""
        return frozenset({"external_expansion"} if _is_multi_head(options) else ())

    def make(
        self, options: Options, stage: StageShape, network_options: MechanismOptions
    ) -> nn.Module:
        """The query, memories with the largest number of slots, and the projection."""
        D, slots = stage.embed_dim, _slots(options)
        if _is_multi_head(options):
            c = network_options.external_expansion
            return MultiHeadExternalAttention(D, slots, stage.num_heads, c)
        if stage.convolution is not None:
            return SpatialExternalAttention(D, slots)
        return ExternalAttention(D, slots)

    def can_be_fitted(self, form: Options) -> bool:
        """Only the single-head form, whose value memory is a least-squares problem."""
        return not _is_multi_head(form)

    def fit(
        self,
        module: nn.Module,
        example: VanillaExample,
        used: Sequence[Options],
        generator: torch.Generator,
    ) -> None:
        """Fit both memories: see `sharedattn.mechanisms.external_fit`."""
        fit_keys(module, example, generator)
        fit_values(module, example, [_slots(options) for options in used])

    def run(self, call: BranchCall) -> BranchResult:
        """Attend to the first slots of the memories."""
        branch_BND, maps_BGNS = call.module(call.x_BND, _slots(call.options))
        return BranchResult(branch_BND=branch_BND, maps=maps_BGNS)

    def cost(
        self,
        options: Options,
        stage: StageShape,
        network_options: MechanismOptions,
        *,
        has_bias: bool,
    ) -> PartCost:
        """`params` and `macs`, or those of the multi-head form."""
        N, D, S = stage.num_tokens, stage.embed_dim, _slots(options)
        if stage.convolution is not None:
            return PartCost(spatial_params(D, S), spatial_macs(N, D, S))
        if not _is_multi_head(options):
            return PartCost(params(D, S), macs(N, D, S))
        c = network_options.external_expansion
        return PartCost(multi_head_params(D, stage.num_heads, S, c), multi_head_macs(N, D, S, c))

    def norm_macs(self, options: Options, stage: StageShape) -> int:
        """Those of EANet's batch norm after a block of convolutions; others have none."""
        if stage.convolution is None:
            return 0
        return batch_norm_macs(stage.num_tokens, stage.embed_dim)

    def map_shape(
        self, options: Options, stage: StageShape, network_options: MechanismOptions
    ) -> MapShape:
        """One map of N tokens and S slots, or c H of them in the multi-head form."""
        is_multi_head = _is_multi_head(options)
        heads = network_options.external_expansion * stage.num_heads if is_multi_head else 1
        return MapShape(heads, stage.num_tokens, _slots(options))

    def attention_elements(
        self, options: Options, stage: StageShape, network_options: MechanismOptions
    ) -> int:
        """Its maps, and two memories of S D elements (S K in the multi-head form)."""
        width = stage.head_dim if _is_multi_head(options) else stage.embed_dim
        maps = self.map_shape(options, stage, network_options)
        return maps.num_elements + 2 * _slots(options) * width


def _slots(options: Options) -> int:
    return int(dict(options)["slots"])


def _is_multi_head(options: Options) -> bool:
    return dict(options).get("form") == "mea"


EXTERNAL = External()
