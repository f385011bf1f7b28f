"""A layer of a network, run with a given choice: whole, or in two halves.

Shape letters: B batch, N tokens, D embed_dim.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from sharedattn.networks.block import LayerBlock
from sharedattn.networks.state import Recorder, StartedLayer, State
from sharedattn.placement import LayerChoice


@dataclass(frozen=True, slots=True)
class LayerPosition:
    """A layer position of a network.

    Attributes:
        block: the block of the position.
        index: index of the layer in its stage, from 0.
        cells: the stage's cells, by gate and number.
        enter: converts tokens and state of the previous stage, or None unless the layer is the
            first of a later stage.
    """

    block: LayerBlock
    index: int
    cells: Mapping[str, nn.ModuleDict]
    enter: Callable[[Tensor, State], tuple[Tensor, State]] | None

    def run(
        self, tokens: Tensor, state: State, choice: LayerChoice, recorder: Recorder | None = None
    ) -> tuple[Tensor, State]:
        """Run the layer, after entering the stage if it is the stage's first.

        Args:
            tokens: (B, N, D) after the previous layer.
            state: state after the previous layer.
            choice: the layer's choice.
            recorder: collects values of the run, or None.

        Returns:
            Tokens and state for the next layer, or for `Network.finish`.
        """
        if self.enter is not None:
            tokens, state = self.enter(tokens, state)
        # Call the module rather than its two halves, so that hooks run.
        after: tuple[Tensor, State] = self.block(
            tokens, state, choice, self.index, self._cell(choice), recorder or Recorder(())
        )
        return after

    def start(
        self, tokens: Tensor, state: State, choice: LayerChoice, recorder: Recorder | None = None
    ) -> StartedLayer:
        """Run the layer's attention branch and MLP, in a stage that was entered.

        Args:
            tokens: (B, N, D) from `Network.enter` or the previous layer.
            state: state from there.
            choice: the layer's choice; its CB and gate have no effect.
            recorder: tells which maps are needed, or None.

        Returns:
            The input of `complete`, for any CB and gate.
        """
        return self.block.start(tokens, state, choice, self.index, recorder or Recorder(()))

    def complete(
        self, started: StartedLayer, choice: LayerChoice, recorder: Recorder | None = None
    ) -> tuple[Tensor, State]:
        """Apply the layer's CB and gate, and add the residual.

        Args:
            started: result of `start` for a choice that may differ in CB and gate.
            choice: the layer's choice.
            recorder: collects values of the run, or None.

        Returns:
            The result of `run`, bit for bit.
        """
        return self.block.complete(started, choice, self._cell(choice), recorder or Recorder(()))

    def _cell(self, choice: LayerChoice) -> nn.Module | None:
        gate = choice.gate
        return None if gate is None else self.cells[gate.gate][str(gate.cell)]
