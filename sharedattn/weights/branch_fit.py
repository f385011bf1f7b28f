"""Fit branches to the vanilla attention that they replace, layer by layer.

The all-vanilla placement is run on calibration images. Every branch that can be fitted then starts
as an approximation of its layer's vanilla branch (`sharedattn.mechanisms.interface.Branch.fit`).
Shape letters: B batch, C channels, Y x X grid.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sharedattn.errors import InputError
from sharedattn.mechanisms.interface import (
    SCORES,
    Branch,
    BranchCall,
    NumberOption,
    Options,
    VanillaExample,
)
from sharedattn.networks.block import Block
from sharedattn.networks.network import Network
from sharedattn.placement import Placement

BranchErrors = dict[tuple[int, int], dict[int, float]]
"""By stage and index of a layer, then by number: || branch - vanilla || / || vanilla ||."""


@torch.no_grad()
def fit_branches(
    network: Network,
    images_BCYX: Tensor,
    *,
    numbers: Collection[int] | None = None,
    seed: int = 0,
) -> None:
    """Fit every branch that can be fitted to its layer's vanilla branch, in place.

    Nothing else in the network changes; forms that cannot be fitted keep their values.

    Args:
        network: a network with trained weights whose envelope has vanilla attention in every
            layer.
        images_BCYX: (B, C, Y, X), calibration images, run as one batch.
        numbers: the numbers that placements use, such as memory slots; a layer skips those beyond
            its own. Defaults to a layer's largest number, a half and a quarter of it.
        seed: seed of all random draws.

    Raises:
        InputError: no images or images of another size, a layer without vanilla attention, or no
            number that fits a layer.
    """
    generator = torch.Generator().manual_seed(seed)
    with closing(_layers(network, images_BCYX)) as layers:
        for layer in layers:
            layer.branch.fit(layer.module, layer.example, _used(layer, numbers), generator)


@torch.no_grad()
def branch_errors(
    network: Network, images_BCYX: Tensor, *, numbers: Collection[int] | None = None
) -> BranchErrors:
    """Measure the distance of branches from the vanilla branches of their layers, on images.

    Args:
        network: as in `fit_branches`.
        images_BCYX: as in `fit_branches`.
        numbers: as in `fit_branches`.

    Returns:
        The relative errors, for layers with a branch that can be fitted; a branch of zeros has an
        error of 1.

    Raises:
        InputError: as in `fit_branches`.
    """
    errors: BranchErrors = {}
    with closing(_layers(network, images_BCYX)) as layers:
        for layer in layers:
            of_layer = errors.setdefault((layer.stage, layer.index), {})
            for options in _used(layer, numbers):
                difference_BND = layer.run(options) - layer.example.branch_BND
                error = float(difference_BND.norm() / layer.example.branch_BND.norm())
                of_layer[_number(layer.branch, options)] = error
    return errors


@dataclass(frozen=True, slots=True)
class _Layer:
    """A branch that can be fitted, and its layer in the all-vanilla network.

    Attributes:
        stage: index of its stage.
        index: index in its stage.
        branch: the branch to fit.
        options: its form, with the largest numbers.
        module: the module of that form.
        example: inputs and outputs of the layer's vanilla branch.
    """

    stage: int
    index: int
    branch: Branch
    options: Options
    module: nn.Module
    example: VanillaExample

    def run(self, options: Options) -> Tensor:
        """The branch's output for the vanilla branch's input, (B, N, D)."""
        return self.branch.run(
            BranchCall(
                x_BND=self.example.x_BND,
                module=self.module,
                attention=self.example.attention,
                options=options,
                carried={},
                residual=None,
                with_maps=False,
            )
        ).branch_BND


def _layers(network: Network, images_BCYX: Tensor) -> Generator[_Layer]:
    """The branches that can be fitted, one after the other."""
    vanilla = Placement.all_vanilla(tuple(map(len, network.envelope.stages)))
    try:
        network.envelope.check(vanilla)
    except InputError as error:
        raise InputError(
            f"branches are fitted where every layer can be vanilla, but {error}; fit them in a "
            f"network over an envelope with {str(vanilla)!r}"
        ) from error
    if not len(images_BCYX):
        raise InputError("`images_BCYX` holds no image; give at least one to calibrate on")
    training = network.training
    network.eval()
    try:
        tokens, state = network.begin(images_BCYX)
        for stage, choices in enumerate(vanilla.stages):
            for index, choice in enumerate(choices):
                block = network.block(stage, index)
                if not isinstance(block, Block):
                    # Blocks of convolutions have no branch to fit.
                    tokens, state = network.layer(stage, index).run(tokens, state, choice)
                    continue
                with _branch_of(block) as seen:
                    tokens, state = network.layer(stage, index).run(tokens, state, choice)
                group = SCORES.group(network.shape.stages[stage].attention, index)
                keys_BHMK = state.values[SCORES.name, group].k_BHMK
                example = VanillaExample(
                    x_BND=seen["x"],
                    branch_BND=seen["out"],
                    keys_PD=keys_BHMK.transpose(1, 2).flatten(2).flatten(0, 1),
                    attention=block.attn,
                )
                for branch, form, options in network.envelope.stages[stage][index].forms():
                    module = block.module_of(branch, form)
                    if module is not None and branch.can_be_fitted(form):
                        yield _Layer(stage, index, branch, options, module, example)
    finally:
        network.train(training)


@contextmanager
def _branch_of(block: Block) -> Iterator[dict[str, Tensor]]:
    """Record the input `x` and the output `out` of a block's attention branch."""
    seen: dict[str, Tensor] = {}

    def see_input(module: nn.Module, inputs: object, output: Tensor) -> None:
        seen["x"] = output

    def see_output(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        [seen["out"]] = inputs

    handles = (
        block.norm1.register_forward_hook(see_input),
        block.ls1.register_forward_pre_hook(see_output),
    )
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _used(layer: _Layer, numbers: Collection[int] | None) -> list[Options]:
    """The options of layers that a branch is fitted for, largest number first."""
    names = [o.name for o in layer.branch.options if isinstance(o, NumberOption)]
    if not names:
        return [layer.options]
    most = _number(layer.branch, layer.options)
    asked = {most, most // 2, most // 4} - {0} if numbers is None else set(numbers)
    nested = sorted((n for n in asked if 0 < n <= most), reverse=True)
    if not nested:
        raise InputError(
            f"`numbers` holds {sorted(asked)}, and layer {layer.index + 1} of stage "
            f"{layer.stage + 1} holds 1 to {most} {names[0]}; name one of these"
        )
    return [
        tuple((name, n if name == names[0] else value) for name, value in layer.options)
        for n in nested
    ]


def _number(branch: Branch, options: Options) -> int:
    """The first number of a layer, or 0 if the branch has none."""
    return next((int(value) for name, value in options if name in branch.number_names), 0)
