"""The blocks that run layer choices: their interface, and that of all transformer families.

A family supplies its backbone's norms, attention and MLP, and overrides what differs.

Shape letters: B batch, N tokens, D embed_dim, H heads, S slots, M keys.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from copy import deepcopy
from typing import Any

from torch import Tensor, nn

from sharedattn.mechanisms.broadcasting import ContextBroadcasting, ScaledContextBroadcasting
from sharedattn.mechanisms.interface import (
    OUTPUT,
    Branch,
    BranchCall,
    BranchResult,
    GateCall,
    Options,
)
from sharedattn.mechanisms.registry import gate_of
from sharedattn.mechanisms.vanilla import ScoredAttention
from sharedattn.networks.state import Recorder, StartedLayer, State
from sharedattn.placement import GateCell, LayerChoice, LayerEnvelope, MechanismOptions
from sharedattn.shape import StageShape


class LayerBlock(nn.Module, ABC):
    """A block of a network that supports every choice of its layer position.

    A layer runs in two halves, so that placements share the first which differ only in its CB or
    gate.
    """

    def forward(
        self,
        x_BND: Tensor,
        state: State,
        choice: LayerChoice,
        index: int,
        cell: nn.Module | None,
        recorder: Recorder,
    ) -> tuple[Tensor, State]:
        """Run one layer: `start` and `complete`.

        Args:
            x_BND: (B, N, D), or (B, C, Y, X) in a stage of convolutions.
            state: state after the previous layer.
            choice: the layer's choice.
            index: index of the layer in its stage.
            cell: the cell of `choice.gate`, or None without a gate.
            recorder: collects the attention maps and the gate.

        Returns:
            Tokens of the same shape and the state for the next layer.
        """
        started = self.start(x_BND, state, choice, index, recorder)
        return self.complete(started, choice, cell, recorder)

    @abstractmethod
    def start(
        self, x_BND: Tensor, state: State, choice: LayerChoice, index: int, recorder: Recorder
    ) -> StartedLayer:
        """Run the layer up to CB and gate; arguments as for `forward`."""

    @abstractmethod
    def complete(
        self,
        started: StartedLayer,
        choice: LayerChoice,
        cell: nn.Module | None,
        recorder: Recorder,
    ) -> tuple[Tensor, State]:
        """Finish a layer that `start` began; arguments and result as for `forward`."""

    def separate_norms(self, position: LayerEnvelope) -> None:
        """Give each kind, except the backbone's own, its own norm, where kinds share one.

        Args:
            position: choices that the layer supports.
        """
        del position

    def norm_of(self, branch: Branch) -> nn.Module | None:
        """The norm that kinds share before a branch, or None if the block has no such norm."""
        del branch
        return None

    def completing(self) -> tuple[nn.Module, ...]:
        """The modules with weights that `complete` runs rather than `start`."""
        return ()


def make_sites(
    position: LayerEnvelope, stage: StageShape, options: MechanismOptions
) -> nn.ModuleDict:
    """What a layer has for itself of its gates, by cell; see `Gate.make_site`."""
    sites = {
        _site_name(cell): gate_of(cell.gate).make_site(stage, options)
        for cell in sorted(position.cells)
    }
    return nn.ModuleDict({name: site for name, site in sites.items() if site is not None})


def run_gate(
    x_BDP: Tensor,
    choice: LayerChoice,
    cell: nn.Module | None,
    sites: nn.ModuleDict,
    state: State,
    *,
    num_left_out: int = 0,
    grid: tuple[int, int] | None = None,
) -> tuple[Tensor, Tensor, State]:
    """Gate the branch of a layer that has a gate.

    Args:
        x_BDP: (B, D, P), the branch.
        choice: the layer's choice, with a gate.
        cell: the cell of `choice.gate`.
        sites: result of `make_sites` for the layer.
        state: state before the gate.
        num_left_out: as in `GateCall`.
        grid: as in `GateCall`.

    Returns:
        The gated branch (B, D, P), the gate (B, D), and the state after it.
    """
    assert choice.gate is not None and cell is not None
    name = _site_name(choice.gate)
    result = gate_of(choice.gate.gate).run(
        GateCall(
            x_BDP=x_BDP,
            num_left_out=num_left_out,
            grid=grid,
            cell=cell,
            site=sites[name] if name in sites else None,
            carried=state.values.get(choice.gate),
        )
    )
    if result.left is not None:
        state = state.with_values({choice.gate: result.left})
    return result.x_BDP, result.gate_BD, state


def _site_name(cell: GateCell) -> str:
    return f"{cell.gate}{cell.cell}"


class Block(LayerBlock):
    """A pre-norm transformer block that supports every choice of its layer position.

    The attention branch is that of the layer's kind, or absent. The MLP branch passes through fc2,
    context broadcasting, the gate, layer scale and stochastic depth, in this order, so that what
    a gate passes on follows the undropped branch. All choices share `norm2` and the MLP; all kinds
    of attention share `norm1`, unless `separate_norms` gives them their own; and all kinds that
    use any part of the backbone's attention share it.

    Attributes:
        gate_sites: result of `make_sites`.
    """

    def __init__(
        self,
        block: Any,
        attention: ScoredAttention | None,
        position: LayerEnvelope,
        stage: StageShape,
        options: MechanismOptions,
    ) -> None:
        """Take the needed parts of a backbone's block, and add the mechanisms.

        Args:
            block: the backbone's block at this position, with `norm1`, `norm2`, `mlp`, and
                optional `ls1`, `ls2`, `drop_path1`, `drop_path2` (or `drop_path` for both).
            attention: module for vanilla and less attention, made from the block's own, or None if
                the position has neither.
            position: choices that the layer must support.
            stage: sizes of the stage.
            options: options of the mechanisms.
        """
        super().__init__()
        self.num_left_out = options.num_left_out(stage.num_prefix_tokens)
        self.stage = stage
        if position.reads_tokens:
            self.norm1 = block.norm1
        if attention is not None:
            self.attn = attention
        for branch, form, whole in position.forms():
            module = branch.make(whole, stage, options)
            if module is not None:
                self.add_module(module_name(branch, form), module)
        if position.attends:
            self.ls1 = getattr(block, "ls1", nn.Identity())
            self.drop_path1 = _drop_path(block, "drop_path1")
        if position.feeds_forward:
            self.norm2 = block.norm2
            self.mlp = block.mlp
        if position.cb:
            self.broadcasting = (
                ContextBroadcasting()
                if options.broadcasting_form == "plain"
                else ScaledContextBroadcasting(stage.embed_dim)
            )
        self.gate_sites = make_sites(position, stage, options)
        if position.feeds_forward:
            self.ls2 = getattr(block, "ls2", nn.Identity())
            self.drop_path2 = _drop_path(block, "drop_path2")

    def start(
        self, x_BND: Tensor, state: State, choice: LayerChoice, index: int, recorder: Recorder
    ) -> StartedLayer:
        """Run the layer up to CB and gate; arguments as for `forward`."""
        branch, maps, last_BND = choice.branch, None, None
        if branch.attends:
            found = self._attend(x_BND, state, choice, index, recorder)
            maps, last_BND = found.maps, found.branch_BND
            left = {**found.left, OUTPUT.name: found.branch_BND}
            state = state.with_values(
                {
                    (channel.name, channel.group(self.stage.attention, index)): left[channel.name]
                    for channel in branch.leaves
                }
            )
            if branch.feeds_forward:
                x_BND = x_BND + self.drop_path1(self.ls1(last_BND))
        if branch.feeds_forward:
            last_BND = self.feed_forward(self.norm2(x_BND))
        return StartedLayer(x_BND, last_BND, state, maps)

    def separate_norms(self, position: LayerEnvelope) -> None:
        """Give each kind, except the backbone's own attention, its own norm, initially a copy.

        Args:
            position: choices that the layer supports.
        """
        for branch in position.kinds:
            if branch.reads_tokens and "scores" not in branch.uses:
                self.add_module(_norm_name(branch), deepcopy(self.norm1))

    def norm_of(self, branch: Branch) -> nn.Module:
        """The norm before a branch that reads the layer's tokens."""
        norm: nn.Module = getattr(self, _norm_name(branch), self.norm1)
        return norm

    def complete(
        self,
        started: StartedLayer,
        choice: LayerChoice,
        cell: nn.Module | None,
        recorder: Recorder,
    ) -> tuple[Tensor, State]:
        """Finish a layer that `start` began; arguments and result as for `forward`."""
        branch, branch_BND, state, gate_BD = choice.branch, started.branch, started.state, None
        if branch_BND is None:
            recorder.add(branch, started.maps, None)
            return started.tokens, state
        if choice.cb:
            branch_BND = self.broadcasting(branch_BND, self.num_left_out)
        if choice.gate is not None:
            branch_BDN, gate_BD, state = run_gate(
                branch_BND.transpose(1, 2),
                choice,
                cell,
                self.gate_sites,
                state,
                num_left_out=self.num_left_out,
            )
            branch_BND = branch_BDN.transpose(1, 2)
        recorder.add(branch, started.maps, gate_BD)
        if branch.feeds_forward:
            return started.tokens + self.drop_path2(self.ls2(branch_BND)), state
        return started.tokens + self.drop_path1(self.ls1(branch_BND)), state

    def completing(self) -> tuple[nn.Module, ...]:
        """What the layer has for itself of its gates."""
        return (self.gate_sites,)

    def feed_forward(self, x_BND: Tensor) -> Tensor:
        """Apply the MLP to normed tokens (B, N, D)."""
        out_BND: Tensor = self.mlp(x_BND)
        return out_BND

    def module_of(self, branch: Branch, form: Options) -> nn.Module | None:
        """The module of a branch's form here, or None if it has no module of its own."""
        module: nn.Module | None = getattr(self, module_name(branch, form), None)
        return module

    def _attend(
        self, x_BND: Tensor, state: State, choice: LayerChoice, index: int, recorder: Recorder
    ) -> BranchResult:
        """Apply the attention branch to tokens."""
        branch = choice.branch
        if branch.reads_tokens:
            x_BND = self.norm_of(branch)(x_BND)
        carried = {
            channel.name: state.values[channel.name, channel.group(self.stage.attention, index)]
            for channel in branch.takes
        }
        return branch.run(
            BranchCall(
                x_BND=x_BND,
                module=self.module_of(
                    branch, branch.canonical(branch.form_of(choice.options), self.stage)
                ),
                attention=getattr(self, "attn", None),
                options=choice.options,
                carried=carried,
                residual=state.residual if branch.adds_residual else None,
                with_maps=recorder.wants_maps(branch),
            )
        )


