"""What a run carries from layer to layer, and what it collects.

Shape letters: B batch, N queries, M keys, D embed_dim, H heads.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from sharedattn.errors import InputError
from sharedattn.mechanisms.less import diagonality
from sharedattn.mechanisms.scores import Scores
from sharedattn.placement import Kind

COLLECTABLE = frozenset({"attention", "gates", "diagonality"})


@dataclass(frozen=True, slots=True)
class Held:
    """What of a state later layers take.

    Attributes:
        groups: whose scores.
        cells: DIA cells whose h and c.
        residual: whether the attention residual.
    """

    groups: frozenset[int] = frozenset()
    cells: frozenset[int] = frozenset()
    residual: bool = False

    def __or__(self, other: Held) -> Held:
        """What is taken by either."""
        return Held(
            self.groups | other.groups, self.cells | other.cells, self.residual or other.residual
        )


@dataclass(frozen=True, slots=True)
class State:
    """What the layers of a stage hand on, beside the tokens; empty at each stage's start.

    Attributes:
        scores: per group of layers that share scores, those of its last vanilla or less layer.
        dia: h and c, each (B, D), per DIA cell that has been called.
        residual: (B, H, N, M), what the stage before adds to the scores of this stage's vanilla
            layers; None: nothing.
    """

    scores: Mapping[int, Scores] = field(default_factory=dict)
    dia: Mapping[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    residual: Tensor | None = None

    def with_scores(self, group: int, scores: Scores) -> State:
        """This state after a vanilla or less layer of `group`."""
        return replace(self, scores={**self.scores, group: scores})

    def keeping(self, held: Held) -> State:
        """This state without what is not held."""
        return State(
            scores={group: s for group, s in self.scores.items() if group in held.groups},
            dia={cell: h_c for cell, h_c in self.dia.items() if cell in held.cells},
            residual=self.residual if held.residual else None,
        )

    def tensors(self) -> Iterator[Tensor]:
        """All that it holds."""
        for scores in self.scores.values():
            yield scores.q_BHNK
            yield scores.k_BHMK
            if scores.bias is not None:
                yield scores.bias
        for h_c in self.dia.values():
            yield from h_c
        if self.residual is not None:
            yield self.residual

    def with_dia(self, cell: int, h_c: tuple[Tensor, Tensor]) -> State:
        """This state after a call of `cell`."""
        return replace(self, dia={**self.dia, cell: h_c})


@dataclass(frozen=True, slots=True)
class StartedLayer:
    """A layer half done: its attention, and its MLP as far as it depends on neither CB nor DIA.

    Attributes:
        tokens: (B, N, D) after the attention branch.
        branch: (B, N, D), the MLP's output.
        state: after the attention branch.
        maps: of the attention, where they are collected.
        passed_by: tokens (B, ..., D) that the layer hands on as they are; None: none.
    """

    tokens: Tensor
    branch: Tensor
    state: State
    maps: Tensor | None = None
    passed_by: Tensor | None = None


class Recorder:
    """What one run collects, layer by layer; made for a run and dropped with it.

    Attributes:
        maps: attention maps of each layer run so far; None: no attention branch, or not wanted.
        gates: DIA gates (B, D) of each layer run so far; None: no gate, or not wanted.
        diagonality_terms: the diagonality term of each less-attention layer run so far.
    """

    def __init__(self, collect: Collection[str]) -> None:
        """Collect the names in `collect`.

        Raises:
            InputError: a name that is not collectable.
        """
        unknown = sorted(set(collect) - COLLECTABLE)
        if unknown:
            raise InputError(
                f"`collect` holds names among {', '.join(sorted(COLLECTABLE))}, "
                f"but got {', '.join(map(repr, unknown))}"
            )
        self._collect = frozenset(collect)
        self.maps: list[Tensor | None] = []
        self.gates: list[Tensor | None] = []
        self.diagonality_terms: list[Tensor] = []

    def empty_copy(self) -> Recorder:
        """A recorder of the same names, with nothing collected."""
        return Recorder(self._collect)

    def extend(self, other: Recorder) -> None:
        """Take what another has collected of later layers."""
        self.maps += other.maps
        self.gates += other.gates
        self.diagonality_terms += other.diagonality_terms

    def wants_maps(self, kind: Kind) -> bool:
        """Whether a layer of this kind must compute its attention explicitly."""
        return "attention" in self._collect or (
            "diagonality" in self._collect and kind is Kind.LESS
        )

    def add(self, kind: Kind, maps_BHNM: Tensor | None, gate_BD: Tensor | None) -> None:
        """Take what a layer has computed."""
        self.maps.append(maps_BHNM if "attention" in self._collect else None)
        self.gates.append(gate_BD if "gates" in self._collect else None)
        if "diagonality" in self._collect and kind is Kind.LESS:
            assert maps_BHNM is not None
            self.diagonality_terms.append(diagonality(maps_BHNM))
