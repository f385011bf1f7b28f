"""The state that a run carries from layer to layer, and the values that it collects.

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
"""Where a state keeps something: a channel's name and group, or a gate's name and cell."""


@dataclass(frozen=True, slots=True)
class Held:
    """What of a state later layers take.

    Attributes:
        keys: of what they take.
        residual: whether they take the attention residual.
    """

    keys: frozenset[Key] = frozenset()
    residual: bool = False

    def __or__(self, other: Held) -> Held:
        """What is taken by either."""
        return Held(self.keys | other.keys, self.residual or other.residual)


@dataclass(frozen=True, slots=True)
class State:
    """What the layers of a stage hand on, beside the tokens; empty at each stage's start.

    Attributes:
        values: by channel and group, what the group's last layer left; by gate and cell, what the
            cell's last layer left.
        residual: (B, H, N, M), what the stage before adds to the scores of this stage's layers
            that make their own, or None.
    """

    values: Mapping[Key, Any] = field(default_factory=dict)
    residual: Tensor | None = None

    def with_values(self, values: Mapping[Key, Any]) -> State:
        """This state after a layer that left `values`."""
        return replace(self, values={**self.values, **values}) if values else self

    def keeping(self, held: Held) -> State:
        """This state without what is not held."""
        return State(
            values={key: value for key, value in self.values.items() if key in held.keys},
            residual=self.residual if held.residual else None,
        )

    def tensors(self) -> Iterator[Tensor]:
        """All that it holds."""
        for value in self.values.values():
            yield from _tensors(value)
        if self.residual is not None:
            yield self.residual


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors of what a layer left: a tensor, a tuple of such, or a dataclass."""
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
    """A layer half done: its attention, and its MLP as far as it depends on neither CB nor gate.

    Attributes:
        tokens: (B, N, D) before the layer's last branch is added.
        branch: (B, N, D), the output of its last branch, as a rule the MLP's; None: it has none.
        state: after the attention branch.
        maps: of the attention, where they are collected.
        passthrough_tokens: (B, ..., D), which the layer hands on unchanged, or None.
    """

    tokens: Tensor
    branch: Tensor | None
    state: State
    maps: Tensor | None = None
    passthrough_tokens: Tensor | None = None


class Recorder:
    """What one run collects, layer by layer; made for a run and dropped with it.

    Attributes:
        maps: attention maps of each layer run so far; None: no attention branch, or not wanted.
        gates: DIA gates (B, D) of each layer run so far; None: no gate, or not wanted.
        diagonality_terms: the diagonality term of each layer run so far that has one.
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

    def wants_maps(self, branch: Branch) -> bool:
        """Whether a layer of this branch must compute its attention explicitly."""
        return "attention" in self._collect or (
            "diagonality" in self._collect and branch.has_diagonality
        )

    def add(self, branch: Branch, maps_BHNM: Tensor | None, gate_BD: Tensor | None) -> None:
        """Take what a layer has computed."""
        self.maps.append(maps_BHNM if "attention" in self._collect else None)
        self.gates.append(gate_BD if "gates" in self._collect else None)
        if "diagonality" in self._collect and branch.has_diagonality:
            assert maps_BHNM is not None
            self.diagonality_terms.append(diagonality(maps_BHNM))