class GridBlock(Block):
    """A block whose MLP works on the tokens' grid.

    Attributes:
        grid: rows and columns of the tokens, without prefix tokens.
    """

    def __init__(
        self,
        block: Any,
        attention: ScoredAttention | None,
        position: LayerEnvelope,
        stage: StageShape,
        options: MechanismOptions,
    ) -> None:
        """Take arguments as `Block`; the MLP gets the grid as well as the tokens."""
        super().__init__(block, attention, position, stage, options)
        self.grid = stage.grid

    def feed_forward(self, x_BND: Tensor) -> Tensor:
        """Apply the MLP to normed tokens (B, N, D)."""
        out_BND: Tensor = self.mlp(x_BND, self.grid)
        return out_BND


def module_name(branch: Branch, form: Options) -> str:
    """Name of a form's module in a block; the default form has the branch's name."""
    return "_".join((branch.name, *(str(value) for _, value in form)))


def _norm_name(branch: Branch) -> str:
    """Name of a branch's norm in a block, if a supernet separates it from `norm1`."""
    return f"norm1_{branch.name}"


def _drop_path(block: Any, name: str) -> nn.Module:
    for known in (name, "drop_path"):
        if hasattr(block, known):
            module: nn.Module = getattr(block, known)
            return module
    return nn.Identity()
