"""Envelopes: the choices that each layer position of a network must support."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sharedattn.errors import InputError
from sharedattn.mechanisms.interface import Branch, Options
from sharedattn.mechanisms.registry import registry
from sharedattn.placement.layer import GateCell, LayerChoice
from sharedattn.placement.placement import Placement


@dataclass(frozen=True, slots=True)
class LayerEnvelope:
    """The choices that one layer position must support.

    Attributes:
        branches: branches at this position, as letter and those options with weights of their own,
            such as a form; number options are not included.
        sizes: the largest value of each number option, by letter and name.
        cells: the gates' cells that gate this layer.
        cb: whether some placement broadcasts context here.
    """

    branches: frozenset[tuple[str, Options]]
    sizes: frozenset[tuple[str, str, int]] = frozenset()
    cells: frozenset[GateCell] = frozenset()
    cb: bool = False

    @property
    def kinds(self) -> tuple[Branch, ...]:
        """The distinct branches, in registration order."""
        letters = {letter for letter, _ in self.branches}
        return tuple(b for letter, b in registry().branches.items() if letter in letters)

    @property
    def attends(self) -> bool:
        """Whether some placement has an attention branch here."""
        return any(branch.attends for branch in self.kinds)

    @property
    def reads_tokens(self) -> bool:
        """Whether some attention branch here reads the layer's own tokens."""
        return any(branch.reads_tokens for branch in self.kinds)

    @property
    def feeds_forward(self) -> bool:
        """Whether some placement keeps the MLP here."""
        return any(branch.feeds_forward for branch in self.kinds)

    @property
    def uses_scores(self) -> bool:
        """Whether some branch here uses the queries and keys of the backbone's attention."""
        return any("scores" in branch.uses for branch in self.kinds)

    @property
    def uses_attention(self) -> bool:
        """Whether some branch here uses any of the backbone's attention."""
        return any(branch.uses for branch in self.kinds)

    def forms(self) -> tuple[tuple[Branch, Options, Options], ...]:
        """Modules with weights of their own: branch, form, and form with the largest numbers.

        Branches are in registration order, their forms by text, the default first.
        """
        largest: dict[str, dict[str, int]] = {}
        for letter, name, size in self.sizes:
            largest.setdefault(letter, {})[name] = size
        found = []
        for branch in self.kinds:
            for form in sorted(form for letter, form in self.branches if letter == branch.letter):
                said: dict[str, int | str] = {**largest.get(branch.letter, {}), **dict(form)}
                whole = tuple((o.name, said[o.name]) for o in branch.options if o.name in said)
                found.append((branch, form, whole))
        return tuple(found)

    def __str__(self) -> str:
        kinds = [
            "/".join((letter, *(str(value) for _, value in form)))
            for letter, form in sorted(self.branches)
        ]
        sizes = [f"{name} of {letter} up to {size}" for letter, name, size in sorted(self.sizes)]
        cells = [f"{gate} {cell}" for gate, cell in sorted(self.cells)]
        return ", ".join((*kinds, *sizes, *cells, *(["cb"] if self.cb else [])))

    def holds(self, choice: LayerChoice) -> bool:
        """Whether this position supports `choice`."""
        branch = choice.branch
        most = {(letter, name): size for letter, name, size in self.sizes}
        return (
            (choice.kind, branch.form_of(choice.options)) in self.branches
            and all(
                int(value) <= most[choice.kind, name]
                for name, value in choice.options
                if name in branch.number_names
            )
            and (choice.gate is None or choice.gate in self.cells)
            and (self.cb or not choice.cb)
        )


@dataclass(frozen=True, slots=True)
class Envelope:
    """The union of placements that one network supports, by layer position.

    Attributes:
        stages: the layer positions of each stage; a placement may use fewer, from the first on.
    """

    stages: tuple[tuple[LayerEnvelope, ...], ...]

    @classmethod
    def of(cls, *placements: Placement) -> Envelope:
        """The smallest envelope of all `placements`.

        Raises:
            InputError: no placement is given, or they differ in the number of stages.
        """
        if len({len(placement.stages) for placement in placements}) != 1:
            raise InputError(
                "an envelope is over placements of equally many stages, but got "
                + (", ".join(repr(str(p)) for p in placements) or "none")
            )
        return cls(
            tuple(
                tuple(
                    layer_union([choice for choice in position if choice is not None])
                    for position in itertools.zip_longest(*stages)
                )
                for stages in zip(*(placement.stages for placement in placements), strict=True)
            )
        )

    def union(self, other: Envelope) -> Envelope:
        """The smallest envelope that contains both.

        Raises:
            InputError: they differ in the number of stages.
        """
        if len(self.stages) != len(other.stages):
            raise InputError(
                f"envelopes that are joined have equally many stages, but got "
                f"{len(self.stages)} and {len(other.stages)}"
            )
        return Envelope(
            tuple(
                tuple(
                    _join([position for position in both if position is not None])
                    for both in itertools.zip_longest(*stages)
                )
                for stages in zip(self.stages, other.stages, strict=True)
            )
        )

    def check(self, placement: Placement) -> None:
        """Check that a network of this envelope can run a placement.

        Raises:
            InputError: it cannot; the message names the first layer outside.
        """
        if len(placement.stages) != len(self.stages):
            raise InputError(
                f"{str(placement)!r} has {len(placement.stages)} stages and the network "
                f"{len(self.stages)}; a placement has the stages of its network"
            )
        for i, (stage, positions) in enumerate(zip(placement.stages, self.stages, strict=True)):
            if len(stage) > len(positions):
                raise InputError(
                    f"stage {i + 1} of {str(placement)!r} has {len(stage)} layers and the "
                    f"network has {len(positions)} there"
                )
            for j, (choice, position) in enumerate(zip(stage, positions, strict=False)):
                if not position.holds(choice):
                    raise InputError(
                        f"layer {j + 1} of stage {i + 1} of {str(placement)!r} is {choice}, "
                        f"outside the network's envelope: it holds {position}"
                    )


def layer_union(choices: Sequence[LayerChoice]) -> LayerEnvelope:
    """The smallest envelope of one position that contains all given choices."""
    return _join([_envelope_of(choice) for choice in choices])


def _envelope_of(choice: LayerChoice) -> LayerEnvelope:
    branch = choice.branch
    return LayerEnvelope(
        branches=frozenset({(choice.kind, branch.form_of(choice.options))}),
        sizes=frozenset(
            (choice.kind, name, int(value))
            for name, value in choice.options
            if name in branch.number_names
        ),
        cells=frozenset(() if choice.gate is None else (choice.gate,)),
        cb=choice.cb,
    )


def _join(positions: Iterable[LayerEnvelope]) -> LayerEnvelope:
    positions = list(positions)
    largest: dict[tuple[str, str], int] = {}
    for letter, name, size in itertools.chain.from_iterable(p.sizes for p in positions):
        largest[letter, name] = max(size, largest.get((letter, name), size))
    return LayerEnvelope(
        branches=frozenset().union(*(position.branches for position in positions)),
        sizes=frozenset((*key, size) for key, size in largest.items()),
        cells=frozenset().union(*(position.cells for position in positions)),
        cb=any(position.cb for position in positions),
    )
