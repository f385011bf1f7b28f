"""What a placement costs, in closed form: params, MACs, attention memory.

Each mechanism states its own cost beside its module; this module adds them up, layer by layer. The
figures are exact: `sharedattn.referees` counts the same on the built networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sharedattn.attention import broadcasting, dia, external, less, vanilla
from sharedattn.backbones import describe
from sharedattn.placement import BackboneSpec, Kind, LayerChoice, Placement
from sharedattn.shape import StageShape, layer_norm_macs

CONVENTION = (
    "MACs are for one image, counted as fvcore does: a multiply-add is 1, a layer norm 5 an "
    "element; biases, softmax, activations, gates, means and context broadcasting are 0"
)

MECHANISMS = ("vanilla", "less", "external", "dia", "broadcasting", "rest")
"""Where a cost belongs: `rest` is stem, head, MLPs, norms and layer scales."""

_FLOAT32_BYTES = 4


@dataclass(frozen=True, slots=True)
class PartCost:
    """The cost of a part of a network.

    Attributes:
        params: parameters.
        macs: multiply-accumulates for one image.
    """

    params: int
    macs: int

    def __add__(self, other: PartCost) -> PartCost:
        return PartCost(self.params + other.params, self.macs + other.macs)

    def to_json(self) -> dict[str, int]:
        """The two figures by name."""
        return {"params": self.params, "macs": self.macs}


_NOTHING = PartCost(0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The cost of a placement.

    Attributes:
        placement: its text.
        params: parameters of the network.
        macs: multiply-accumulates for one image; `CONVENTION` says what counts.
        matmul_macs: the share of matrix products and convolutions: `macs` without the norms.
        attention_bytes: the most that the attention of any one layer keeps in memory; see
            `CostModel.attention_bytes`.
        image_size: pixels on a side.
        stages: per stage, its blocks and DIA cells; stem and head are in none.
        mechanisms: per name in `MECHANISMS`; they sum to `params` and `macs`.
    """

    placement: str
    params: int
    macs: int
    matmul_macs: int
    attention_bytes: int
    image_size: int
    stages: tuple[PartCost, ...]
    mechanisms: Mapping[str, PartCost]

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary of every field."""
        return {
            "placement": self.placement,
            "params": self.params,
            "macs": self.macs,
            "matmul_macs": self.matmul_macs,
            "attention_bytes": self.attention_bytes,
            "image_size": self.image_size,
            "stages": [stage.to_json() for stage in self.stages],
            "mechanisms": {name: part.to_json() for name, part in self.mechanisms.items()},
        }


class CostModel:
    """Costs of placements on one backbone.

    Attributes:
        backbone: the backbone.
        shape: its sizes.
        fixed: stem and head, which no placement changes.
    """

    def __init__(self, backbone: BackboneSpec) -> None:
        """Read the backbone's sizes.

        Raises:
            InputError: a backbone that is unknown or not understood.
        """
        self.backbone = backbone
        self.shape = describe(backbone)
        self.fixed = PartCost(
            self.shape.stem_params + self.shape.head_params,
            self.shape.stem_macs + self.shape.head_macs,
        )
        self._layers: list[dict[LayerChoice, PartCost]] = [{} for _ in self.shape.stages]

    def layer(self, stage: int, choice: LayerChoice) -> PartCost:
        """A whole block; a DIA cell's MACs are in it, its params are not, being shared.

        Args:
            stage: index of the stage, from 0.
            choice: what the layer does.

        Returns:
            Its cost, remembered per stage and choice.
        """
        known = self._layers[stage]
        if choice not in known:
            known[choice] = sum(self._layer_parts(stage, choice).values(), start=_NOTHING)
        return known[choice]

    def dia_cell_params(self, stage: int) -> int:
        """Params of each distinct DIA cell of a stage."""
        return dia.params(self.shape.stages[stage].embed_dim, self.backbone.options.dia_reduction)

    def totals(self, placement: Placement) -> PartCost:
        """Params and MACs of a placement: the fast way, for tens of thousands a second.

            params = fixed + sum over layers + sum over stages of cells * params of a cell
            macs = fixed + sum over layers

        Args:
            placement: a placement that the backbone can hold.

        Returns:
            The network's cost.
        """
        params, macs = self.fixed.params, self.fixed.macs
        for stage, choices in enumerate(placement.stages):
            known = self._layers[stage]
            for choice in choices:
                part = known.get(choice) or self.layer(stage, choice)
                params += part.params
                macs += part.macs
            cells = _num_dia_cells(choices)
            if cells:
                params += cells * self.dia_cell_params(stage)
        return PartCost(params, macs)

    def cost(self, placement: Placement) -> Cost:
        """Every figure of a placement.

        Args:
            placement: a placement that the backbone can hold.

        Returns:
            The cost, by stage and by mechanism.
        """
        mechanisms = {name: _NOTHING for name in MECHANISMS}
        mechanisms["rest"] = self.fixed
        stages = []
        norm_macs = self.shape.stem_norm_macs + self.shape.head_norm_macs
        for i, choices in enumerate(placement.stages):
            cells = PartCost(_num_dia_cells(choices) * self.dia_cell_params(i), 0)
            mechanisms["dia"] += cells
            for choice in choices:
                norm_macs += _norm_macs(self.shape.stages[i], choice)
                for name, part in self._layer_parts(i, choice).items():
                    mechanisms[name] += part
            stages.append(sum((self.layer(i, choice) for choice in choices), start=cells))
        total = sum(stages, start=self.fixed)
        return Cost(
            placement=str(placement),
            params=total.params,
            macs=total.macs,
            matmul_macs=total.macs - norm_macs,
            attention_bytes=self.attention_bytes(placement),
            image_size=self.shape.image_size,
            stages=tuple(stages),
            mechanisms=mechanisms,
        )

    def attention_bytes(self, placement: Placement) -> int:
        """Memory of the dearest layer's attention: float32, one image, inference, no fused kernel.

        While a layer attends there are alive

        - its maps: H N^2 elements of vanilla and less attention, N S of external attention (c H
          times that in the multi-head form);
        - its external memories: 2 S D elements (2 S K in the multi-head form);
        - queries and keys held for a later less-attention layer: 2 N D elements, from the layer
          that makes them up to the layer before the one that transforms them.

        With a fused kernel there are no maps of vanilla and less attention; training keeps the
        maps of all layers.

        Args:
            placement: a placement that the backbone can hold.

        Returns:
            Bytes: the largest of these sums over all layers.
        """
        return _FLOAT32_BYTES * max(
            self._attention_elements(stage, choices, index)
            for stage, choices in zip(self.shape.stages, placement.stages, strict=True)
            for index in range(len(choices))
        )

    def _attention_elements(
        self, stage: StageShape, choices: tuple[LayerChoice, ...], index: int
    ) -> int:
        N, D, H = stage.num_tokens, stage.embed_dim, stage.num_heads
        choice = choices[index]
        options = self.backbone.options
        elements = 0
        if choice.kind in (Kind.VANILLA, Kind.LESS):
            elements = H * N**2
        elif choice.slots is not None and options.external_form == "single":
            elements = N * choice.slots + 2 * choice.slots * D
        elif choice.slots is not None:
            maps = options.external_expansion * H * N * choice.slots
            elements = maps + 2 * choice.slots * stage.head_dim
        later = [c.kind for c in choices[index + 1 :] if c.kind in (Kind.VANILLA, Kind.LESS)]
        # If an L comes before another V, what it transforms has been made: a valid placement has
        # a V before its first L.
        held = later[:1] == [Kind.LESS]
        return elements + 2 * N * D * held

    def _layer_parts(self, stage: int, choice: LayerChoice) -> dict[str, PartCost]:
        """A block's cost by mechanism, the params of its DIA cell left out."""
        sizes = self.shape.stages[stage]
        options = self.backbone.options
        N, D, H = sizes.num_tokens, sizes.embed_dim, sizes.num_heads
        biases = {"qkv_bias": sizes.qkv_bias, "proj_bias": sizes.proj_bias}
        parts = {"rest": _block_frame(sizes, choice)}
        if choice.kind is Kind.VANILLA:
            parts["vanilla"] = PartCost(vanilla.params(D, **biases), vanilla.macs(N, D))
        elif choice.kind is Kind.LESS:
            parts["less"] = PartCost(less.params(N, D, **biases), less.macs(N, D))
        elif choice.slots is not None:
            S, c = choice.slots, options.external_expansion
            parts["external"] = (
                PartCost(external.params(D, S), external.macs(N, D, S))
                if options.external_form == "single"
                else PartCost(
                    external.multi_head_params(D, H, S, c), external.multi_head_macs(N, D, S, c)
                )
            )
        if choice.dia is not None:
            parts["dia"] = PartCost(0, dia.macs(D, options.dia_reduction))
        if choice.cb:
            scaled = options.broadcasting_form == "scaled"
            parts["broadcasting"] = PartCost(broadcasting.params(D, scaled=scaled), 0)
        return parts


