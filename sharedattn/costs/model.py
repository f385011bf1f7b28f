"""The closed-form cost of a placement: params, MACs, attention memory.

Each mechanism states its own cost; this module adds them up layer by layer. The figures are exact:
`sharedattn.costs.flop_counters` counts the same on built networks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sharedattn.backbones import describe
from sharedattn.image_size import ImageSize
from sharedattn.mechanisms import broadcasting, residual
from sharedattn.mechanisms.interface import NO_COST, SCORES, PartCost
from sharedattn.mechanisms.registry import gate_of, is_always_listed, registry
from sharedattn.networks.conv_block import has_gate_norm
from sharedattn.networks.legality import held_after
from sharedattn.networks.state import Key
from sharedattn.placement import (
    BackboneSpec,
    GateCell,
    LayerChoice,
    MechanismOptions,
    Placement,
)
from sharedattn.shape import StageShape, batch_norm_macs, layer_norm_macs
from sharedattn.tasks import CLASSIFY

CONVENTION = (
    "MACs are for one image, counted as fvcore does: a multiply-add is 1, a layer norm 5 an "
    "element; biases, softmax, activations, gates, means and context broadcasting are 0"
)

_RESIZING = "an element of a resized map is 1 (nearest) or 4 (bilinear), of a pooled one 1"

_FLOAT32_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The cost of a placement.

    Attributes:
        placement: the placement's text.
        params: number of parameters.
        trainable_params: number of trained parameters, all but fixed position embeddings.
        macs: multiply-accumulates per image, counted by `CONVENTION`.
        matmul_macs: those of matrix products and convolutions: `macs` without the norms.
        attention_bytes: largest memory that any one layer's attention uses; see
            `CostModel.attention_bytes`.
        image_size: height and width of the images in pixels.
        stages: cost of each stage: its blocks, its DIA cells, and the transition into it; stem and
            head belong to none.
        mechanisms: cost by name of a branch or gate, `broadcasting`, and `rest` for stem, head,
            MLPs, convolutions, norms and layer scales; they sum to `params` and `macs`.
    """

    placement: str
    params: int
    trainable_params: int
    macs: int
    matmul_macs: int
    attention_bytes: int
    image_size: ImageSize
    stages: tuple[PartCost, ...]
    mechanisms: Mapping[str, PartCost]

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary of all fields."""
        return {
            "placement": self.placement,
            "params": self.params,
            "trainable_params": self.trainable_params,
            "macs": self.macs,
            "matmul_macs": self.matmul_macs,
            "attention_bytes": self.attention_bytes,
            "image_size": self.image_size.to_json(),
            "stages": [stage.to_json() for stage in self.stages],
            "mechanisms": {name: part.to_json() for name, part in self.mechanisms.items()},
        }


def convention_of(backbone: BackboneSpec) -> str:
    """`CONVENTION`, with what a head on a feature pyramid adds to it."""
    return CONVENTION if backbone.head == CLASSIFY else f"{CONVENTION}; {_RESIZING}"


class CostModel:
    """Costs of placements on one backbone.

    Attributes:
        backbone: the backbone.
        shape: its sizes.
        fixed: cost that no placement changes: stem, head, everything around the blocks, and the
            attention residuals.
    """

    def __init__(self, backbone: BackboneSpec, *, recorded: bool = False) -> None:
        """Read the backbone's sizes; `recorded` as in `sharedattn.backbones.describe`.

        Raises:
            InputError: the backbone is unknown or unsupported, or drops pixels.
        """
        self.backbone = backbone
        self.shape = describe(backbone, recorded=recorded)
        self._frames = tuple(
            PartCost(stage.frame_params, stage.frame_macs) for stage in self.shape.stages
        )
        self._residuals = tuple(
            _residual_cost(self.shape.stages, i)
            if backbone.options.attention_residual
            else NO_COST
            for i in range(len(self.shape.stages))
        )
        self._ends = PartCost(
            self.shape.stem_params + self.shape.head_params,
            self.shape.stem_macs + self.shape.head_macs,
        )
        self.fixed = sum((*self._frames, *self._residuals), start=self._ends)
        self._layers: list[dict[LayerChoice, PartCost]] = [{} for _ in self.shape.stages]
        self._cell_params: dict[tuple[int, str], int] = {}

    def layer(self, stage: int, choice: LayerChoice) -> PartCost:
        """The cost of a whole block; includes a DIA cell's MACs but not its shared params.

        Args:
            stage: index of the stage, from 0.
            choice: the layer's choice.

        Returns:
            Its cost, cached per stage and choice.
        """
        known = self._layers[stage]
        if choice not in known:
            known[choice] = sum(self._layer_parts(stage, choice).values(), start=NO_COST)
        return known[choice]

    def attention(self, stage: int, choice: LayerChoice) -> PartCost:
        """The cost of a layer's attention branch, without norm, MLP and gate.

        It is zero for kind N, and for blocks of convolutions that no branch follows.
        """
        if not choice.branch.has_branch(self.shape.stages[stage]):
            return NO_COST
        return choice.branch.cost(
            choice.options,
            self.shape.stages[stage],
            self.backbone.options,
            has_bias=self.has_bias(stage),
        )

    def has_bias(self, stage: int) -> bool:
        """Whether scores of a stage have a bias: relative positions or an attention residual."""
        positions = self.shape.stages[stage].attention.position_params
        return positions > 0 or self._residuals[stage] != NO_COST

    def cell_params(self, stage: int, gate: str) -> int:
        """Number of params of each cell of a gate in a stage."""
        key = stage, gate
        if key not in self._cell_params:
            sizes, options = self.shape.stages[stage], self.backbone.options
            self._cell_params[key] = gate_of(gate).cell_params(sizes, options)
        return self._cell_params[key]

    def totals(self, placement: Placement) -> PartCost:
        """Params and MACs of a placement, fast enough for tens of thousands per second.

            params = fixed + sum over layers + sum over stages of cells * params per cell
            macs = fixed + sum over layers

        Args:
            placement: a placement that the backbone supports.

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
            for cell in distinct_cells(choices):
                params += self.cell_params(stage, cell.gate)
        return PartCost(params, macs)

    def cost(self, placement: Placement) -> Cost:
        """The full cost of a placement.

        Args:
            placement: a placement that the backbone supports.

        Returns:
            The cost, by stage and by mechanism.
        """
        mechanisms = dict.fromkeys(_mechanism_names(placement), NO_COST)
        mechanisms["rest"] = sum(self._frames, start=self._ends)
        mechanisms["vanilla"] = sum(self._residuals, start=NO_COST)
        stages = []
        norm_macs = self.shape.stem_norm_macs + self.shape.head_norm_macs
        for i, choices in enumerate(placement.stages):
            norm_macs += self.shape.stages[i].frame_norm_macs
            cells = NO_COST
            for cell in distinct_cells(choices):
                own = PartCost(self.cell_params(i, cell.gate), 0)
                mechanisms[cell.gate] += own
                cells += own
            for choice in choices:
                norm_macs += _norm_macs(self.shape.stages[i], self.backbone.options, choice)
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
        """Attention memory of the most expensive layer: float32, one image, inference, not fused.

        While a layer attends, memory holds

        - its maps: W H n m elements for vanilla and less attention, with W windows of n queries
          and m keys (twice that if a vanilla layer mixes maps over heads); N S for external
          attention (c H times that in the multi-head form);
        - its external memories: 2 S D elements (2 S K in the multi-head form);
        - queries and keys held for a later less-attention layer, W (n + m) D elements, and their
          bias, H n m, from the layer that makes them to the layer before the one that maps
          them; for each group of layers that share scores. (These are the tensors' own elements;
          if one linear map also makes the values, those stay in memory too.)
        - the attention residual, H n m, from the stage's first layer to the one before its last
          vanilla layer; counted once if the held scores have it, unmapped, as their bias.

        With a fused kernel there are no maps of vanilla and less attention; training keeps the
        maps of all layers.

        Args:
            placement: a placement that the backbone supports.

        Returns:
            Bytes, the largest of these sums over all layers.
        """
        return max(
            self._attention_bytes_of(i, choices, index)
            for i, choices in enumerate(placement.stages)
            for index in range(len(choices))
        )

    def _attention_bytes_of(self, stage: int, choices: tuple[LayerChoice, ...], index: int) -> int:
        sizes = self.shape.stages[stage].attention
        held = held_after(sizes, choices, index, handed_on=self.hands_on_scores(stage))
        return self.layer_attention_bytes(
            stage,
            choices[index],
            held=held.keys,
            holds_residual=held.residual,
            bias_is_own=bias_is_own(choices[: index + 1]),
        )

    def hands_on_scores(self, stage: int) -> bool:
        """Whether the next stage takes the last scores of `stage`."""
        return stage + 1 < len(self.shape.stages) and self._residuals[stage + 1] != NO_COST

    def layer_attention_bytes(
        self,
        stage: int,
        choice: LayerChoice,
        *,
        held: Collection[Key],
        holds_residual: bool,
        bias_is_own: bool,
    ) -> int:
        """Bytes in use while one layer attends; see `attention_bytes`.

        Args:
            stage: index of the stage.
            choice: the layer's choice.
            held: channels held after it; see `sharedattn.networks.state.Held`.
            holds_residual: whether a later layer adds the attention residual, if the backbone has
                one.
            bias_is_own: whether the last scores so far have their layer's own bias, not mapped.
        """
        sizes, channels = self.shape.stages[stage], registry().channels
        if sizes.convolution is not None and not choice.branch.has_branch(sizes):
            return 0
        elements = choice.branch.attention_elements(choice.options, sizes, self.backbone.options)
        names = [name for name, _ in held if name in channels]
        has_bias = self.has_bias(stage)
        elements += sum(channels[name].elements(sizes, has_bias) for name in names)
        # The held scores' bias is then the unmapped residual itself.
        bias_is_residual = bias_is_own and not sizes.attention.position_params
        if (
            holds_residual
            and self._residuals[stage] != NO_COST
            and not (SCORES.name in names and bias_is_residual)
        ):
            elements += sizes.num_heads * sizes.attention.num_queries * sizes.attention.num_keys
        return _FLOAT32_BYTES * elements

    def _layer_parts(self, stage: int, choice: LayerChoice) -> dict[str, PartCost]:
        """A block's cost by mechanism, without its gate's cell params."""
        sizes, options = self.shape.stages[stage], self.backbone.options
        parts = {"rest": _block_frame(sizes, choice)}
        if choice.branch.has_branch(sizes):
            parts[choice.branch.name] = self.attention(stage, choice)
        if choice.gate is not None:
            gate = gate_of(choice.gate.gate)
            parts[gate.name] = PartCost(0, gate.macs(sizes, options))
            parts[gate.name] += _gate_norm_cost(sizes, options, choice)
        if choice.cb:
            scaled = options.broadcasting_form == "scaled"
            own = broadcasting.params(sizes.embed_dim, scaled=scaled)
            parts["broadcasting"] = PartCost(own, 0)
        return parts


