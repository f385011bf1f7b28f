"""Residual blocks of convolutions, with a gate between the branch and the addition of its skip.

A layer is a block as published, or left out where its skip is an identity. A gate scales the
branch after its last norm, as in squeeze-and-excitation and DIANet. Some kinds of layers are a
block and then a branch of their own, such as EANet's external attention.

Shape letters: B batch, C channels, Y x X grid.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from sharedattn.mechanisms.interface import BranchCall
from sharedattn.networks.block import LayerBlock, make_sites, module_name, run_gate
from sharedattn.networks.state import Recorder, StartedLayer, State
from sharedattn.placement import LayerChoice, LayerEnvelope, MechanismOptions
from sharedattn.shape import StageShape


class ConvBlock(LayerBlock):
    """A residual block of two or three convolutions; weights keep the names of timm's blocks.

    Attributes:
        convolutions: number of convolutions, or 0 if the position is always left out.
        downsample: converts the skip, or None for an identity.
        gate_norm: batch norm of a gated branch, or None.
        gate_sites: result of `make_sites`.
        following: the modules of branches that follow the block, by name.
    """

    downsample: nn.Module | None

    def __init__(
        self,
        block: Any,
        position: LayerEnvelope,
        stage: StageShape,
        options: MechanismOptions,
    ) -> None:
        """Take the needed parts of a backbone's block.

        Args:
            block: the backbone's block, with `conv1`, `bn1` and so on, `downsample` and optional
                `drop_path`.
            position: choices that the layer must support.
            stage: sizes of the stage.
            options: options of the mechanisms.
        """
        super().__init__()
        is_there = any(not branch.is_absent for branch in position.kinds)
        names = [name for name in ("conv1", "conv2", "conv3") if hasattr(block, name)]
        self.convolutions = len(names) * is_there
        if is_there:
            for name in names:
                norm = name.replace("conv", "bn")
                self.add_module(name, getattr(block, name))
                self.add_module(norm, getattr(block, norm))
        self.downsample = block.downsample if is_there else None
        self.drop_path = getattr(block, "drop_path", None) or nn.Identity()
        has_norm = bool(position.cells) and has_gate_norm(stage, options)
        self.gate_norm = nn.BatchNorm2d(stage.embed_dim) if has_norm else None
        self.gate_sites = make_sites(position, stage, options)
        self.following = nn.ModuleDict()
        for branch, form, whole in position.forms():
            module = branch.make(whole, stage, options) if branch.follows_convolutions else None
            if module is not None:
                self.following[module_name(branch, form)] = module

    @abstractmethod
    def branch_and_skip(self, x_BCYX: Tensor) -> tuple[Tensor, Tensor]:
        """The branch and the skip, both of the stage's shape, of feature maps (B, C, Y, X)."""

    @abstractmethod
    def after_addition(self, x_BCYX: Tensor) -> Tensor:
        """Apply what follows the addition of branch and skip."""

    def start(
        self, x_BND: Tensor, state: State, choice: LayerChoice, index: int, recorder: Recorder
    ) -> StartedLayer:
        """Run the block up to its gate; arguments as for `forward`."""
        if choice.is_absent:
            return StartedLayer(x_BND, None, state)
        branch_BCYX, skip_BCYX = self.branch_and_skip(x_BND)
        return StartedLayer(skip_BCYX, branch_BCYX, state)

    def complete(
        self,
        started: StartedLayer,
        choice: LayerChoice,
        cell: nn.Module | None,
        recorder: Recorder,
    ) -> tuple[Tensor, State]:
        """Apply the gate and add the skip; arguments and result as for `forward`."""
        branch_BCYX, state, gate_BC = started.branch, started.state, None
        if branch_BCYX is not None and choice.gate is not None:
            if self.gate_norm is not None:
                branch_BCYX = self.gate_norm(branch_BCYX)
            B, C, Y, X = branch_BCYX.shape
            branch_BCP, gate_BC, state = run_gate(
                branch_BCYX.flatten(2), choice, cell, self.gate_sites, state, grid=(Y, X)
            )
            branch_BCYX = branch_BCP.reshape(B, C, Y, X)
        if branch_BCYX is None:
            recorder.add(choice.branch, None, None)
            return started.tokens, state
        x_BCYX = self.after_addition(self.drop_path(branch_BCYX) + started.tokens)
        maps = None
        if choice.branch.follows_convolutions:
            x_BCYX, maps = self._follow(x_BCYX, choice, recorder)
        recorder.add(choice.branch, maps, gate_BC)
        return x_BCYX, state

    def completing(self) -> tuple[nn.Module, ...]:
        """The gate's norm, what the layer has for itself of its gates, and what follows."""
        gate_norm = () if self.gate_norm is None else (self.gate_norm,)
        return (*gate_norm, self.gate_sites, self.following)

    def _follow(
        self, x_BCYX: Tensor, choice: LayerChoice, recorder: Recorder
    ) -> tuple[Tensor, Tensor | None]:
        """Run the branch that follows the block, with the addition and activation after it."""
        branch = choice.branch
        name = module_name(branch, branch.form_of(choice.options))
        result = branch.run(
            BranchCall(
                x_BND=x_BCYX.flatten(2).transpose(1, 2),
                module=self.following[name],
                attention=None,
                options=choice.options,
                carried={},
                residual=None,
                with_maps=recorder.wants_maps(branch),
            )
        )
        branch_BCYX = result.branch_BND.transpose(1, 2).reshape(x_BCYX.shape)
        return F.relu(x_BCYX + branch_BCYX), result.maps

    def _convolution(self, number: int, x_BCYX: Tensor) -> Tensor:
        out_BCYX: Tensor = self.get_submodule(f"conv{number}")(x_BCYX)
        return out_BCYX

    def _norm(self, number: int, x_BCYX: Tensor) -> Tensor:
        out_BCYX: Tensor = self.get_submodule(f"bn{number}")(x_BCYX)
        return out_BCYX


