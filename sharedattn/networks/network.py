"""The one definition of a network: over an envelope of placements, run with the placement given.

The supernet and every stand-alone network are this class: what is built for one placement alone
has what that placement needs. The placement is an argument of `forward`, and what one layer hands
to the next is a value, `State`; nothing about a run is stored on modules. A forward pass is
therefore re-entrant, and can be resumed after any layer: `begin`, `run` of each `layer`, `finish`.
A layer itself can be resumed once: `enter` where it is the first of a later stage, then its
`start`, which placements share that differ in CB or gate there, and its `complete`.

Shape letters: B batch, N tokens, D embed_dim, H heads, K head_dim, S slots, C channels,
Y x X grid.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sharedattn.errors import InputError
from sharedattn.mechanisms.interface import SCORES
from sharedattn.mechanisms.registry import registry
from sharedattn.mechanisms.residual import AttentionResidual
from sharedattn.networks.batch_norms import in_place_of, statistics_of
from sharedattn.networks.block import Block
from sharedattn.networks.legality import (
    canonical_placement,
    check_diagonality,
    check_placement,
    held_after,
)
from sharedattn.networks.position import LayerPosition
from sharedattn.networks.state import Held, Recorder, State
from sharedattn.placement import BackboneSpec, Envelope, LayerChoice, Placement
from sharedattn.shape import BackboneShape


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run returns.

    Attributes:
        logits: (B, classes).
        tokens: (B, N, D) after the last layer, before the final norm.
        attention: maps per layer where collected, (B, H, N, M) of vanilla and less attention, N
            queries and M keys of a window and B images times windows; (B, heads, N, S) of
            external; None for a layer without an attention branch.
        gates: DIA gates (B, D) per layer where collected; None for a layer without one.
        diagonality: where collected, the mean diagonality term of the less-attention layers, a
            differentiable scalar; 0 without such layers.
    """

    logits: Tensor
    tokens: Tensor
    attention: tuple[Tensor | None, ...] | None = None
    gates: tuple[Tensor | None, ...] | None = None
    diagonality: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPlan:
    """What a network is built as.

    Attributes:
        backbone: the backbone.
        envelope: the placements it can run.
        shape: sizes of the backbone, stage by stage.
        only_placement: the one it is for, where it is for one; an envelope cannot tell, for what
            can run V2 can run V1 as well.
        fused: whether attention uses the fused kernel where no map is asked for.
        drop_path_rate: stochastic depth of the backbone's last block.
    """

    backbone: BackboneSpec
    envelope: Envelope
    shape: BackboneShape
    only_placement: Placement | None = None
    fused: bool = True
    drop_path_rate: float = 0.0