def distinct_cells(choices: tuple[LayerChoice, ...]) -> frozenset[GateCell]:
    """The distinct cells of a stage's layers."""
    return frozenset(choice.gate for choice in choices if choice.gate is not None)


def _mechanism_names(placement: Placement) -> tuple[str, ...]:
    """Names of mechanisms in a cost: ours, and other ones that the placement uses."""
    known = registry()
    kinds = {choice.kind for choice in placement.layers}
    gates = {choice.gate.gate for choice in placement.layers if choice.gate is not None}
    branches = [b for b in known.branches.values() if b.attends]
    return (
        *(b.name for b in branches if is_always_listed(b) or b.letter in kinds),
        *(g.name for g in known.gates.values() if is_always_listed(g) or g.name in gates),
        "broadcasting",
        "rest",
    )


def _residual_cost(stages: tuple[StageShape, ...], i: int) -> PartCost:
    """Cost of the attention residual into stage `i`; zero for the first."""
    if i == 0:
        return NO_COST
    before, stage = stages[i - 1], stages[i]
    has_bias = i > 1 or before.attention.position_params > 0
    macs = residual.macs(before, stage, has_bias=has_bias)
    return PartCost(residual.params(before, stage), macs)


def bias_is_own(choices: Sequence[LayerChoice]) -> bool:
    """Whether the last scores that these layers make have their own bias, not a mapped one."""
    biases = [
        choice.branch.score_bias(choice.options)
        for choice in choices
        if SCORES in choice.branch.leaves
    ]
    return [bias for bias in biases if bias != "kept"][-1:] == ["own"]


