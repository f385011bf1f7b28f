"""Branches and gates of another distribution, as a test registers them."""

from __future__ import annotations

import torch
from torch import nn

from sharedattn.mechanisms.interface import (
    OUTPUT,
    Branch,
    BranchCall,
    BranchResult,
    Colors,
    FormOption,
    Gate,
    GateCall,
    GateResult,
    NumberOption,
    Options,
    PartCost,
)
from sharedattn.mechanisms.options import MechanismOptions
from sharedattn.shape import StageShape

GREY = Colors(fill="#777", ink="#fff", dark_fill="#888", dark_ink="#000")


class _NeverRun(Branch):
    colors = GREY

    def run(self, call: BranchCall) -> BranchResult:
        raise AssertionError("spaces are counted and drawn from, and run nothing")

    def cost(
        self,
        options: Options,
        stage: StageShape,
        network_options: MechanismOptions,
        *,
        has_bias: bool,
    ) -> PartCost:
        return PartCost(params=37, macs=401)


class Mixer(_NeverRun):
    """Mixes tokens; has two numbers, and forms."""

    letter = "M"
    name = "mixer"
    title = "made-up mixing"
    rank = 15
    options = (
        NumberOption(name="width", key="mixer_width", code="w", default=3, most=9),
        NumberOption(name="reach", key="mixer_reach", code="h", default=1),
        FormOption(key="mixer_form", codes={"wide": "", "deep": r"[1-9]"}),
    )


class Keeper(_NeverRun):
    """Gives what the layer before it gave."""

    letter = "K"
    name = "keeper"
    title = "made-up keeping"
    rank = 45
    takes = (OUTPUT,)


class Passer(_NeverRun):
    """Does nothing at all."""

    letter = "P"
    name = "passer"
    title = "made-up passing"
    rank = 5
    attends = False
    feeds_forward = False
    leaves = ()


class Pooling(_NeverRun):
    """Stands for a mean over windows of tokens; gives what it gets, for nothing."""

    letter, name, title, rank = "P", "pooling", "token pooling", 50
    options = (NumberOption(name="width", key="width", code="w", default=3),)
    colors = Colors(fill="#cc79a7", ink="#111111", dark_fill="#aa5588", dark_ink="#eeeeee")

    def run(self, call: BranchCall) -> BranchResult:
        return BranchResult(branch_BND=call.x_BND)

    def cost(
        self,
        options: Options,
        stage: StageShape,
        network_options: MechanismOptions,
        *,
        has_bias: bool,
    ) -> PartCost:
        return PartCost(0, 0)


class Shrink(Gate):
    """A gate of one linear map."""

    name, code, cell_code, title, rank = "shrink", "sq", "q", "squeeze gate", 20
    colors = Colors(fill="#882255", ink="#ffffff", dark_fill="#dd88bb", dark_ink="#000000")

    def make_cell(self, stage: StageShape, network_options: MechanismOptions) -> nn.Module:
        return nn.Linear(stage.embed_dim, stage.embed_dim)

    def run(self, call: GateCall) -> GateResult:
        return call.scaled(torch.sigmoid(call.cell(call.mean)))

    def cell_params(self, stage: StageShape, network_options: MechanismOptions) -> int:
        return stage.embed_dim**2 + stage.embed_dim

    def macs(self, stage: StageShape, network_options: MechanismOptions) -> int:
        return stage.embed_dim**2


class Squeeze(Shrink):
    """The same gate, before ours and of another cost."""

    title = "made-up squeezing"
    rank = 5

    def cell_params(self, stage: StageShape, network_options: MechanismOptions) -> int:
        return 22

    def macs(self, stage: StageShape, network_options: MechanismOptions) -> int:
        return 3


PARTS = (Mixer(), Keeper(), Passer(), Squeeze())
