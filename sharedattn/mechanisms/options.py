"""Options of the mechanisms that apply to a whole network."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from sharedattn.errors import InputError

_LATER_OPTIONS = frozenset(
    {
        "bn",
        "cbam_reduction",
        "dia_form",
        "dia_start",
        "gate_norm",
        "gc_reduction",
        "se_reduction",
        "sge_groups",
    }
)
"""Options added to `MechanismOptions` after specs of this format had been stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MechanismOptions:
    """Forms of the mechanisms that hold for a whole network.

    Attributes:
        external_expansion: c, by which the multi-head form of external attention widens the
            query and multiplies the heads.
        broadcasting_form: plain context broadcasting, or with a learned scale per channel.
        dia_reduction: r of the DIA cell's bottleneck, which has floor(D / r) channels.
        dia_start: `paper` for the published DIA cell, whose gates start near a quarter, or `one`
            for ours, whose gates start at exactly 1, so that a new unit changes nothing.
        dia_form: `paper` for the published DIA cell, with a net of the input and one of the
            carried state, or `light` for our reading of DIA-LSTM Light, with one net of their sum.
        class_token_in_mean: whether prefix tokens enter the token means of CB and DIA.
        handover: source of a less-attention layer's scores under shifted windows: the last layer
            of `equal_shift`, or the `previous` layer, whose windows differ.
        attention_residual: whether the pooled scores at a stage's end are added to those of the
            next stage's vanilla layers.
        gate_norm: whether gated blocks of a pre-activation network have a batch norm between their
            last convolution and the gate, as in DIANet's code; other blocks end with one anyway.
        se_reduction: r of the SE unit's bottleneck, which has floor(D / r) channels.
        cbam_reduction: the same of the CBAM unit.
        gc_reduction: the same of the GC unit.
        sge_groups: number of groups of channels of the SGE unit.
        bn: whether each layer has its own statistics of the batch norm in a gate's unit
            (`per_site`), or all layers that share the unit have one (`shared`).

    Raises:
        InputError: a form that does not exist, or a number below 1.
    """

    external_expansion: int = 4
    broadcasting_form: Literal["plain", "scaled"] = "plain"
    dia_reduction: int = 4
    class_token_in_mean: bool = True
    handover: Literal["equal_shift", "previous"] = "equal_shift"
    attention_residual: bool = False
    dia_start: Literal["paper", "one"] = "paper"
    gate_norm: bool = False
    se_reduction: int = 16
    cbam_reduction: int = 16
    gc_reduction: int = 16
    sge_groups: int = 64
    bn: Literal["per_site", "shared"] = "per_site"
    dia_form: Literal["paper", "light"] = "paper"

    def __post_init__(self) -> None:
        forms = {
            "broadcasting_form": ("plain", "scaled"),
            "class_token_in_mean": (True, False),
            "handover": ("equal_shift", "previous"),
            "attention_residual": (True, False),
            "dia_start": ("paper", "one"),
            "gate_norm": (True, False),
            "bn": ("per_site", "shared"),
            "dia_form": ("paper", "light"),
        }
        for name, known in forms.items():
            value = getattr(self, name)
            if type(value) is not type(known[0]) or value not in known:
                raise InputError(
                    f"`{name}` is one of {', '.join(map(str, known))}, but got {value!r}"
                )
        for name in (
            "external_expansion",
            "dia_reduction",
            "se_reduction",
            "cbam_reduction",
            "gc_reduction",
            "sge_groups",
        ):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise InputError(
                    f"`{name}` is {getattr(self, name)!r}; it is a whole number of at least 1"
                )

    def num_left_out(self, num_prefix_tokens: int) -> int:
        """Number of a stage's prefix tokens, its first, that enter no mean."""
        return 0 if self.class_token_in_mean else num_prefix_tokens

    def changed(self) -> dict[str, Any]:
        """The options that differ from the defaults, by name."""
        return {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if getattr(self, f.name) != f.default
        }

    def to_json(self) -> dict[str, Any]:
        """Every original option of `SPEC_FORMAT_VERSION`, and later ones that are changed.

        Later ones are omitted at their defaults, so that specs keep their keys.
        """
        changed = self.changed()
        return {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.name in changed or f.name not in _LATER_OPTIONS
        }