def _gate_norm_cost(sizes: StageShape, options: MechanismOptions, choice: LayerChoice) -> PartCost:
    """Cost of the batch norm before a layer's gate."""
    if choice.gate is None or not has_gate_norm(sizes, options):
        return NO_COST
    C = sizes.embed_dim
    return PartCost(2 * C, batch_norm_macs(sizes.num_tokens, C))


def _norm_macs(sizes: StageShape, options: MechanismOptions, choice: LayerChoice) -> int:
    branch = choice.branch
    norms = 0 if choice.gate is None else gate_of(choice.gate.gate).norm_macs(sizes, options)
    if sizes.convolution is not None:
        norms += _gate_norm_cost(sizes, options, choice).macs
        if choice.branch.has_branch(sizes):
            norms += branch.norm_macs(choice.options, sizes)
        return norms + (0 if branch.is_absent else sizes.convolution.block_norm_macs)
    norms += branch.num_norms * layer_norm_macs(sizes.num_tokens, sizes.embed_dim)
    if branch.attends:
        norms += branch.norm_macs(choice.options, sizes)
    return norms + (sizes.mlp_norm_macs if branch.feeds_forward else 0)


def _block_frame(sizes: StageShape, choice: LayerChoice) -> PartCost:
    """Norms, layer scales and MLP; for kind N only those of the MLP branch.

    A block of convolutions belongs to it whole.
    """
    if sizes.convolution is not None:
        block = sizes.convolution
        is_there = not choice.is_absent
        return PartCost(block.block_params * is_there, block.block_macs * is_there)
    D, branch = sizes.embed_dim, choice.branch
    num_branches = branch.attends + branch.feeds_forward
    frame = PartCost(
        branch.num_norms * 2 * D + num_branches * D * sizes.layer_scale,
        branch.num_norms * layer_norm_macs(sizes.num_tokens, D),
    )
    return frame + PartCost(sizes.mlp_params, sizes.mlp_macs) if branch.feeds_forward else frame
