"""The state that a run carries from layer to layer, and the values it collects.

Shape letters: B batch, N queries, M keys, D embed_dim, H heads.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

from torch import Tensor

from sharedattn.errors import InputError
from sharedattn.mechanisms.interface import Branch
from sharedattn.mechanisms.less import diagonality

COLLECTABLE = frozenset({"attention", "gates", "diagonality"})


Key = tuple[str, int]
"""Key of a state's value: a channel's name and group, or a gate's name and cell."""


@dataclass(frozen=True, slots=True)
class Held:
    """The part of a state that later layers take.

    Attributes:
        keys: channels and groups that they take.
        residual: whether they take the attention residual.
    """

    keys: frozenset[Key] = frozenset()
    residual: bool = False

    def __or__(self, other: Held) -> Held:
        """The union of both."""
        return Held(self.keys | other.keys, self.residual or other.residual)


@dataclass(frozen=True, slots=True)
class State:
    """Values passed between a stage's layers besides tokens.

    At the start of a stage it holds only what the stages before hand on.

    Attributes:
        values: the last value left, by channel and group, or by gate and cell.
        residual: (B, H, N, M), added by the previous stage to the scores that this stage's layers
            compute themselves, or None.
        feature_maps: (B, C, Y, X) each, those of the stages before, for a head that takes them, or
            of an encoder's layers, the last of which a decoder's next layer takes.
        condition: (B, T), what all layers of a denoiser take, made of its timesteps, or None.
    """

    values: Mapping[Key, Any] = field(default_factory=dict)
    residual: Tensor | None = None
    feature_maps: tuple[Tensor, ...] = ()
    condition: Tensor | None = None

    def with_values(self, values: Mapping[Key, Any]) -> State:
        """This state with `values` that a layer left."""
        return replace(self, values={**self.values, **values}) if values else self

    def keeping(self, held: Held) -> State:
        """This state reduced to what is held."""
        return State(
            values={key: value for key, value in self.values.items() if key in held.keys},
            residual=self.residual if held.residual else None,
            feature_maps=self.feature_maps,
            condition=self.condition,
        )

    def tensors(self) -> Iterator[Tensor]:
        """All tensors of the state."""
        for value in self.values.values():
            yield from _tensors(value)
        if self.residual is not None:
            yield self.residual
        yield from self.feature_maps
        if self.condition is not None:
            yield self.condition


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors of a value: a tensor, a tuple of them, or a dataclass."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from _tensors(part)
    elif is_dataclass(value):
        for f in fields(value):
            yield from _tensors(getattr(value, f.name))


@dataclass(frozen=True, slots=True)
class StartedLayer:
    """A layer half done: attention, and the MLP up to CB and gate.

    Attributes:
        tokens: (B, N, D) before the layer's last branch is added.
        branch: (B, N, D), output of its last branch, usually the MLP, or None without a branch.
        state: state after the attention branch.
        maps: attention maps, if collected.
        passthrough_tokens: (B, ..., D) tokens that the layer passes on unchanged, or None.
        taken: the state that its attention takes from, if the layer attends as it is completed.
    """

    tokens: Tensor
    branch: Tensor | None
    state: State
    maps: Tensor | None = None
    passthrough_tokens: Tensor | None = None
    taken: State | None = None


class Recorder:
    """Values collected in one run, layer by layer; created for a run and dropped after it.

    Attributes:
        maps: attention maps of each layer so far; None without attention, or if not collected.
        gates: DIA gates (B, D) of each layer so far; None without a gate, or if not collected.
        diagonality_terms: diagonality terms of the layers so far that have one.
    """

    def __init__(self, collect: Collection[str]) -> None:
        """Collect the names in `collect`.

        Raises:
            InputError: a name is not collectable.
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
        """An empty recorder of the same names."""
        return Recorder(self._collect)

    def extend(self, other: Recorder) -> None:
        """Append the values of later layers from another recorder."""
        self.maps += other.maps
        self.gates += other.gates
        self.diagonality_terms += other.diagonality_terms

    def wants_maps(self, branch: Branch) -> bool:
        """Whether a layer of this branch must compute its attention explicitly."""
        return "attention" in self._collect or (
            "diagonality" in self._collect and branch.has_diagonality
        )

    def add(self, branch: Branch, maps_BHNM: Tensor | None, gate_BD: Tensor | None) -> None:
        """Add a layer's values."""
        self.maps.append(maps_BHNM if "attention" in self._collect else None)
        self.gates.append(gate_BD if "gates" in self._collect else None)
        if "diagonality" in self._collect and branch.has_diagonality:
            assert maps_BHNM is not None
            self.diagonality_terms.append(diagonality(maps_BHNM))
