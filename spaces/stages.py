"""What one stage may be, as counts of kinds or as choices layer by layer, and its language.

A stage's members are canonical tuples of `LayerChoice`. Its *language* reads them position by
position as a deterministic automaton: each member is exactly one way through it, however many
ways the options can say that member (slots without an external layer, DIA labels that only differ
in name, `all` against the last K). That is what makes counting exact over distinct placements.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import product
from typing import Any, Literal, NamedTuple

from sharedattn.errors import InputError
from sharedattn.networks.legality import canonical_choice, check_dia, check_maps
from sharedattn.placement import (
    DEFAULT_SLOTS,
    Kind,
    LayerChoice,
    MechanismOptions,
    dia_runs,
    kind_of_form,
    rank_of,
)
from sharedattn.placement.shape import StageShape
from sharedattn.spaces.document import (
    Section,
    read_layer,
    read_list,
    read_number,
    read_numbers,
    read_text,
)
from sharedattn.yaml_text import DocumentError, DocumentPath, located

Symbol = LayerChoice | None
"""What stands at a layer position: a choice, or None where the stage has ended before it."""

KIND_ORDER = (Kind.EXTERNAL, Kind.VANILLA, Kind.LESS, Kind.NONE)
"""The order in which counts expand unless a space says `order: any`."""

LastLayers = int | Literal["all"]


FORM_KEYS = {Kind.EXTERNAL: "external_form", Kind.LESS: "less_form"}
"""What a space calls the forms of a kind."""

_DEFAULT_FORMS = {Kind.EXTERNAL: "single", Kind.LESS: "default"}
_KNOWN_FORMS = {
    Kind.EXTERNAL: "single, mea",
    Kind.LESS: "default, full, keys, lowrankR, reuse",
}

_FORM_ORDER = ("full", "keys", "lowrank", "reuse", "mea")


def symbol_key(symbol: Symbol) -> tuple[int, ...]:
    """Sorts symbols: kind (E, V, L, N), slots, form, DIA cell, broadcasting; None comes last."""
    if symbol is None:
        return (len(KIND_ORDER),)
    return (
        KIND_ORDER.index(symbol.kind),
        symbol.slots or 0,
        *_form_key(symbol.form),
        -1 if symbol.dia is None else symbol.dia,
        symbol.cb,
    )


def form_text(kind: Kind, form: str | None) -> str:
    """A form in a space's words, where the form of a layer that names none has a name too."""
    return form or _DEFAULT_FORMS[kind]


def read_form(kind: Kind, text: str) -> str | None:
    """The inverse of `form_text`.

    Raises:
        InputError: no form of layers of `kind`, which is less or external.
    """
    if text == _DEFAULT_FORMS[kind]:
        return None
    if kind_of_form(text) is not kind:
        raise InputError(f"`this is one of {_KNOWN_FORMS[kind]}` must hold, but got {text!r}")
    return text


def _form_key(form: str | None) -> tuple[int, int]:
    """Sorts forms: the default, then as `_FORM_ORDER` has them, ranks rising."""
    if form is None:
        return -1, 0
    rank = rank_of(form)
    return (_FORM_ORDER.index(form), 0) if rank is None else (_FORM_ORDER.index("lowrank"), rank)


class StageLanguage(ABC):
    """The members of one stage as a deterministic automaton over symbols.

    Attributes:
        max_depth: positions; shorter members are followed by None.
    """

    max_depth: int

    @property
    @abstractmethod
    def start(self) -> Hashable:
        """The state before the first layer."""

    @abstractmethod
    def moves(self, state: Any, position: int) -> Mapping[Symbol, Hashable]:
        """The symbols that may stand at `position`, each with the state after it.

        Args:
            state: a state that `start` or `moves` gave; None: the stage has ended.
            position: from 0 to `max_depth`; there, None stands exactly where a stage may end.
        """


