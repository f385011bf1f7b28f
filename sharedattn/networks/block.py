"""The block that every family is made of: a pre-norm transformer block that can do every choice.

A family hands over its backbone's own norms, attention and MLP, and overrides what differs.

Shape letters: B batch, N tokens, D embed_dim, H heads, S slots, M keys.
"""

from __future__ import annotations

from collections.abc import Collection
from copy import deepcopy
from typing import Any

from torch import Tensor, nn

from sharedattn.mechanisms.broadcasting import (
    ContextBroadcasting,
    ScaledContextBroadcasting,
    token_mean,
)
from sharedattn.mechanisms.external import ExternalAttention, MultiHeadExternalAttention
from sharedattn.mechanisms.less import ScoreMaps, make_maps
from sharedattn.mechanisms.vanilla import ScoredAttention
from sharedattn.networks.state import Recorder, StartedLayer, State
from sharedattn.placement import Kind, LayerChoice, LayerEnvelope, MechanismOptions
from sharedattn.placement.shape import StageShape

# Norms that a supernet may have in the place of `norm1`.
_OWN_NORMS = {Kind.LESS: "norm1_less", Kind.EXTERNAL: "norm1_external"}


class Block(nn.Module):
    """A pre-norm transformer block that can do everything its layer position asks for.

    The attention branch is vanilla, less, external, or absent. The MLP's branch goes through
    fc2, context broadcasting, the DIA gate, layer scale and stochastic depth, in this order, so
    the DIA state follows the undropped branch. `norm2` and the MLP serve every choice; `norm1`
    serves every kind of attention, unless `separate_norms` says otherwise; values and output
    projection serve vanilla and less.
    """

    def __init__(
        self,
        block: Any,
        attention: ScoredAttention | None,
        position: LayerEnvelope,
        stage: StageShape,
        options: MechanismOptions,
    ) -> None:
        """Take over the parts of a backbone's block that the position needs; add the mechanisms.

        Args:
            block: the backbone's block of this position, with `norm1`, `norm2`, `mlp`, and where
                it has them `ls1`, `ls2`, `drop_path1`, `drop_path2` (or `drop_path` for both).
            attention: what serves vanilla and less attention, made of the block's own; None where
                the position has neither.
            position: what the layer must be able to do.
            stage: sizes of the stage.
            options: forms of the mechanisms.
        """
        super().__init__()
        D, H = stage.embed_dim, stage.num_heads
        self.num_left_out = 0 if options.class_token_in_mean else stage.num_prefix_tokens
        has_attention = bool(position.kinds - {Kind.NONE})
        if has_attention:
            self.norm1 = block.norm1
        if attention is not None:
            self.attn = attention
        sizes = stage.attention
        self.default_less_form = sizes.default_form
        for form in position.forms_of(Kind.LESS):
            maps = make_maps(form or sizes.default_form, sizes.num_queries, sizes.num_keys)
            self.add_module(_module_name("less", form), maps)
        for form in position.forms_of(Kind.EXTERNAL):
            self.add_module(
                _module_name("external", form),
                ExternalAttention(D, position.max_slots)
                if form is None
                else MultiHeadExternalAttention(
                    D, position.max_slots, H, options.external_expansion
                ),
            )
        if has_attention:
            self.ls1 = getattr(block, "ls1", nn.Identity())
            self.drop_path1 = _drop_path(block, "drop_path1")
        self.norm2 = block.norm2
        self.mlp = block.mlp
        if position.cb:
            self.broadcasting = (
                ContextBroadcasting()
                if options.broadcasting_form == "plain"
                else ScaledContextBroadcasting(D)
            )
        self.ls2 = getattr(block, "ls2", nn.Identity())
        self.drop_path2 = _drop_path(block, "drop_path2")

    def forward(
        self,
        x_BND: Tensor,
        state: State,
        choice: LayerChoice,
        group: int,
        dia_cell: nn.Module | None,
        recorder: Recorder,
    ) -> tuple[Tensor, State]:
        """One layer: `start` and `complete`.

        Args:
            x_BND: (B, N, D).
            state: from the layer before.
            choice: what the layer does.
            group: which layers it shares scores with.
            dia_cell: the cell that `choice.dia` names; None without one.
            recorder: takes the attention maps and the gate.

        Returns:
            Tokens (B, N, D) and the state for the next layer.
        """
        started = self.start(x_BND, state, choice, group, recorder)
        return self.complete(started, choice, dia_cell, recorder)

    def start(
        self, x_BND: Tensor, state: State, choice: LayerChoice, group: int, recorder: Recorder
    ) -> StartedLayer:
        """The layer as far as its CB and DIA do not matter; arguments as `forward` has them."""
        maps = None
        if choice.kind is not Kind.NONE:
            normed_BND = self.norm_of(choice.kind)(x_BND)
            branch_BND, maps, state = self._attend(
                normed_BND, state, choice, group, recorder.wants_maps(choice.kind)
            )
            x_BND = x_BND + self.drop_path1(self.ls1(branch_BND))
        return StartedLayer(x_BND, self.feed_forward(self.norm2(x_BND)), state, maps)

    def separate_norms(self, kinds: Collection[Kind]) -> None:
        """Give less and external attention norms of their own, which begin as copies.

        Args:
            kinds: those that the layer position may have.
        """
        for kind, name in _OWN_NORMS.items():
            if kind in kinds:
                self.add_module(name, deepcopy(self.norm1))

    def norm_of(self, kind: Kind) -> nn.Module:
        """The norm before the attention of a kind, which is not none."""
        norm: nn.Module = getattr(self, _OWN_NORMS.get(kind, "norm1"), self.norm1)
        return norm

    def complete(
        self,
        started: StartedLayer,
        choice: LayerChoice,
        dia_cell: nn.Module | None,
        recorder: Recorder,
    ) -> tuple[Tensor, State]:
        """The rest of a layer that `start` began; arguments and result as `forward` has them."""
        branch_BND, state, gate_BD = started.branch, started.state, None
        if choice.cb:
            branch_BND = self.broadcasting(branch_BND, self.num_left_out)
        if choice.dia is not None and dia_cell is not None:
            mean_BD = token_mean(branch_BND, self.num_left_out).squeeze(1)
            gate_BD, c_BD = dia_cell(mean_BD, state.dia.get(choice.dia))
            state = state.with_dia(choice.dia, (gate_BD, c_BD))
            branch_BND = branch_BND * gate_BD.unsqueeze(1)
        recorder.add(choice.kind, started.maps, gate_BD)
        return started.tokens + self.drop_path2(self.ls2(branch_BND)), state

    def feed_forward(self, x_BND: Tensor) -> Tensor:
        """The MLP of normed tokens (B, N, D)."""
        out_BND: Tensor = self.mlp(x_BND)
        return out_BND

    def _attend(
        self, x_BND: Tensor, state: State, choice: LayerChoice, group: int, with_maps: bool
    ) -> tuple[Tensor, Tensor | None, State]:
        """The attention branch of normed tokens, its maps where wanted, and the state."""
        if choice.kind is Kind.EXTERNAL:
            external = getattr(self, _module_name("external", choice.form))
            branch_BND, maps_BGNS = external(x_BND, choice.slots)
            return branch_BND, maps_BGNS, state
        if choice.kind is Kind.VANILLA:
            scores, v_BHMK = self.attn.scores_and_values(x_BND)
            if state.residual is not None:
                scores = scores.plus(state.residual)
            branch_BND, maps_BHNM = self.attn.attend_own(scores, v_BHMK, with_maps=with_maps)
        else:
            # The default may be said by name: the form is one, and so are its weights.
            form = None if choice.form == self.default_less_form else choice.form
            maps: ScoreMaps = getattr(self, _module_name("less", form))
            scores = maps(state.scores[group])
            v_BHMK = self.attn.values(x_BND)
            branch_BND, maps_BHNM = self.attn(scores, v_BHMK, with_maps=with_maps)
        return branch_BND, maps_BHNM, state.with_scores(group, scores)


class GridBlock(Block):
    """A block whose MLP works on the grid of its tokens.

    Attributes:
        grid: rows and columns of the tokens, prefix tokens apart.
    """

    def __init__(
        self,
        block: Any,
        attention: ScoredAttention | None,
        position: LayerEnvelope,
        stage: StageShape,
        options: MechanismOptions,
    ) -> None:
        """Arguments as `Block` has them; the MLP takes the grid beside the tokens."""
        super().__init__(block, attention, position, stage, options)
        self.grid = stage.grid

    def feed_forward(self, x_BND: Tensor) -> Tensor:
        """The MLP of normed tokens (B, N, D)."""
        out_BND: Tensor = self.mlp(x_BND, self.grid)
        return out_BND


def _module_name(mechanism: str, form: str | None) -> str:
    """What a block calls the module of a form; the default form has the mechanism's own name."""
    return mechanism if form is None else f"{mechanism}_{form}"


def _drop_path(block: Any, name: str) -> nn.Module:
    for known in (name, "drop_path"):
        if hasattr(block, known):
            module: nn.Module = getattr(block, known)
            return module
    return nn.Identity()
