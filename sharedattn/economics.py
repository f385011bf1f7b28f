"""What a less-attention layer saves or loses against the vanilla layer that it replaces."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from sharedattn.attention import less, vanilla
from sharedattn.cost import CostModel
from sharedattn.errors import InputError
from sharedattn.legality import check_maps
from sharedattn.placement import Kind, LayerChoice, rank_of
from sharedattn.shape import AttentionShape

FORMS = ("full", "keys", "lowrank16", "reuse")
"""The forms whose figures are given, of maps from most to least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FormEconomics:
    """One form of less attention in one stage.

    Attributes:
        form: as `LayerChoice.form` has it.
        macs: attention of such a layer for one image.
        saved_macs: what it saves against a vanilla layer; negative where it costs more.
        saved_params: likewise of parameters.
        break_even_tokens: it saves exactly where the queries of a window are fewer, their ratio
            to the keys being the same, and the map of a bias left out; None: at any number, or
            at none.
        fits: whether the maps are within the bound on their size.
    """

    form: str
    macs: int
    saved_macs: int
    saved_params: int
    break_even_tokens: int | None
    fits: bool

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary of every field."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class LessAttentionEconomics:
    """Whether less attention pays in a stage.

    Attributes:
        num_tokens: N of the stage.
        num_windows: W.
        num_queries: n, queries of a window.
        num_keys: m, keys of a window.
        embed_dim: D of the stage.
        vanilla_macs: attention of a vanilla layer, for one image.
        paper_form_macs: a less layer with both maps applied to every head's scores, as printed.
        default: the form of a less layer that names none.
        forms: the forms in `FORMS`.
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
        """The form that saves most among those that have maps and fit; else plain reuse."""
        with_maps = [f for f in self.forms if f.fits and f.form != "reuse" and f.saved_macs > 0]
        return max(with_maps, key=lambda f: f.saved_macs, default=self.forms[-1])

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary of every field."""
        return {
            **{name: getattr(self, name) for name in self.__slots__},
            "default": self.default.to_json(),
            "forms": [form.to_json() for form in self.forms],
        }


def less_attention_economics(costs: CostModel, stage: int) -> LessAttentionEconomics:
    """Whether less attention pays in a stage.

    In one window of N queries and keys, full maps save 2 N D (D - N) MACs.

    Args:
        costs: of the backbone.
        stage: index of the stage, from 0.

    Returns:
        The figures of one layer in each form.
    """
    sizes = costs.shape.stages[stage]
    n, m, W = sizes.attention.num_queries, sizes.attention.num_keys, sizes.attention.num_windows
    own = costs.attention(stage, LayerChoice(Kind.VANILLA))
    mixes = sizes.attention.head_mixing
    mixing_macs = vanilla.head_mixing_macs(1, 1, sizes.num_heads) if mixes else 0

    def economics(form: str) -> FormEconomics:
        choice = LayerChoice(Kind.LESS, form=form)
        reused = costs.attention(stage, choice)
        try:
            check_maps(sizes, choice)
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
                form, sizes.attention, sizes.embed_dim, mixing_macs
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
        default=economics(sizes.attention.default_form),
        forms=tuple(economics(form) for form in FORMS),
    )


def _break_even_tokens(
    form: str, sizes: AttentionShape, embed_dim: int, mixing_macs: int = 0
) -> int | None:
    """The least number of queries at which a layer no longer saves, n / m = rho being kept.

    A layer saves (n + m) D^2 of projections, and n m c where vanilla layers mix maps over heads
    at c MACs an element (`mixing_macs`). It pays its maps, in channels: full n^2 + m^2, keys m^2.
    So full maps save where n < rho (rho + 1) D^2 / ((rho^2 + 1) D - rho c), keys alone where
    n < rho (rho + 1) D^2 / (D - rho c). A rank pays 2 R (n + m), which without mixing is less or
    more at any number of tokens.
    """
    D, rho = embed_dim, Fraction(sizes.num_queries, sizes.num_keys)
    if form not in ("full", "keys"):
        assert form == "reuse" or rank_of(form) is not None
        return None
    pays = (rho**2 + 1 if form == "full" else 1) * D - rho * mixing_macs
    return math.ceil(rho * (rho + 1) * D**2 / pays) if pays > 0 else None
