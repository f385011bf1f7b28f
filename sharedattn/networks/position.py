"""One layer of a network, run with the choice given: whole, or in two halves.

Shape letters: B batch, N tokens, D embed_dim.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from sharedattn.networks.block import Block
from sharedattn.networks.state import Recorder, StartedLayer, State
from sharedattn.placement import LayerChoice


@dataclass(frozen=True, slots=True)
class LayerPosition:
    """A layer position of a network.

    Attributes:
        block: what runs there.
        index: of the layer in its stage, from 0.
        cells: by gate, those of the stage's cells, by number.
        enter: what leads into the stage, of the tokens and the state of the stage before; None:
            the layer is not the first of a later stage.
    """

    block: Block
    index: int
    cells: Mapping[str, nn.ModuleDict]
    enter: Callable[[Tensor, State], tuple[Tensor, State]] | None

    def run(
        self, tokens: Tensor, state: State, choice: LayerChoice, recorder: Recorder | None = None
    ) -> tuple[Tensor, State]:
        """Tokens and state after the layer; the first one of a stage enters it.

        Args:
            tokens: (B, N, D) from the layer before.
            state: from the layer before.
            choice: what the layer does.
            recorder: takes what the run collects.

        Returns:
            What the next layer, or `Network.finish`, takes.
        """
        if self.enter is not None:
            tokens, state = self.enter(tokens, state)
        # The module is called, rather than its two halves, so that hooks see it.
        after: tuple[Tensor, State] = self.block(
            tokens, state, choice, self.index, self._cell(choice), recorder or Recorder(())
        )
        return after

    def start(
        self, tokens: Tensor, state: State, choice: LayerChoice, recorder: Recorder | None = None
    ) -> StartedLayer:
        """The attention branch and the MLP of the layer, in a stage that has been entered.

        Args:
            tokens: (B, N, D) from `Network.enter`, or from the layer before.
            state: from there.
            choice: what the layer does; its CB and gate do not matter.
            recorder: says which maps are needed.

        Returns:
            What `complete` takes, for any CB and gate.
        """
        return self.block.start(tokens, state, choice, self.index, recorder or Recorder(()))

    def complete(
        self, started: StartedLayer, choice: LayerChoice, recorder: Recorder | None = None
    ) -> tuple[Tensor, State]:
        """CB, the gate and the residual addition of the layer.

        Args:
            started: from `start`, of a choice that differs in CB and gate at most.
            choice: what the layer does.
            recorder: takes what the run collects.

        Returns:
            What `run` does, bit for bit.
        """
        return self.block.complete(started, choice, self._cell(choice), recorder or Recorder(()))

    def _cell(self, choice: LayerChoice) -> nn.Module | None:
        gate = choice.gate
        return None if gate is None else self.cells[gate.gate][str(gate.cell)]
