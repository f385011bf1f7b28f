"""The one definition of a network: over an envelope of placements, run with the placement given.

The supernet and every stand-alone network are this class: an envelope of one placement is that
placement's network. The placement is an argument of `forward`, and what one layer hands to the
next is a value, `State`; nothing about a run is stored on modules. A forward pass is therefore
re-entrant, and can be resumed after any layer: `begin`, `run_layer` for each layer, `finish`.

Shape letters: B batch, N tokens, D embed_dim, H heads, K head_dim, S slots, C channels,
Y x X grid.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from sharedattn.attention.dia import DIACell
from sharedattn.attention.less import diagonality
from sharedattn.errors import InputError
from sharedattn.placement import BackboneSpec, Envelope, Kind, LayerChoice, Placement
from sharedattn.shape import BackboneShape

COLLECTABLE = frozenset({"attention", "gates", "diagonality"})


@dataclass(frozen=True, slots=True)
class State:
    """What the layers of a stage hand on, beside the tokens; empty at each stage's start.

    Attributes:
        queries_keys: queries and keys, each (B, H, N, K), of the last vanilla or less layer.
        dia: h and c, each (B, D), per DIA cell that has been called.
    """

    queries_keys: tuple[Tensor, Tensor] | None = None
    dia: Mapping[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def with_dia(self, cell: int, h_c: tuple[Tensor, Tensor]) -> State:
        """This state after a call of `cell`."""
        return replace(self, dia={**self.dia, cell: h_c})


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


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run returns.

    Attributes:
        logits: (B, classes).
        tokens: (B, N, D) after the last layer, before the final norm.
        attention: maps per layer where collected, (B, H, N, N) of vanilla and less attention,
            (B, heads, N, S) of external; None for a layer without an attention branch.
        gates: DIA gates (B, D) per layer where collected; None for a layer without one.
        diagonality: where collected, the mean diagonality term of the less-attention layers, a
            differentiable scalar; 0 without such layers.
    """

    logits: Tensor
    tokens: Tensor
    attention: tuple[Tensor | None, ...] | None = None
    gates: tuple[Tensor | None, ...] | None = None
    diagonality: Tensor | None = None


class Network(nn.Module, ABC):
    """A backbone whose layers can do everything in an envelope; a family gives stem and head.

    Attributes:
        backbone: the backbone it was built from.
        envelope: the placements it can run.
        shape: sizes of the backbone, stage by stage.
        fused: whether attention uses the fused kernel where no map is asked for.
        drop_path_rate: stochastic depth of the backbone's last block.
        dia_cells: per stage, the DIA cells by number.
    """

    def __init__(
        self,
        backbone: BackboneSpec,
        envelope: Envelope,
        shape: BackboneShape,
        *,
        fused: bool,
        drop_path_rate: float,
    ) -> None:
        """Make what all families share: the DIA cells.

        Raises:
            InputError: a DIA bottleneck without channels.
        """
        super().__init__()
        self.backbone = backbone
        self.envelope = envelope
        self.shape = shape
        self.fused = fused
        self.drop_path_rate = drop_path_rate
        self._only_placement = _only_placement(envelope)
        self.dia_cells = nn.ModuleList(
            nn.ModuleDict(
                {
                    str(cell): DIACell(stage.embed_dim, backbone.options.dia_reduction)
                    for cell in sorted(frozenset().union(*(p.dia_cells for p in positions)))
                }
            )
            for stage, positions in zip(shape.stages, envelope.stages, strict=True)
        )

    @abstractmethod
    def embed_images(self, images_BCYX: Tensor) -> Tensor:
        """Tokens (B, N, D) of the first stage, of images (B, C, Y, X)."""

    @abstractmethod
    def enter_stage(self, stage: int, tokens: Tensor) -> Tensor:
        """Tokens of `stage`, which is not the first, of the last stage's tokens."""

    @abstractmethod
    def run_block(
        self,
        stage: int,
        index: int,
        tokens: Tensor,
        state: State,
        choice: LayerChoice,
        recorder: Recorder,
    ) -> tuple[Tensor, State]:
        """Tokens and state after one block."""

    @abstractmethod
    def classify(self, tokens: Tensor) -> Tensor:
        """Logits (B, classes) of the last stage's tokens."""

    def begin(self, images_BCYX: Tensor) -> tuple[Tensor, State]:
        """Tokens and state before the first layer.

        Args:
            images_BCYX: (B, C, Y, X).

        Returns:
            Tokens (B, N, D) and an empty state.
        """
        return self.embed_images(images_BCYX), State()

    def run_layer(
        self,
        stage: int,
        index: int,
        tokens: Tensor,
        state: State,
        choice: LayerChoice,
        recorder: Recorder | None = None,
    ) -> tuple[Tensor, State]:
        """Tokens and state after one layer.

        Args:
            stage: index of the stage, from 0.
            index: index of the layer in its stage, from 0; the first one enters the stage.
            tokens: (B, N, D) from the layer before.
            state: from the layer before.
            choice: what the layer does.
            recorder: takes what the run collects.

        Returns:
            What the next layer, or `finish`, takes.
        """
        if index == 0 and stage > 0:
            tokens, state = self.enter_stage(stage, tokens), State()
        return self.run_block(stage, index, tokens, state, choice, recorder or Recorder(()))

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
            placement: what each layer does; may be left out where the envelope holds one.
            collect: names among `attention`, `gates` and `diagonality`. Layers whose maps are
                needed compute their attention explicitly.

        Returns:
            Logits, tokens, and what was collected.

        Raises:
            InputError: the placement lies outside the envelope, or is left out where there are
                several; an unknown name in `collect`.
        """
        if placement is None:
            placement = self._only_placement
            if placement is None:
                raise InputError(
                    "`a network over several placements is told which to run` must hold, "
                    "but got none; pass placement="
                )
        else:
            self.envelope.check(placement)
        recorder = Recorder(collect)
        tokens, state = self.begin(images_BCYX)
        for stage, choices in enumerate(placement.stages):
            for index, choice in enumerate(choices):
                tokens, state = self.run_layer(stage, index, tokens, state, choice, recorder)
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

    def forward(self, images_BCYX: Tensor, placement: Placement | None = None) -> Tensor:
        """Logits (B, classes) of images (B, C, Y, X): `run` without its by-products."""
        return self.run(images_BCYX, placement).logits


def _only_placement(envelope: Envelope) -> Placement | None:
    """The placement this is an envelope of, if it is one of a single placement."""
    positions = [position for stage in envelope.stages for position in stage]
    if any(len(p.kinds) != 1 or len(p.dia_cells) > 1 for p in positions):
        return None
    return Placement(
        tuple(
            tuple(
                LayerChoice(
                    kind=next(iter(p.kinds)),
                    slots=p.max_slots or None,
                    dia=next(iter(p.dia_cells), None),
                    cb=p.cb,
                )
                for p in stage
            )
            for stage in envelope.stages
        )
    )
