"""Savings of a less-attention layer over the vanilla layer that it replaces."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from sharedattn.costs.model import CostModel
from sharedattn.errors import InputError
from sharedattn.mechanisms import less, vanilla
from sharedattn.networks.legality import check_choice
from sharedattn.placement import LayerChoice
from sharedattn.shape import AttentionShape

FORMS = ("full", "keys", "lowrank16", "reuse")
"""The forms to report, from the largest maps to none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FormEconomics:
    """Economics of one form of less attention in one stage.

    Attributes:
        form: name of the form.
        macs: MACs of such a layer's attention per image.
        saved_macs: MACs saved over a vanilla layer; negative if it costs more.
        saved_params: parameters saved over a vanilla layer.
        break_even_tokens: the layer saves MACs exactly if a window has fewer queries, at the same
            ratio of queries to keys and number of windows; None if there is no such number.
        fits: whether the maps are within their size limit.
    """

    form: str
    macs: int
    saved_macs: int
    saved_params: int
    break_even_tokens: int | None
    fits: bool

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary of all fields."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class LessAttentionEconomics:
    """Economics of less attention in a stage.

    Attributes:
        num_tokens: N of the stage.
        num_windows: W.
        num_queries: n, queries per window.
        num_keys: m, keys per window.
        embed_dim: D of the stage.
        vanilla_macs: MACs of a vanilla layer's attention per image.
        paper_form_macs: those of a less layer that maps every head's scores twice, as printed.
        default: the default form.
        forms: economics of each form in `FORMS`.
    """

    num_tokens: int
    num_windows: int
    num_queries: int
    num_keys: int
    embed_dim: int
    vanilla_macs: int
    paper_form_macs: int
    default: FormEconomics
    forms: tuple[FormEconomics, ...]

    @property
    def best(self) -> FormEconomics:
        """The form with maps that saves most and fits, or else plain reuse."""
        with_maps = [f for f in self.forms if f.fits and f.form != "reuse" and f.saved_macs > 0]
        return max(with_maps, key=lambda f: f.saved_macs, default=self.forms[-1])

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary of all fields."""
        return {
            **{name: getattr(self, name) for name in self.__slots__},
            "default": self.default.to_json(),
            "forms": [form.to_json() for form in self.forms],
        }


def less_attention_economics(costs: CostModel, stage: int) -> LessAttentionEconomics:
    """Compute the economics of less attention in a stage.

    In one window of N queries and keys, full maps save 2 N D (D - N) MACs; mapping a bias of the
    scores as well costs 2 H N^3 of that.

    Args:
        costs: costs on the backbone.
        stage: index of the stage, from 0.

    Returns:
        The figures of one layer in each form.
    """
    sizes = costs.shape.stages[stage]
    n, m, W = sizes.attention.num_queries, sizes.attention.num_keys, sizes.attention.num_windows
    own = costs.attention(stage, LayerChoice(vanilla.VANILLA.letter))
    mixes = sizes.attention.head_mixing
    mixing_macs = vanilla.head_mixing_macs(1, 1, sizes.num_heads) if mixes else 0

    def economics(form: str) -> FormEconomics:
        choice = LayerChoice.of(less.LESS.letter, form=form)
        reused = costs.attention(stage, choice)
        try:
            check_choice(sizes, costs.backbone.options, choice)
        except InputError:
            fits = False
        else:
            fits = True
        return FormEconomics(
            form=form,
            macs=reused.macs,
            saved_macs=own.macs - reused.macs,
            saved_params=own.params - reused.params,
            break_even_tokens=_break_even_tokens(
                form,
                sizes.attention,
                sizes.embed_dim,
                mixing_macs=mixing_macs,
                num_bias_heads=sizes.num_heads if costs.has_bias(stage) else 0,
            ),
            fits=fits,
        )

    return LessAttentionEconomics(
        num_tokens=sizes.num_tokens,
        num_windows=W,
        num_queries=n,
        num_keys=m,
        embed_dim=sizes.embed_dim,
        vanilla_macs=own.macs,
        paper_form_macs=sizes.attention.context_macs
        + less.paper_form_macs(n, sizes.embed_dim, sizes.num_heads, num_keys=m, num_windows=W),
        default=economics(less.default_form(sizes.attention)),
        forms=tuple(economics(form) for form in FORMS),
    )


def _break_even_tokens(
    form: str,
    sizes: AttentionShape,
    embed_dim: int,
    *,
    mixing_macs: int = 0,
    num_bias_heads: int = 0,
) -> int | None:
    """The smallest number of queries at which a layer no longer saves MACs, or None.

    The ratio n / m = p / q, in lowest terms, and the number of windows W are fixed. In each
    window a layer saves (n + m) D^2 of projections, and n m c if vanilla layers mix maps over
    heads. Its maps of channels cost: full n^2 + m^2, keys m^2, rank R 2 R (n + m). Per image,
    mapping a bias of H heads costs: full H n m (n + m), keys H n m^2, rank R 4 R H n m. With
    m = n q / p, and multiplied by p^2 / n, it saves if

        a + b n - d n^2 > 0

        form        a                          b                              d
        full        W p (p + q) D^2            W (p q c - (p^2 + q^2) D)      H q (p + q)
        keys        W p (p + q) D^2            W (p q c - q^2 D)              H q^2
        rank R      W p (p + q) D (D - 2 R)    W p q c - 4 R H p q            0
        reuse       W p (p + q) D^2            W p q c                        0

    Args:
        form: name of the form.
        sizes: W, n and m.
        embed_dim: D.
        mixing_macs: c, per element of the maps; 0 if vanilla layers do not mix them.
        num_bias_heads: H of a bias; 0 if the scores have none.
    """
    D, H, W, c = embed_dim, num_bias_heads, sizes.num_windows, mixing_macs
    ratio = Fraction(sizes.num_queries, sizes.num_keys)
    p, q = ratio.numerator, ratio.denominator
    rank = less.rank_of(form)
    if rank is not None:
        a, b, d = W * p * (p + q) * D * (D - 2 * rank), p * q * (W * c - 4 * rank * H), 0
    else:
        maps = {"full": p**2 + q**2, "keys": q**2, "reuse": 0}[form]
        bias = {"full": q * (p + q), "keys": q**2, "reuse": 0}[form]
        a, b, d = W * p * (p + q) * D**2, W * (p * q * c - maps * D), H * bias
    return _least_not_positive(a, b, d)


def _least_not_positive(a: int, b: int, d: int) -> int | None:
    """The smallest n > 0 at which a + b n - d n^2 turns from positive to not positive.

    Args:
        a: any number; positive if d is.
        b: any number.
        d: 0 or positive.

    Returns:
        The number, or None if the sign never changes, or changes to positive.
    """
    if d:
        # The ceiling of the only positive root, (b + sqrt(b^2 + 4 a d)) / 2 d.
        return -(-(b + 1 + math.isqrt(b**2 + 4 * a * d - 1)) // (2 * d))
    return -(a // b) if a > 0 > b else None