class Network(nn.Module, ABC):
    """A backbone whose layers can do everything in an envelope; a family gives stem and head.

    Attributes:
        backbone: the backbone it was built from.
        envelope: the placements it can run.
        only_placement: the one it was built for, run where none is named; None: it was built for
            an envelope, and is told which to run.
        shape: sizes of the backbone, stage by stage.
        fused: whether attention uses the fused kernel where no map is asked for.
        drop_path_rate: stochastic depth of the backbone's last block.
        grad_checkpointing: whether a run keeps, for the backward pass, what each layer takes
            alone, and computes the layer again there: less memory for another forward pass, equal
            gradients, and equal statistics of batch norms.
        dia_cells: per stage, the DIA cells by number; other gates' cells have names alike.
        residuals: by stage, what adds the stage before's scores to its own; empty unless the
            backbone asks for the attention residual.
    """

    def __init__(self, plan: NetworkPlan) -> None:
        """Make what all families share: the cells of gates and the attention residuals.

        Raises:
            InputError: a gate that does not fit its stage.
        """
        super().__init__()
        options = plan.backbone.options
        self.backbone = plan.backbone
        self.envelope = plan.envelope
        self.shape = plan.shape
        self.fused = plan.fused
        self.drop_path_rate = plan.drop_path_rate
        self.grad_checkpointing = False
        self.only_placement = plan.only_placement
        stages = list(zip(plan.shape.stages, plan.envelope.stages, strict=True))
        cells = [frozenset().union(*(p.cells for p in positions)) for _, positions in stages]
        used = {cell.gate for of_stage in cells for cell in of_stage}
        # The list of an unused gate would hold nothing and have no weights.
        gates = [gate for gate in registry().gates_by_rank if gate.name in used]
        for gate in gates:
            of_stages = nn.ModuleList()
            for (stage, _), of_stage in zip(stages, cells, strict=True):
                numbers = sorted(cell.cell for cell in of_stage if cell.gate == gate.name)
                of_stages.append(
                    nn.ModuleDict({str(n): gate.make_cell(stage, options) for n in numbers})
                )
            self.add_module(_cells_name(gate.name), of_stages)
        self._gates = tuple(gate.name for gate in gates)
        self.residuals = nn.ModuleDict(
            {
                str(i): AttentionResidual(plan.shape.stages[i - 1], plan.shape.stages[i])
                for i in range(1, len(plan.shape.stages))
                if options.attention_residual
            }
        )

    @abstractmethod
    def embed_images(self, images_BCYX: Tensor) -> Tensor:
        """Tokens (B, N, D) of the first stage, of images (B, C, Y, X)."""

    @abstractmethod
    def enter_stage(self, stage: int, tokens: Tensor) -> Tensor:
        """Tokens of `stage`, which is not the first, of the last stage's tokens."""

    @abstractmethod
    def block(self, stage: int, index: int) -> Block:
        """The block at a layer position."""

    def resample_position(self, name: str, weight: Tensor, target: Network) -> Tensor:
        """A position parameter of this network for one of another image size.

        A family with position parameters overrides it.

        Args:
            name: of a weight, in the state dict of both, whose shape differs between them.
            weight: this network's.
            target: the network of another image size.

        Returns:
            The weight in the shape that `target` has it.

        Raises:
            InputError: a weight that cannot be resampled.
        """
        raise InputError(
            f"the weight {name} cannot be resampled from {tuple(weight.shape)} at "
            f"{self.shape.image_size} px to {tuple(target.state_dict()[name].shape)} at "
            f"{target.shape.image_size} px; choose a size at which it keeps its shape"
        )

    @abstractmethod
    def classify(self, tokens: Tensor) -> Tensor:
        """Logits (B, classes) of the last stage's tokens."""

    def accepted(self, placement: Placement) -> Placement:
        """The placement as the envelope has it, default forms left out.

        Raises:
            InputError: it lies outside the envelope, or the backbone cannot carry it.
        """
        if len(placement.stages) == len(self.shape.stages):
            placement = canonical_placement(self.shape, placement)
        self.envelope.check(placement)
        check_placement(self.shape, self.backbone.options, placement)
        return placement

    def begin(self, images_BCYX: Tensor) -> tuple[Tensor, State]:
        """Tokens and state before the first layer.

        Args:
            images_BCYX: (B, C, Y, X).

        Returns:
            Tokens (B, N, D) and an empty state.

        Raises:
            InputError: images of another size than the network's.
        """
        size = self.shape.image_size
        if images_BCYX.shape[-2:] != (size, size):
            raise InputError(
                f"`images_BCYX` has {' x '.join(map(str, images_BCYX.shape[-2:]))} pixels, but "
                f"the network takes {size} x {size}; resize the images, or the network by "
                f"sharedattn.weights.interpolate.at_image_size"
            )
        return self.embed_images(images_BCYX), State()

    def layer(self, stage: int, index: int) -> LayerPosition:
        """The layer at a position, to be run.

        Args:
            stage: index of the stage, from 0.
            index: index of the layer in its stage, from 0.
        """
        return LayerPosition(
            block=self.block(stage, index),
            index=index,
            cells={gate: getattr(self, _cells_name(gate))[stage] for gate in self._gates},
            enter=partial(self.enter, stage) if index == 0 and stage > 0 else None,
        )

    def enter(self, stage: int, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Tokens and state before the first layer of a stage.

        Args:
            stage: index of the stage; > 0.
            tokens: (B, N, D) from the last layer of the stage before.
            state: from there.

        Returns:
            What `LayerPosition.start` takes.
        """
        residual = None
        if str(stage) in self.residuals:
            # The attention residual asks for a V in every stage, and has but one group.
            residual = self.residuals[str(stage)](state.values[SCORES.name, 0])
        return self.enter_stage(stage, tokens), State(residual=residual)

    def held_after(self, stage: int, choices: tuple[LayerChoice, ...], index: int) -> Held:
        """What of the state after a layer later layers take.

        Args:
            stage: index of the stage.
            choices: all layers of the stage.
            index: index of the layer in its stage.
        """
        sizes = self.shape.stages[stage].attention
        return held_after(sizes, choices, index, handed_on=str(stage + 1) in self.residuals)

    def finish(self, tokens: Tensor) -> Tensor:
        """Logits (B, classes) of the tokens after the last layer."""
        return self.classify(tokens)

    def run(
        self,
        images_BCYX: Tensor,
        placement: Placement | None = None,
        *,
        collect: Collection[str] = frozenset(),
    ) -> RunResult:
        """Run a placement, and collect what is asked for.

        Args:
            images_BCYX: (B, C, Y, X).
            placement: what each layer does; may be left out where the network was built for one.
            collect: names among `attention`, `gates` and `diagonality`. Layers whose maps are
                needed compute their attention explicitly.

        Returns:
            Logits, tokens, and what was collected.

        Raises:
            InputError: the placement lies outside the envelope, or is left out where the network
                was built for an envelope; an unknown name in `collect`; the diagonality of maps
                without a diagonal; images of another size.
        """
        if placement is None:
            placement = self.only_placement
            if placement is None:
                raise InputError(
                    "`placement` is missing, and a network built for an envelope has none of its "
                    "own; pass placement="
                )
        else:
            placement = self.accepted(placement)
        recorder = Recorder(collect)
        if "diagonality" in collect:
            check_diagonality(self.shape, Envelope.of(placement))
        is_checkpointed = self.grad_checkpointing and torch.is_grad_enabled()
        run = self._run_checkpointed if is_checkpointed else LayerPosition.run
        tokens, state = self.begin(images_BCYX)
        for stage, choices in enumerate(placement.stages):
            for index, choice in enumerate(choices):
                tokens, state = run(self.layer(stage, index), tokens, state, choice, recorder)
                # What no later layer takes would only fill the memory.
                state = state.keeping(self.held_after(stage, choices, index))
        logits = self.finish(tokens)
        terms = recorder.diagonality_terms
        return RunResult(
            logits=logits,
            tokens=tokens,
            attention=tuple(recorder.maps) if "attention" in collect else None,
            gates=tuple(recorder.gates) if "gates" in collect else None,
            diagonality=(
                sum(terms, start=logits.new_zeros(())) / max(1, len(terms))
                if "diagonality" in collect
                else None
            ),
        )

    def _run_checkpointed(
        self,
        layer: LayerPosition,
        tokens: Tensor,
        state: State,
        choice: LayerChoice,
        recorder: Recorder,
    ) -> tuple[Tensor, State]:
        """`LayerPosition.run`, computed again in the backward pass."""

        def run(tokens: Tensor, state: State) -> tuple[Tensor, State, Recorder]:
            # A recorder of its own, since what is computed again would be recorded again.
            own = recorder.empty_copy()
            return *layer.run(tokens, state, choice, own), own

        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), _frozen_statistics(self)

        tokens, state, own = checkpoint(
            run, tokens, state, use_reentrant=False, context_fn=contexts
        )
        recorder.extend(own)
        return tokens, state

    def forward(self, images_BCYX: Tensor, placement: Placement | None = None) -> Tensor:
        """Logits (B, classes) of images (B, C, Y, X): `run` without its by-products."""
        return self.run(images_BCYX, placement).logits


def _cells_name(gate: str) -> str:
    """What a network calls the cells of a gate, stage by stage."""
    return f"{gate}_cells"


@contextmanager
def _frozen_statistics(network: nn.Module) -> Iterator[None]:
    """Lets batch norms count batches into copies of their statistics, which are then dropped.

    What is computed again has been counted in the forward pass. Norms that keep no statistics
    would save other tensors than there, which checkpointing refuses.
    """
    own = statistics_of(network)
    with in_place_of(own, [buffer.clone() for _, _, buffer in own]):
        yield