def _check_numbers(name: str, numbers: tuple[int, ...], least: int) -> None:
    if not numbers or min(numbers) < least or list(numbers) != sorted(set(numbers)):
        raise InputError(
            f"`{name}` is a rising list of whole numbers >= {least}, but got {list(numbers)}"
        )


def _check_depth(depth: tuple[int, ...], shape: StageShape, path: DocumentPath) -> None:
    if max(depth) > shape.max_depth:
        raise DocumentError(
            path,
            f"`depth <= layers of the backbone's stage` must hold, but got {max(depth)} and the "
            f"backbone has {shape.max_depth} here",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedStage:
    """A stage by its counts of kinds and by options that hold for all its layers.

    Numbers of DIA groups and of layers with broadcasting that exceed a member's depth are passed
    over for that depth.

    Attributes:
        depth: allowed total numbers of layers, rising; >= 1.
        counts: allowed numbers of layers per kind, rising, in the order E, V, L, N.
        slots: memory slots S of the external layers, one value for all of a stage; rising.
        external_form: forms of the external layers, one for all of a stage; sorted.
        less_form: forms of the less-attention layers, one for all of a stage; sorted.
        dia: allowed numbers of DIA groups; 0: no DIA unit. Rising.
        cb: allowed numbers of last layers with context broadcasting; `all` comes last.

    Raises:
        InputError: numbers that are not rising or out of range, or forms of another kind.
    """

    depth: tuple[int, ...]
    counts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    slots: tuple[int, ...] = (DEFAULT_SLOTS,)
    external_form: tuple[str | None, ...] = (None,)
    less_form: tuple[str | None, ...] = (None,)
    dia: tuple[int, ...] = (0,)
    cb: tuple[LastLayers, ...] = (0,)

    def __post_init__(self) -> None:
        _check_numbers("depth", self.depth, 1)
        for kind, numbers in zip(KIND_ORDER, self.counts, strict=True):
            _check_numbers(f"counts.{kind.value}", numbers, 0)
        _check_numbers("slots", self.slots, 1)
        _check_numbers("dia", self.dia, 0)
        last_layers = tuple(k for k in self.cb if k != "all")
        if last_layers:
            _check_numbers("cb", last_layers, 0)
        if self.cb not in (last_layers, (*last_layers, "all")) or not self.cb:
            raise InputError(
                f"`cb` is a rising list of whole numbers and then `all`, but got {list(self.cb)}"
            )
        for kind in FORM_KEYS:
            forms = self.forms(kind)
            if not forms or any(form and kind_of_form(form) is not kind for form in forms):
                raise InputError(
                    f"`{FORM_KEYS[kind]}` is a list of forms of kind {kind.value}, but got "
                    f"{list(forms)}"
                )
            object.__setattr__(self, FORM_KEYS[kind], tuple(sorted(set(forms), key=_form_key)))

    @classmethod
    def from_document(cls, document: Any, path: DocumentPath) -> CountedStage:
        """Read `{counts, depth, slots, external_form, less_form, dia, cb}`.

        Raises:
            DocumentError: a key or value that means nothing here.
        """
        keys = ("counts", "depth", "slots", *FORM_KEYS.values(), "dia", "cb")
        section = Section(document, path, keys)

        def read_counts(value: Any, at: DocumentPath) -> Any:
            counts = Section(value, at, tuple(Kind))
            return tuple(counts.take(kind, read_numbers, 0) for kind in KIND_ORDER)

        arguments = {
            "counts": section.take("counts", read_counts),
            "depth": section.take("depth", read_numbers),
            "slots": section.take("slots", read_numbers, DEFAULT_SLOTS),
            **{
                key: section.take(key, read_list(partial(_read_form, kind)), _DEFAULT_FORMS[kind])
                for kind, key in FORM_KEYS.items()
            },
            "dia": section.take("dia", read_numbers, 0),
            "cb": section.take("cb", _read_last_layers, "none"),
        }
        with located(path):
            return cls(**arguments)

    def to_document(self) -> dict[str, Any]:
        """The stage as it stands in a space's document."""
        return {
            "counts": {
                kind.value: list(numbers)
                for kind, numbers in zip(KIND_ORDER, self.counts, strict=True)
            },
            "depth": list(self.depth),
            "slots": list(self.slots),
            **{
                key: [form_text(kind, form) for form in self.forms(kind)]
                for kind, key in FORM_KEYS.items()
            },
            "dia": list(self.dia),
            "cb": list(self.cb),
        }

    def forms(self, kind: Kind) -> tuple[str | None, ...]:
        """The forms that layers of `kind` may have, which is less or external."""
        forms: tuple[str | None, ...] = getattr(self, FORM_KEYS[kind])
        return forms

    def most(self, kind: Kind) -> int:
        """The most layers of `kind`."""
        return max(self.counts[KIND_ORDER.index(kind)])

    def on(self, shape: StageShape, options: MechanismOptions, path: DocumentPath) -> CountedStage:
        """The stage with its forms canonical on a backbone's stage.

        Args:
            shape: the backbone's stage.
            options: forms of the mechanisms.
            path: where the stage stands in a space's document.

        Raises:
            DocumentError: more layers than the backbone has, or maps or DIA units that do not
                fit it.
        """
        _check_depth(self.depth, shape, path)
        less = [LayerChoice(Kind.LESS, form=form) for form in self.less_form]
        with located((*path, FORM_KEYS[Kind.LESS])):
            for choice in less if self.most(Kind.LESS) else ():
                check_maps(shape, choice)
        if any(0 < num_groups <= max(self.depth) for num_groups in self.dia):
            with located((*path, "dia")):
                check_dia(shape, options)
        return replace(
            self, less_form=tuple(canonical_choice(shape, choice).form for choice in less)
        )

    def language(self, ordered: bool) -> StageLanguage:
        """The stage's members, their kinds in the order E, V, L, N if `ordered`."""
        return _CountedLanguage(self, ordered)


def _read_form(kind: Kind, value: Any, path: DocumentPath) -> str | None:
    with located(path):
        return read_form(kind, read_text(value, path))


def _read_last_layers(value: Any, path: DocumentPath) -> tuple[LastLayers, ...]:
    """`none`, `all`, numbers of last layers as `read_numbers` has them, or a list of these."""
    entries: set[LastLayers] = set()
    items = value if isinstance(value, list) else [value]
    for i, item in enumerate(items):
        if item == "all":
            found: tuple[LastLayers, ...] = ("all",)
        elif item == "none":
            found = (0,)
        elif isinstance(value, list):
            found = (read_number(item, (*path, i)),)
        else:
            found = read_numbers(item, path)
        if not entries.isdisjoint(found):
            raise DocumentError(
                (*path, i), f"`entries of a list differ` must hold, but {item!r} repeats"
            )
        entries.update(found)
    if not entries:
        raise DocumentError(path, "`a list has an entry` must hold, but it is empty")
    numbers = sorted(k for k in entries if k != "all")
    return (*numbers, "all") if "all" in entries else tuple(numbers)


class _Extent(NamedTuple):
    """Options of a counted stage that say which positions exist, are gated, and broadcast."""

    depth: int
    num_groups: int
    with_cb: int


class _Branch(NamedTuple):
    """What the attention branches of a counted stage's layers of one kind have in common."""

    slots: int | None
    form: str | None


class _CountedState(NamedTuple):
    """What a counted stage's continuation depends on.

    Attributes:
        extents: the options that agree with the layers so far.
        branches: per kind, the attention branches that its layers may have: the one that its
            layers so far have, or all where there was none.
        left: per kind, the numbers of further layers that are allowed.
        last: the place of the last kind in `KIND_ORDER`; 0 where kinds come in any order.
    """

    extents: frozenset[_Extent]
    branches: tuple[tuple[_Branch, ...], ...]
    left: tuple[tuple[int, ...], ...]
    last: int


class _CountedLanguage(StageLanguage):
    def __init__(self, stage: CountedStage, ordered: bool) -> None:
        self.max_depth = max(stage.depth)
        self._stage = stage
        self._ordered = ordered
        self._split = cache(_split)

    @property
    def start(self) -> Hashable:
        stage = self._stage
        extents = frozenset(
            _Extent(depth, num_groups, with_cb)
            for depth in stage.depth
            for num_groups in stage.dia
            for with_cb in (depth if last == "all" else last for last in stage.cb)
            if num_groups <= depth and with_cb <= depth
        )
        left = tuple(_within(numbers, self.max_depth) for numbers in stage.counts)
        alike = (_Branch(None, None),)
        branches = {
            Kind.EXTERNAL: tuple(map(_Branch._make, product(stage.slots, stage.external_form))),
            Kind.LESS: tuple(_Branch(None, form) for form in stage.less_form),
        }
        return _CountedState(
            extents, tuple(branches.get(kind, alike) for kind in KIND_ORDER), left, 0
        )

    def moves(self, state: _CountedState | None, position: int) -> Mapping[Symbol, Hashable]:
        if state is None:
            return {None: None}
        moves: dict[Symbol, Hashable] = {}
        remaining = self.max_depth - position - 1
        for gate, extents in self._split(state.extents, position).items():
            if gate is None:
                if all(0 in numbers for numbers in state.left):
                    moves[None] = None
                continue
            for place, kind in enumerate(KIND_ORDER):
                left = _within((number - 1 for number in state.left[place]), remaining)
                if place < state.last or not left:
                    continue
                after = tuple(
                    left if other == place else _within(numbers, remaining)
                    for other, numbers in enumerate(state.left)
                )
                last = place if self._ordered else 0
                for branch in state.branches[place]:
                    branches = tuple(
                        # Of a kind that cannot come again the branch does not matter.
                        ((branch,) if other == place else known)
                        if other >= last and any(after[other])
                        else ()
                        for other, known in enumerate(state.branches)
                    )
                    choice = LayerChoice(kind, branch.slots, *gate, branch.form)
                    moves[choice] = _CountedState(extents, branches, after, last)
        return moves


def _within(numbers: Iterable[int], most: int) -> tuple[int, ...]:
    """The numbers that can still be reached; cutting the rest lets equal futures be one state."""
    return tuple(number for number in numbers if 0 <= number <= most)


def _split(
    extents: frozenset[_Extent], position: int
) -> dict[tuple[int | None, bool] | None, frozenset[_Extent]]:
    """The extents by what they put at `position`: (DIA cell, cb), or None past their end."""
    parts: dict[tuple[int | None, bool] | None, set[_Extent]] = defaultdict(set)
    for extent in extents:
        if position >= extent.depth:
            parts[None].add(extent)
        else:
            cell = None
            if extent.num_groups:
                cell = dia_runs(extent.depth, extent.num_groups)[position]
            parts[cell, position >= extent.depth - extent.with_cb].add(extent)
    return {gate: frozenset(part) for gate, part in parts.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedStage:
    """A stage by the choices of each layer position.

    Equal DIA labels within a member are one cell; which number a label has does not matter.

    Attributes:
        layers: the choices at each position, sorted; a member takes one from each.
        depth: allowed numbers of layers, rising; a member of depth n takes the first n positions.

    Raises:
        InputError: a position without choices, or a depth beyond the positions.
    """

    layers: tuple[tuple[LayerChoice, ...], ...]
    depth: tuple[int, ...]

    def __post_init__(self) -> None:
        _check_numbers("depth", self.depth, 1)
        if max(self.depth) != len(self.layers):
            raise InputError(
                f"`the most of depth is the number of layer positions` must hold, but got "
                f"depth={list(self.depth)} and {len(self.layers)} positions"
            )
        if not all(self.layers):
            raise InputError("`each layer position has a choice` must hold, but one is empty")
        layers = tuple(tuple(sorted(set(choices), key=symbol_key)) for choices in self.layers)
        object.__setattr__(self, "layers", layers)

    def on(self, shape: StageShape, options: MechanismOptions, path: DocumentPath) -> ListedStage:
        """The stage with its forms canonical on a backbone's stage.

        Args:
            shape: the backbone's stage.
            options: forms of the mechanisms.
            path: where the stage stands in a space's document.

        Raises:
            DocumentError: more layers than the backbone has, or maps or DIA units that do not
                fit it.
        """
        _check_depth(self.depth, shape, path)
        for position, choices in enumerate(self.layers):
            with located((*path, "layers", position)):
                for choice in choices:
                    if choice.kind is Kind.LESS:
                        check_maps(shape, choice)
                    if choice.dia is not None:
                        check_dia(shape, options)
        return replace(
            self,
            layers=tuple(
                tuple(canonical_choice(shape, choice) for choice in choices)
                for choices in self.layers
            ),
        )

    @classmethod
    def from_document(cls, document: Any, path: DocumentPath) -> ListedStage:
        """Read `{layers, depth}`; without a depth all layers stand.

        Raises:
            DocumentError: a key or value that means nothing here.
        """
        section = Section(document, path, ("layers", "depth"))

        def read_layers(value: Any, at: DocumentPath) -> tuple[tuple[LayerChoice, ...], ...]:
            if not isinstance(value, list):
                raise DocumentError(
                    at, f"`layers is a list, one entry a position` must hold, but got {value!r}"
                )
            return tuple(read_list(read_layer)(item, (*at, i)) for i, item in enumerate(value))

        layers = section.take("layers", read_layers)
        depth = section.take("depth", read_numbers, len(layers))
        with located(path):
            return cls(layers=layers, depth=depth)

    def to_document(self) -> dict[str, Any]:
        """The stage as it stands in a space's document."""
        return {
            "layers": [[str(choice) for choice in choices] for choices in self.layers],
            "depth": list(self.depth),
        }

    def language(self, ordered: bool) -> StageLanguage:
        """The stage's members; `ordered` concerns counts, and layers listed one by one not."""
        del ordered
        return _ListedLanguage(self)


class _ListedLanguage(StageLanguage):
    """A subset construction over the ways in which labels can stand for canonical DIA cells.

    A state is a set of *namings*; a naming has one label per canonical cell so far, None where no
    later position offers that label any more.
    """

    def __init__(self, stage: ListedStage) -> None:
        self.max_depth = max(stage.depth)
        self._stage = stage
        self._later_labels = [
            {choice.dia for choices in stage.layers[position + 1 :] for choice in choices}
            for position in range(self.max_depth)
        ]

    @property
    def start(self) -> Hashable:
        return frozenset({()})

    def moves(
        self, state: frozenset[tuple[int | None, ...]] | None, position: int
    ) -> Mapping[Symbol, Hashable]:
        if state is None:
            return {None: None}
        moves: dict[Symbol, Hashable] = {}
        if position in self._stage.depth:
            moves[None] = None
        if position == self.max_depth:
            return moves
        namings: dict[LayerChoice, set[tuple[int | None, ...]]] = defaultdict(set)
        later = self._later_labels[position]
        for choice in self._stage.layers[position]:
            for naming in state:
                after, cell = naming, choice.dia
                if choice.dia is not None:
                    if choice.dia not in naming:
                        after = (*naming, choice.dia)
                    cell = after.index(choice.dia)
                symbol = replace(choice, dia=cell)
                kept = tuple(label if label in later else None for label in after)
                namings[symbol].add(kept)
        return moves | {symbol: frozenset(part) for symbol, part in namings.items()}


Stage = CountedStage | ListedStage


def read_stage(value: Any, path: DocumentPath) -> Stage:
    """One entry of a space's `stages`: with `counts`, or with `layers`."""
    forms = [key for key in ("counts", "layers") if isinstance(value, dict) and key in value]
    if len(forms) != 1:
        raise DocumentError(
            path,
            f"`a stage is a mapping with either counts or layers` must hold, but got {value!r}",
        )
    stage = CountedStage if forms == ["counts"] else ListedStage
    return stage.from_document(value, path)
