"""The constraints of a space: each is a small automaton over a placement's layers in order.

A constraint applies to each stage or to the whole network (`per`). The list is closed, since exact
counting and sampling need every rule as an automaton; other rules are refused by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

from sharedattn.errors import InputError
from sharedattn.mechanisms.interface import NumberOption
from sharedattn.mechanisms.registry import branch_of, registry
from sharedattn.placement import LayerChoice
from sharedattn.spaces.document import (
    Reader,
    Section,
    read_kind,
    read_list,
    read_number,
    read_one_of,
)
from sharedattn.yaml_text import DocumentError, DocumentPath, located

Per = Literal["stage", "network"]
State = Hashable


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint(ABC):
    """A rule over the layers of each stage, or of the whole network.

    Attributes:
        per: whether the rule reads each stage by itself or all layers as one sequence.
    """

    rule: ClassVar[str]
    readers: ClassVar[dict[str, Reader[Any]]]

    per: Per

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            for letter in value if isinstance(value, frozenset) else ():
                branch_of(letter)

    @property
    @abstractmethod
    def start(self) -> State:
        """The state before the first layer."""

    def reads(self, layer: LayerChoice) -> bool:
        """Whether the rule reads a layer: one that is left out only if the rule names its kind."""
        if not layer.is_absent:
            return True
        named = (getattr(self, f.name) for f in fields(self))
        return any(layer.kind in value for value in named if isinstance(value, frozenset))

    @abstractmethod
    def step(self, state: State, layer: LayerChoice) -> State | None:
        """The state after `layer`, or None if no continuation can satisfy the rule."""

    def accepts(self, state: State) -> bool:
        """Whether a sequence of layers that ends in `state` satisfies the rule."""
        del state
        return True

    def to_document(self) -> dict[str, Any]:
        """The constraint as a space's document writes it."""
        document: dict[str, Any] = {"rule": self.rule}
        for f in fields(self):
            value = getattr(self, f.name)
            if value is not None:
                document[f.name] = (
                    [letter for letter in registry().branches if letter in value]
                    if isinstance(value, frozenset)
                    else value
                )
        return document

    def __str__(self) -> str:
        document = self.to_document()
        arguments = (
            f"{key}={','.join(value) if isinstance(value, list) else value}"
            for key, value in document.items()
            if key != "rule"
        )
        return f"{self.rule}({' '.join(arguments)})"


def _read_kinds(value: Any, path: DocumentPath) -> frozenset[str]:
    return frozenset(read_list(read_kind)(value, path))


@dataclass(frozen=True, slots=True, kw_only=True)
class Count(Constraint):
    """At least `least` and at most `most` layers of the given kinds.

    Attributes:
        kinds: the kinds that are counted, together.
        least: fewest layers; defaults to no lower bound.
        most: most layers; defaults to no upper bound.

    Raises:
        InputError: the bounds contradict each other, or there is none.
    """

    rule = "count"
    readers = {"kinds": _read_kinds, "least": read_number, "most": read_number}

    kinds: frozenset[str]
    least: int = 0
    most: int | None = None

    def __post_init__(self) -> None:
        Constraint.__post_init__(self)
        if self.most is None and self.least == 0:
            raise InputError("a count bounds nothing; give it `least` of at least 1, or `most`")
        if self.most is not None and self.least > self.most:
            raise InputError(
                f"`least` is {self.least}, more than `most`={self.most}; no number is both"
            )

    @property
    def start(self) -> State:
        return 0

    def step(self, state: State, layer: LayerChoice) -> State | None:
        assert isinstance(state, int)
        if layer.kind not in self.kinds:
            return state
        if self.most is None:
            return min(state + 1, self.least)
        return state + 1 if state < self.most else None

    def accepts(self, state: State) -> bool:
        assert isinstance(state, int)
        return state >= self.least


@dataclass(frozen=True, slots=True, kw_only=True)
class NeverAfter(Constraint):
    """No layer of `kinds` anywhere after a layer of `after`.

    Attributes:
        kinds: the kinds that may not follow.
        after: the kinds after which they may not stand.
    """

    rule = "never_after"
    readers = {"kinds": _read_kinds, "after": _read_kinds}

    kinds: frozenset[str]
    after: frozenset[str]

    @property
    def start(self) -> State:
        return False

    def step(self, state: State, layer: LayerChoice) -> State | None:
        if state and layer.kind in self.kinds:
            return None
        return state or layer.kind in self.after


