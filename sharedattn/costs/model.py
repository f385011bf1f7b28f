"""What a placement costs, in closed form: params, MACs, attention memory.

Each mechanism states its own cost beside its module; this module adds them up, layer by layer. The
figures are exact: `sharedattn.costs.flop_counters` counts the same on the built networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sharedattn.backbones import describe
from sharedattn.mechanisms import broadcasting, dia, external, less, residual, vanilla
from sharedattn.networks.legality import held_groups, held_residual, map_form
from sharedattn.placement import BackboneSpec, Kind, LayerChoice, Placement
from sharedattn.placement.shape import StageShape, layer_norm_macs

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
        trainable_params: those that training changes: all but fixed position embeddings.
        macs: multiply-accumulates for one image; `CONVENTION` says what counts.
        matmul_macs: the share of matrix products and convolutions: `macs` without the norms.
        attention_bytes: the most that the attention of any one layer keeps in memory; see
            `CostModel.attention_bytes`.
        image_size: pixels on a side.
        stages: per stage, its blocks and DIA cells, and what leads into it; stem and head are in
            none.
        mechanisms: per name in `MECHANISMS`; they sum to `params` and `macs`.
    """

    placement: str
    params: int
    trainable_params: int
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
            "trainable_params": self.trainable_params,
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
        fixed: stem, head, what stands around the blocks of each stage, and the attention
            residuals: what no placement changes.
    """

    def __init__(self, backbone: BackboneSpec, *, recorded: bool = False) -> None:
        """Read the backbone's sizes; `recorded` as `sharedattn.backbones.describe` has it.

        Raises:
            InputError: a backbone that is unknown, not understood, or cuts off pixels.
        """
        self.backbone = backbone
        self.shape = describe(backbone, recorded=recorded)
        self._frames = tuple(
            PartCost(stage.frame_params, stage.frame_macs) for stage in self.shape.stages
        )
        self._residuals = tuple(
            _residual_cost(self.shape.stages, i)
            if backbone.options.attention_residual
            else _NOTHING
            for i in range(len(self.shape.stages))
        )
        self._ends = PartCost(
            self.shape.stem_params + self.shape.head_params,
            self.shape.stem_macs + self.shape.head_macs,
        )
        self.fixed = sum((*self._frames, *self._residuals), start=self._ends)
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

    def attention(self, stage: int, choice: LayerChoice) -> PartCost:
        """The attention branch of a layer alone: no norm, no MLP, no gate; nothing for kind N."""
        parts = self._layer_parts(stage, choice)
        return sum(
            (parts[name] for name in ("vanilla", "less", "external") if name in parts),
            start=_NOTHING,
        )

    def has_bias(self, stage: int) -> bool:
        """Whether scores of a stage carry a bias: relative positions, an attention residual."""
        positions = self.shape.stages[stage].attention.position_params
        return positions > 0 or self._residuals[stage] != _NOTHING

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
        mechanisms["rest"] = sum(self._frames, start=self._ends)
        mechanisms["vanilla"] = sum(self._residuals, start=_NOTHING)
        stages = []
        norm_macs = self.shape.stem_norm_macs + self.shape.head_norm_macs
        for i, choices in enumerate(placement.stages):
            norm_macs += self.shape.stages[i].frame_norm_macs
            cells = PartCost(_num_dia_cells(choices) * self.dia_cell_params(i), 0)
            mechanisms["dia"] += cells
            for choice in choices:
                norm_macs += _norm_macs(self.shape.stages[i], choice)
                for name, part in self._layer_parts(i, choice).items():
                    mechanisms[name] += part
            around = cells + self._frames[i] + self._residuals[i]
            stages.append(sum((self.layer(i, choice) for choice in choices), start=around))
        total = sum(stages, start=self._ends)
        return Cost(
            placement=str(placement),
            params=total.params,
            trainable_params=total.params - self.shape.num_frozen_params,
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

        - its maps: W H n m elements of vanilla and less attention, W windows of n queries and m
          keys (twice that where a vanilla layer mixes maps over heads), N S of external attention
          (c H times that in the multi-head form);
        - its external memories: 2 S D elements (2 S K in the multi-head form);
        - queries and keys held for a later less-attention layer, W (n + m) D elements, and a bias
          of theirs, H n m, from the layer that makes them up to the layer before the one that
          transforms them; for each group of layers that share scores. (Elements of the tensors:
          where one linear map makes values along with them, the values stay in memory too.)
        - the attention residual, H n m, from the stage's first layer to the layer before its last
          vanilla one; once, where the scores that are held have it as their bias as it is.

        With a fused kernel there are no maps of vanilla and less attention; training keeps the
        maps of all layers.

        Args:
            placement: a placement that the backbone can hold.

        Returns:
            Bytes: the largest of these sums over all layers.
        """
        return max(
            self.layer_attention_bytes(
                i,
                choice,
                num_held=len(
                    held_groups(
                        self.shape.stages[i].attention,
                        choices,
                        index,
                        handed_on=self.hands_on_scores(i),
                    )
                ),
                holds_residual=held_residual(choices, index),
                last_is_vanilla=_last_is_vanilla(choices[: index + 1]),
            )
            for i, choices in enumerate(placement.stages)
            for index, choice in enumerate(choices)
        )

    def hands_on_scores(self, stage: int) -> bool:
        """Whether the stage after `stage` takes the last scores of `stage`."""
        return stage + 1 < len(self.shape.stages) and self._residuals[stage + 1] != _NOTHING

    def layer_attention_bytes(
        self,
        stage: int,
        choice: LayerChoice,
        *,
        num_held: int,
        holds_residual: bool,
        last_is_vanilla: bool,
    ) -> int:
        """What is alive while one layer attends, in bytes; see `attention_bytes`.

        Args:
            stage: index of the stage.
            choice: what the layer does.
            num_held: groups whose scores are held after it.
            holds_residual: whether a later vanilla layer adds the attention residual, if the
                backbone has one.
            last_is_vanilla: whether the last scores made up to here are a vanilla layer's.
        """
        sizes = self.shape.stages[stage]
        n, m, W = (
            sizes.attention.num_queries,
            sizes.attention.num_keys,
            sizes.attention.num_windows,
        )
        scores = sizes.num_heads * n * m
        elements = self._own_attention_elements(stage, choice)
        elements += num_held * (
            W * (n + m) * sizes.embed_dim + (scores if self.has_bias(stage) else 0)
        )
        # The scores that are held have the residual for their bias as it came, unmapped.
        bias_is_residual = last_is_vanilla and not sizes.attention.position_params
        if (
            holds_residual
            and self._residuals[stage] != _NOTHING
            and not (num_held and bias_is_residual)
        ):
            elements += scores
        return _FLOAT32_BYTES * elements

    def _own_attention_elements(self, stage: int, choice: LayerChoice) -> int:
        """Maps and external memories of a layer."""
        sizes = self.shape.stages[stage]
        if choice.kind in (Kind.VANILLA, Kind.LESS):
            shape = sizes.attention
            mixed = shape.head_mixing and choice.kind is Kind.VANILLA
            maps = shape.num_windows * sizes.num_heads * shape.num_queries * shape.num_keys
            return maps * (1 + mixed)
        if choice.slots is None:
            return 0
        if choice.form is None:
            return (sizes.num_tokens + 2 * sizes.embed_dim) * choice.slots
        maps_per_slot = (
            self.backbone.options.external_expansion * sizes.num_heads * sizes.num_tokens
        )
        return (maps_per_slot + 2 * sizes.head_dim) * choice.slots

    def _layer_parts(self, stage: int, choice: LayerChoice) -> dict[str, PartCost]:
        """A block's cost by mechanism, the params of its DIA cell left out."""
        sizes = self.shape.stages[stage]
        options = self.backbone.options
        N, D, H = sizes.num_tokens, sizes.embed_dim, sizes.num_heads
        n, m = sizes.attention.num_queries, sizes.attention.num_keys
        windows = {"num_keys": m, "num_windows": sizes.attention.num_windows}
        context = PartCost(sizes.attention.context_params, sizes.attention.context_macs)
        biases = {"qkv_bias": sizes.qkv_bias, "proj_bias": sizes.proj_bias}
        parts = {"rest": _block_frame(sizes, choice)}
        if choice.kind is Kind.VANILLA:
            own = PartCost(vanilla.params(D, **biases), vanilla.macs(n, D, **windows))
            parts["vanilla"] = own + context + _own_scores_cost(sizes)
        elif choice.kind is Kind.LESS:
            form = map_form(sizes, choice)
            own = PartCost(
                less.params(n, D, num_keys=m, form=form, **biases),
                less.macs(n, D, form=form, **windows),
            )
            bias = PartCost(0, less.bias_macs(form, n, m, H) if self.has_bias(stage) else 0)
            parts["less"] = own + context + bias
        elif choice.slots is not None:
            S, c = choice.slots, options.external_expansion
            parts["external"] = (
                PartCost(external.params(D, S), external.macs(N, D, S))
                if choice.form is None
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


def _own_scores_cost(sizes: StageShape) -> PartCost:
    """What a vanilla layer has beyond its linear maps: position bias and mixing of maps."""
    shape = sizes.attention
    n, m, W, H = shape.num_queries, shape.num_keys, shape.num_windows, sizes.num_heads
    position = PartCost(shape.position_params, 0)
    if not shape.head_mixing:
        return position
    return position + PartCost(
        vanilla.head_mixing_params(H), vanilla.head_mixing_macs(n, m, H, num_windows=W)
    )


def _residual_cost(stages: tuple[StageShape, ...], i: int) -> PartCost:
    """The attention residual into stage `i`; none into the first."""
    if i == 0:
        return _NOTHING
    before, stage = stages[i - 1], stages[i]
    has_bias = i > 1 or before.attention.position_params > 0
    macs = residual.macs(before, stage, has_bias=has_bias)
    return PartCost(residual.params(before, stage), macs)


def _last_is_vanilla(choices: tuple[LayerChoice, ...]) -> bool:
    """Whether the last scores that these layers made are a vanilla layer's."""
    made_by = [
        choice.kind
        for choice in choices
        if choice.kind in (Kind.VANILLA, Kind.LESS) and choice.form != "reuse"
    ]
    return made_by[-1:] == [Kind.VANILLA]


def _num_norms(choice: LayerChoice) -> int:
    return 1 if choice.kind is Kind.NONE else 2


def _norm_macs(sizes: StageShape, choice: LayerChoice) -> int:
    norms = _num_norms(choice) * layer_norm_macs(sizes.num_tokens, sizes.embed_dim)
    if choice.kind in (Kind.VANILLA, Kind.LESS):
        norms += sizes.attention.context_norm_macs
    if choice.kind is Kind.VANILLA and sizes.attention.head_mixing:
        shape = sizes.attention
        norms += vanilla.head_mixing_norm_macs(
            shape.num_queries, shape.num_keys, sizes.num_heads, num_windows=shape.num_windows
        )
    return norms + sizes.mlp_norm_macs


def _block_frame(sizes: StageShape, choice: LayerChoice) -> PartCost:
    """Norms, layer scales and MLP; a layer of kind N has the MLP branch's alone."""
    D = sizes.embed_dim
    num_branches = _num_norms(choice)
    norm_params = 2 * D
    return PartCost(
        num_branches * (norm_params + D * sizes.layer_scale) + sizes.mlp_params,
        num_branches * layer_norm_macs(sizes.num_tokens, D) + sizes.mlp_macs,
    )


def _num_dia_cells(choices: tuple[LayerChoice, ...]) -> int:
    return len({choice.dia for choice in choices} - {None})
