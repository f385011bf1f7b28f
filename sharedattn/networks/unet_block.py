"""Blocks of a UNet: a residual block that takes the timestep, then attention over its pixels.

The residual block is that of DDPM (arXiv:2006.11239) as diffusers' `ResnetBlock2D` has it: norm,
SiLU, convolution, addition of a linear map of the timestep's embedding, norm, SiLU, convolution,
and a skip, which a 1 x 1 convolution converts where the width changes. Context broadcasting and
the gate stand at the end of its branch, before the skip is added. What attention follows it is
that of the layer's kind.

Shape letters: B batch, C channels, Y x X grid, N pixels, D embed_dim, H heads, M keys, K head_dim,
T channels of the embedding of time.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharedattn.mechanisms.broadcasting import ContextBroadcasting, ScaledContextBroadcasting
from sharedattn.mechanisms.interface import OUTPUT, BranchCall, BranchResult
from sharedattn.mechanisms.scores import Scores
from sharedattn.mechanisms.vanilla import ScoredAttention
from sharedattn.networks.block import LayerBlock, make_sites, module_name, run_gate
from sharedattn.networks.state import Recorder, StartedLayer, State
from sharedattn.placement import LayerChoice, LayerEnvelope, MechanismOptions
from sharedattn.shape import StageShape


class PixelAttention(ScoredAttention):
    """The attention branches of a layer, with the group norm that they share.

    Weights keep the names of diffusers' `Attention`; a part that the position does not need is
    absent.

    Attributes:
        group_norm: norm before every branch that reads the pixels.
        to_q: queries, D -> D.
        to_k: keys, D -> D.
        to_v: values, D -> D.
        to_out: the output projection, D -> D, as the first of a list.
    """

    def __init__(
        self,
        attention: Any,
        position: LayerEnvelope,
        stage: StageShape,
        options: MechanismOptions,
        *,
        fused: bool,
    ) -> None:
        """Take the needed parts of diffusers' attention, and make the other branches.

        Args:
            attention: diffusers' `Attention`.
            position: choices that the layer must support.
            stage: sizes of the stage.
            options: options of the mechanisms.
            fused: as in `ScoredAttention`.
        """
        own_scores = position.uses_scores
        super().__init__(stage.embed_dim, stage.num_heads, own_scores=own_scores, fused=fused)
        if position.reads_tokens:
            self.group_norm = attention.group_norm
        if own_scores:
            self.to_q, self.to_k = attention.to_q, attention.to_k
        if position.uses_attention:
            self.to_v = attention.to_v
            self.to_out = nn.ModuleList([attention.to_out[0]])
        for branch, form, whole in position.forms():
            module = branch.make(whole, stage, options)
            if module is not None:
                self.add_module(module_name(branch, form), module)

    def scores_and_values(self, x_BND: Tensor) -> tuple[Scores, Tensor]:
        """Scores, and values (B, H, N, K), of pixels (B, N, D)."""
        scores = Scores(self._heads(self.to_q(x_BND)), self._heads(self.to_k(x_BND)), self.scale)
        return scores, self.values(x_BND)

    def values(self, x_BND: Tensor) -> Tensor:
        """Values (B, H, N, K) alone, of pixels (B, N, D)."""
        return self._heads(self.to_v(x_BND))

    def project(self, out_BND: Tensor) -> Tensor:
        """Apply the output projection to pixels (B, N, D), heads concatenated."""
        projected_BND: Tensor = self.to_out[0](out_BND)
        return projected_BND

    def _heads(self, x_BND: Tensor) -> Tensor:
        B, N, _ = x_BND.shape
        return x_BND.reshape(B, N, self.num_heads, -1).transpose(1, 2)


class UNetBlock(LayerBlock):
    """A layer of a UNet; weights keep the names of diffusers' `ResnetBlock2D`.

    Attributes:
        conv_shortcut: converts the skip, or None for an identity.
        gate_sites: result of `make_sites`.
        takes_map: whether the encoder's last map that is left is concatenated to the input.
        gives_map: whether the output is left for the decoder.
    """

    def __init__(
        self,
        resnet: Any,
        attention: PixelAttention,
        position: LayerEnvelope,
        stage: StageShape,
        options: MechanismOptions,
        *,
        takes_map: bool = False,
        gives_map: bool = False,
    ) -> None:
        """Take over the parts of a residual block.

        Args:
            resnet: diffusers' `ResnetBlock2D`.
            attention: the layer's attention branches, which a module above holds: diffusers has
                them beside the residual blocks.
            position: choices that the layer must support.
            stage: sizes of the stage.
            options: options of the mechanisms.
            takes_map: see the attributes.
            gives_map: see the attributes.
        """
        super().__init__()
        self.norm1, self.conv1 = resnet.norm1, resnet.conv1
        self.time_emb_proj = resnet.time_emb_proj
        self.norm2, self.conv2 = resnet.norm2, resnet.conv2
        self.conv_shortcut = resnet.conv_shortcut
        if position.cb:
            self.broadcasting = (
                ContextBroadcasting()
                if options.broadcasting_form == "plain"
                else ScaledContextBroadcasting(stage.embed_dim)
            )
        self.gate_sites = make_sites(position, stage, options)
        self.takes_map = takes_map
        self.gives_map = gives_map
        self.stage = stage
        # In a tuple, so that its weights have one name, their own.
        self._attention = (attention,)

    def start(
        self, x_BND: Tensor, state: State, choice: LayerChoice, index: int, recorder: Recorder
    ) -> StartedLayer:
        """Run the residual block up to CB and gate; arguments as for `forward`."""
        x_BCYX = x_BND
        if self.takes_map:
            *left, map_BCYX = state.feature_maps
            x_BCYX = torch.cat((x_BCYX, map_BCYX), dim=1)
            state = replace(state, feature_maps=tuple(left))
        assert state.condition is not None
        time_BC11 = self.time_emb_proj(F.silu(state.condition))[:, :, None, None]
        branch_BCYX = self.conv1(F.silu(self.norm1(x_BCYX))) + time_BC11
        branch_BCYX = self.conv2(F.silu(self.norm2(branch_BCYX)))
        if self.conv_shortcut is not None:
            x_BCYX = self.conv_shortcut(x_BCYX)
        return StartedLayer(x_BCYX, branch_BCYX, state, taken=state)

    def complete(
        self,
        started: StartedLayer,
        choice: LayerChoice,
        cell: nn.Module | None,
        recorder: Recorder,
    ) -> tuple[Tensor, State]:
        """Apply CB and gate, add the skip, and attend; arguments and result as for `forward`."""
        branch_BCYX, state, gate_BC, maps = started.branch, started.state, None, None
        assert branch_BCYX is not None and started.taken is not None
        B, C, Y, X = branch_BCYX.shape
        if choice.cb:
            branch_BND = self.broadcasting(branch_BCYX.flatten(2).transpose(1, 2), 0)
            branch_BCYX = branch_BND.transpose(1, 2).reshape(B, C, Y, X)
        if choice.gate is not None:
            branch_BCN, gate_BC, state = run_gate(
                branch_BCYX.flatten(2), choice, cell, self.gate_sites, state, grid=(Y, X)
            )
            branch_BCYX = branch_BCN.reshape(B, C, Y, X)
        x_BCYX = started.tokens + branch_BCYX
        if choice.branch.attends:
            found = self._attend(x_BCYX.flatten(2), started.taken, choice, recorder)
            x_BCYX = x_BCYX + found.branch_BND.transpose(1, 2).reshape(B, C, Y, X)
            left, maps = {**found.left, OUTPUT.name: found.branch_BND}, found.maps
            # A stage of a UNet has no groups of scores.
            state = state.with_values(
                {(channel.name, 0): left[channel.name] for channel in choice.branch.leaves}
            )
        recorder.add(choice.branch, maps, gate_BC)
        if self.gives_map:
            state = replace(state, feature_maps=(*state.feature_maps, x_BCYX))
        return x_BCYX, state

    @property
    def attention(self) -> PixelAttention:
        """The layer's attention branches."""
        return self._attention[0]

    def completing(self) -> tuple[nn.Module, ...]:
        """What the layer has for itself of its gates."""
        return (self.gate_sites,)

    def _attend(
        self, x_BDN: Tensor, taken: State, choice: LayerChoice, recorder: Recorder
    ) -> BranchResult:
        """Apply the attention branch to pixels."""
        branch, attention = choice.branch, self.attention
        if branch.reads_tokens:
            x_BDN = attention.group_norm(x_BDN)
        form = branch.canonical(branch.form_of(choice.options), self.stage)
        return branch.run(
            BranchCall(
                x_BND=x_BDN.transpose(1, 2),
                module=getattr(attention, module_name(branch, form), None),
                attention=attention,
                options=choice.options,
                carried={channel.name: taken.values[channel.name, 0] for channel in branch.takes},
                residual=taken.residual if branch.adds_residual else None,
                with_maps=recorder.wants_maps(branch),
            )
        )