@dataclass(frozen=True, slots=True, kw_only=True)
class LongestRun(Constraint):
    """At most `length` layers of the given kinds in a row.

    Attributes:
        kinds: the kinds that make up a run, together.
        length: the most layers in a run; >= 1.

    Raises:
        InputError: `length` is below 1.
    """

    rule = "longest_run"
    readers = {"kinds": _read_kinds, "length": read_number}

    kinds: frozenset[str]
    length: int

    def __post_init__(self) -> None:
        Constraint.__post_init__(self)
        if self.length < 1:
            raise InputError(
                f"`length` is {self.length}; give at least 1, or use the rule count with most: 0 "
                f"to exclude these layers"
            )

    @property
    def start(self) -> State:
        return 0

    def step(self, state: State, layer: LayerChoice) -> State | None:
        assert isinstance(state, int)
        if layer.kind not in self.kinds:
            return 0
        return state + 1 if state < self.length else None


def _attributes() -> tuple[str, ...]:
    """Names of the layer attributes that `Equal` can compare."""
    numbers = {
        option.name: None
        for branch in registry().by_rank
        for option in branch.options
        if isinstance(option, NumberOption)
    }
    return ("kind", *numbers, "cb")


def _read_attribute(value: Any, path: DocumentPath) -> str:
    return read_one_of(*_attributes())(value, path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Equal(Constraint):
    """One attribute has the same value in all layers that have it.

    Attributes:
        attribute: `kind`, `cb`, or the name of a number option, which only some kinds have.

    Raises:
        InputError: `attribute` is none of these.
    """

    rule = "equal"
    readers = {"attribute": _read_attribute}

    attribute: str

    def __post_init__(self) -> None:
        if self.attribute not in _attributes():
            raise InputError(
                f"`attribute` is {self.attribute!r}; give one of {', '.join(_attributes())}"
            )

    @property
    def start(self) -> State:
        return ()

    def step(self, state: State, layer: LayerChoice) -> State | None:
        if self.attribute == "kind":
            value: Any = layer.kind
        else:
            value = layer.cb if self.attribute == "cb" else layer.option(self.attribute)
        if value is None or state == (value,):
            return state
        return (value,) if state == () else None


@dataclass(frozen=True, slots=True, kw_only=True)
class First(Constraint):
    """The first layer is of one of the given kinds.

    Attributes:
        kinds: the kinds that may stand first.
    """

    rule = "first"
    readers = {"kinds": _read_kinds}

    kinds: frozenset[str]

    @property
    def start(self) -> State:
        return False

    def step(self, state: State, layer: LayerChoice) -> State | None:
        return True if state or layer.kind in self.kinds else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Last(Constraint):
    """The last layer is of one of the given kinds.

    Attributes:
        kinds: the kinds that may stand last.
    """

    rule = "last"
    readers = {"kinds": _read_kinds}

    kinds: frozenset[str]

    @property
    def start(self) -> State:
        return False

    def step(self, state: State, layer: LayerChoice) -> State | None:
        return layer.kind in self.kinds

    def accepts(self, state: State) -> bool:
        return bool(state)


@dataclass(frozen=True, slots=True, kw_only=True)
class MixingLayer(Constraint):
    """At least one layer mixes tokens: by a branch that attends, or by context broadcasting."""

    rule = "mixing_layer"
    readers = {}

    @property
    def start(self) -> State:
        return False

    def step(self, state: State, layer: LayerChoice) -> State | None:
        return state or layer.cb or layer.branch.attends

    def accepts(self, state: State) -> bool:
        return bool(state)


CONSTRAINTS: dict[str, type[Constraint]] = {
    constraint.rule: constraint
    for constraint in (Count, NeverAfter, LongestRun, Equal, First, Last, MixingLayer)
}


def read_constraint(value: Any, path: DocumentPath) -> Constraint:
    """Read one entry of a space's `constraints`: `{rule: NAME, per: stage | network, ...}`."""
    rule = value.get("rule") if isinstance(value, dict) else None
    if not isinstance(rule, str) or rule not in CONSTRAINTS:
        raise DocumentError(
            path,
            f"`rule` is {rule if isinstance(rule, str) else value!r}; give one of "
            f"{', '.join(CONSTRAINTS)}, since only these can be counted exactly",
        )
    constraint = CONSTRAINTS[rule]
    section = Section(value, path, ("rule", "per", *constraint.readers))
    arguments: dict[str, Any] = {"per": section.take("per", read_one_of("stage", "network"))}
    optional = {f.name for f in fields(constraint) if f.default is None or f.default == 0}
    for name, read in constraint.readers.items():
        if name in section or name not in optional:
            arguments[name] = section.take(name, read)
    with located(path):
        return constraint(**arguments)