def _num_norms(choice: LayerChoice) -> int:
    return 1 if choice.kind is Kind.NONE else 2


def _norm_macs(sizes: StageShape, choice: LayerChoice) -> int:
    return _num_norms(choice) * layer_norm_macs(sizes.num_tokens, sizes.embed_dim)


def _block_frame(sizes: StageShape, choice: LayerChoice) -> PartCost:
    """Norms, layer scales and MLP; a layer of kind N has the MLP branch's alone."""
    D, M = sizes.embed_dim, sizes.mlp_hidden_dim
    num_branches = _num_norms(choice)
    norm_params = 2 * D
    mlp_params = 2 * D * M + (D + M) * sizes.proj_bias
    return PartCost(
        num_branches * (norm_params + D * sizes.layer_scale) + mlp_params,
        _norm_macs(sizes, choice) + 2 * sizes.num_tokens * D * M,
    )


def _num_dia_cells(choices: tuple[LayerChoice, ...]) -> int:
    return len({choice.dia for choice in choices} - {None})


@dataclass(frozen=True, slots=True, kw_only=True)
class LessAttentionEconomics:
    """What one less-attention layer saves against a vanilla one in a stage.

    Attributes:
        num_tokens: N of the stage.
        embed_dim: D of the stage.
        vanilla_macs: attention of a vanilla layer, for one image.
        less_macs: attention of a less-attention layer, factored as it is computed here.
        paper_form_macs: the same layer with maps applied to every head's scores, as printed.
        saved_macs: what a less-attention layer saves; negative where it costs more.
        break_even_tokens: it saves exactly where N is below this, which is D.
    """

    num_tokens: int
    embed_dim: int
    vanilla_macs: int
    less_macs: int
    paper_form_macs: int
    saved_macs: int
    break_even_tokens: int

    def to_json(self) -> dict[str, int]:
        """A plain dictionary of every field."""
        return {name: getattr(self, name) for name in self.__slots__}


def less_attention_economics(backbone: BackboneSpec, stage: int) -> LessAttentionEconomics:
    """Whether less attention pays in a stage.

    With N tokens and D channels a layer saves 2 N D (D - N) MACs: the difference of
    `vanilla.macs` and `less.macs`.

    Args:
        backbone: the backbone.
        stage: index of the stage, from 0.

    Returns:
        The figures of one layer.

    Raises:
        InputError: a backbone that is unknown or not understood.
    """
    sizes = describe(backbone).stages[stage]
    N, D = sizes.num_tokens, sizes.embed_dim
    return LessAttentionEconomics(
        num_tokens=N,
        embed_dim=D,
        vanilla_macs=vanilla.macs(N, D),
        less_macs=less.macs(N, D),
        paper_form_macs=less.paper_form_macs(N, D, sizes.num_heads),
        saved_macs=vanilla.macs(N, D) - less.macs(N, D),
        break_even_tokens=D,
    )