class PostActivationBlock(ConvBlock):
    """Convolution, norm, activation; the last activation follows the addition (ResNet)."""

    def branch_and_skip(self, x_BCYX: Tensor) -> tuple[Tensor, Tensor]:
        """The branch ends with a norm."""
        skip_BCYX = x_BCYX if self.downsample is None else self.downsample(x_BCYX)
        for number in range(1, self.convolutions + 1):
            x_BCYX = self._norm(number, self._convolution(number, x_BCYX))
            if number < self.convolutions:
                x_BCYX = F.relu(x_BCYX, inplace=True)
        return x_BCYX, skip_BCYX

    def after_addition(self, x_BCYX: Tensor) -> Tensor:
        """Activate."""
        return F.relu(x_BCYX, inplace=True)


class PreActivationBlock(ConvBlock):
    """Norm, activation, convolution; nothing follows the addition (pre-activation ResNet).

    Attributes:
        activated_skip: whether a skip that is converted starts after the first activation.
    """

    def __init__(
        self,
        block: Any,
        position: LayerEnvelope,
        stage: StageShape,
        options: MechanismOptions,
        *,
        activated_skip: bool,
    ) -> None:
        """Take arguments as `ConvBlock`, and `activated_skip`."""
        super().__init__(block, position, stage, options)
        self.activated_skip = activated_skip

    def branch_and_skip(self, x_BCYX: Tensor) -> tuple[Tensor, Tensor]:
        """The branch ends with a convolution."""
        skip_BCYX = x_BCYX
        for number in range(1, self.convolutions + 1):
            x_BCYX = F.relu(self._norm(number, x_BCYX), inplace=True)
            if number == 1 and self.downsample is not None:
                skip_BCYX = self.downsample(x_BCYX if self.activated_skip else skip_BCYX)
            x_BCYX = self._convolution(number, x_BCYX)
        return x_BCYX, skip_BCYX

    def after_addition(self, x_BCYX: Tensor) -> Tensor:
        """Change nothing."""
        return x_BCYX


def has_gate_norm(stage: StageShape, options: MechanismOptions) -> bool:
    """Whether gated blocks of a stage have a batch norm before their gate."""
    return options.gate_norm and stage.convolution is not None and stage.convolution.pre_activated
