"""No attention branch: the layer is its MLP, in which context broadcasting can mix tokens."""

from __future__ import annotations

from sharedattn.mechanisms.interface import (
    NO_COST,
    Branch,
    BranchCall,
    BranchResult,
    Colors,
    Options,
    PartCost,
)
from sharedattn.mechanisms.options import MechanismOptions
from sharedattn.shape import StageShape


class Nothing(Branch):
    """A layer without attention branch, and so without its norm and layer scale."""

    letter = "N"
    name = "none"
    title = "no attention"
    rank = 40
    colors = Colors(fill="#d0d4da", ink="#3c434c", dark_fill="#4a525d", dark_ink="#e8ebef")
    attends = False
    reads_tokens = False
    leaves = ()

    def run(self, call: BranchCall) -> BranchResult:
        """Raise; a block runs no branch of a layer that does not attend."""
        raise AssertionError(f"{self.title} has no branch to run")

    def cost(
        self,
        options: Options,
        stage: StageShape,
        network_options: MechanismOptions,
        *,
        has_bias: bool,
    ) -> PartCost:
        """Nothing."""
        return NO_COST


NOTHING = Nothing()
