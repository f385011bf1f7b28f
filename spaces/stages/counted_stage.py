"""A stage given by its counts of kinds and by options that hold for all its layers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from typing import Any, Literal

from sharedattn.errors import InputError
from sharedattn.mechanisms.interface import Branch, NumberOption, Option, Options
from sharedattn.mechanisms.registry import branch_of, is_always_listed, registry
from sharedattn.networks.legality import check_branch, check_broadcasting
from sharedattn.placement import MechanismOptions
from sharedattn.shape import StageShape
from sharedattn.spaces.document import Section, read_number, read_numbers
from sharedattn.spaces.stages.counted_language import CountedLanguage, StageGroups
from sharedattn.spaces.stages.language import StageLanguage, check_depth, check_numbers
from sharedattn.spaces.stages.parts import (
    Values,
    default_values,
    gates_by_code,
    option_owners,
    read_values,
    value_text,
)
from sharedattn.yaml_text import DocumentError, DocumentPath, located

LastLayers = int | Literal["all"]

_NONE = (0,)


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedStage:
    """A stage given by its counts of kinds and by options that hold for all its layers.

    Numbers of groups and of broadcasting layers that exceed a member's depth are ignored for that
    depth. Omitted entries default to 0 layers, the option's default, and 0 groups; they are filled
    in for built-in mechanisms, and dropped for others that the stage does not use.

    Attributes:
        depth: allowed numbers of layers, rising; >= 1.
        counts: by letter, allowed numbers of layers of this kind, rising; by rank.
        options: by option key, the allowed values, one for all layers of the kind: rising numbers
            or sorted forms. The value None stands for a layer that names no form.
        gates: by a gate's code, allowed numbers of groups, rising; 0 is no gate. A member has
            groups of at most one gate, so 0 is among the numbers of all others.
        cb: allowed numbers of last layers with context broadcasting; `all` comes last.

    Raises:
        InputError: unknown kinds, options or gates, values that do not rise or are out of range,
            or several gates that are all required.
    """

    depth: tuple[int, ...]
    counts: Mapping[str, tuple[int, ...]] = field(hash=False)
    options: Mapping[str, Values] = field(default_factory=dict, hash=False)
    gates: Mapping[str, tuple[int, ...]] = field(default_factory=dict, hash=False)
    cb: tuple[LastLayers, ...] = _NONE

    def __post_init__(self) -> None:
        check_numbers("depth", self.depth, 1)
        object.__setattr__(self, "counts", _whole_counts(self.counts))
        object.__setattr__(self, "options", _whole_options(self.options, self.branches))
        object.__setattr__(self, "gates", _whole_gates(self.gates))
        last_layers = tuple(k for k in self.cb if k != "all")
        if last_layers:
            check_numbers("cb", last_layers, 0)
        if self.cb not in (last_layers, (*last_layers, "all")) or not self.cb:
            raise InputError(
                f"`cb` is a rising list of whole numbers and then `all`, but got {list(self.cb)}"
            )

    @classmethod
    def from_document(cls, document: Any, path: DocumentPath) -> CountedStage:
        """Read `{counts, depth, cb}` and the keys of options and gates.

        Raises:
            DocumentError: an unknown key or an invalid value.
        """
        owners, gates = option_owners(), gates_by_code()
        section = Section(document, path, ("counts", "depth", *owners, *gates, "cb"))

        def read_counts(value: Any, at: DocumentPath) -> dict[str, tuple[int, ...]]:
            known = tuple(registry().branches)
            counts = Section(value, at, known)
            return {letter: counts.take(letter, read_numbers, 0) for letter in known}

        arguments: dict[str, Any] = {
            "counts": section.take("counts", read_counts),
            "depth": section.take("depth", read_numbers),
            "options": {
                key: section.take(key, partial(read_values, option))
                for key, (_, option) in owners.items()
                if key in section
            },
            "gates": {code: section.take(code, read_numbers, 0) for code in gates},
            "cb": section.take("cb", _read_last_layers, "none"),
        }
        with located(path):
            return cls(**arguments)

    def to_document(self) -> dict[str, Any]:
        """The stage as a space's document writes it."""
        owners = option_owners()
        return {
            "counts": {letter: list(numbers) for letter, numbers in self.counts.items()},
            "depth": list(self.depth),
            **{
                key: [value_text(owners[key][1], value) for value in values]
                for key, values in self.options.items()
            },
            **{code: list(numbers) for code, numbers in self.gates.items()},
            "cb": list(self.cb),
        }

    @property
    def branches(self) -> tuple[Branch, ...]:
        """The branches that a layer may have, by rank."""
        return tuple(branch_of(letter) for letter in self.counts if self.most(letter))

    @property
    def used_options(self) -> tuple[tuple[Branch, Option], ...]:
        """The options that a layer may have, with their branches, by rank."""
        return tuple((branch, option) for branch in self.branches for option in branch.options)

    def most(self, letter: str) -> int:
        """The largest allowed number of layers of a kind."""
        return max(self.counts.get(letter, _NONE))

    def choices_of(self, branch: Branch) -> Iterator[Options]:
        """Yield every combination of a branch's options, the last option varying fastest."""
        names = [option.name for option in branch.options]
        for values in product(*(self.options[option.key] for option in branch.options)):
            pairs = zip(names, values, strict=True)
            yield tuple((name, value) for name, value in pairs if value is not None)

    def groups(self) -> tuple[StageGroups | None, ...]:
        """The gates of the whole stage with their numbers of groups that members may have."""
        return _combinations(self.gates)

    def on(self, shape: StageShape, options: MechanismOptions, path: DocumentPath) -> CountedStage:
        """Return the stage with its forms canonical on a backbone's stage.

        Args:
            shape: the backbone's stage.
            options: forms of the mechanisms.
            path: place of the stage in a space's document.

        Raises:
            DocumentError: more layers than the backbone has, counts that add up to no allowed
                depth, or branches or gates that do not fit the backbone.
        """
        check_depth(self.depth, shape, path)
        self._check_sums(path)
        for branch in self.branches:
            with located((*path, *_place_of(branch))):
                for choice in self.choices_of(branch):
                    check_branch(shape, options, branch, choice)
        if self.cb != _NONE:
            with located((*path, "cb")):
                check_broadcasting(shape)
        for code, gate in gates_by_code().items():
            if any(0 < number <= max(self.depth) for number in self.gates.get(code, ())):
                with located((*path, code)):
                    gate.check(shape, options)
        owners = option_owners()
        stage = replace(
            self,
            options={
                key: tuple(_canonical(*owners[key], value, shape) for value in values)
                for key, values in self.options.items()
            },
        )
        for branch in stage.branches:
            if any(branch.canonical(c, shape) != c for c in stage.choices_of(branch)):
                raise DocumentError(
                    (*path, "counts", branch.letter),
                    f"the default form of {branch.title} depends on its numbers, which counts "
                    f"cannot express; write the stage layer by layer",
                )
        return stage

    def _check_sums(self, path: DocumentPath) -> None:
        sums = {0}
        for numbers in self.counts.values():
            sums = {total + number for total in sums for number in numbers}
        if sums.isdisjoint(self.depth):
            raise DocumentError(
                (*path, "counts"),
                f"the counts add up to {_numbers(sums)} layers, but `depth` is "
                f"{_numbers(self.depth)}; allow other counts of a kind, or another depth",
            )

    def language(self, ordered: bool) -> StageLanguage:
        """The stage's members, with kinds in the order of their ranks if `ordered`."""
        return CountedLanguage(
            depths=self.depth,
            counts=self.counts,
            options={
                letter: tuple(self.choices_of(branch_of(letter))) if self.most(letter) else ()
                for letter in self.counts
            },
            groups=self.groups(),
            last_layers=self.cb,
            ordered=ordered,
        )


def _numbers(numbers: Collection[int]) -> str:
    """Whole numbers for people: `2`, `2, 4`, or `2 to 4` where none between is missing."""
    least, most = min(numbers), max(numbers)
    if len(numbers) > 2 and len(numbers) == most - least + 1:
        return f"{least} to {most}"
    return ", ".join(map(str, sorted(numbers)))


def _whole_counts(counts: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    for letter in counts:
        branch_of(letter)
    found = {}
    for branch in registry().by_rank:
        numbers = counts.get(branch.letter, _NONE)
        check_numbers(f"counts.{branch.letter}", numbers, 0)
        if is_always_listed(branch) or max(numbers):
            found[branch.letter] = numbers
    return found


def _whole_options(options: Mapping[str, Values], used: tuple[Branch, ...]) -> dict[str, Values]:
    owners = option_owners()
    _check_known("options", options, owners)
    found = {}
    for key, (branch, option) in owners.items():
        values = _sorted_values(branch, option, options.get(key, default_values(option)))
        if is_always_listed(branch) or branch in used:
            found[key] = values
    return found


def _sorted_values(branch: Branch, option: Option, values: Values) -> Values:
    if isinstance(option, NumberOption):
        check_numbers(option.key, values, option.least)  # type: ignore[arg-type]
        option.check(values[-1])
        return values
    try:
        for value in values:
            if value is not None:
                option.check(value)
        if not values:
            raise InputError("it is empty")
    except InputError as error:
        raise InputError(
            f"`{option.key}` is a list of forms of kind {branch.letter}, but got {list(values)}: "
            f"{error}"
        ) from error
    return tuple(sorted(set(values), key=option.order))


def _whole_gates(gates: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    known = gates_by_code()
    _check_known("gates", gates, known)
    found = {}
    for code, gate in known.items():
        numbers = gates.get(code, _NONE)
        check_numbers(code, numbers, 0)
        if is_always_listed(gate) or max(numbers):
            found[code] = numbers
    if not _combinations(found):
        raise InputError(
            f"{' and '.join(f'`{code}`' for code, numbers in found.items() if 0 not in numbers)} "
            f"each require a gate, but a layer has at most one; add 0 to the numbers of all but "
            f"one"
        )
    return found


def _combinations(gates: Mapping[str, tuple[int, ...]]) -> tuple[StageGroups | None, ...]:
    def others_may_lack(code: str) -> bool:
        return all(0 in numbers for other, numbers in gates.items() if other != code)

    known = gates_by_code()
    none = (None,) if all(0 in numbers for numbers in gates.values()) else ()
    return none + tuple(
        StageGroups(known[code].name, number)
        for code, numbers in gates.items()
        if others_may_lack(code)
        for number in numbers
        if number
    )


def _check_known(what: str, named: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    for key in named:
        if key not in known:
            raise InputError(f"`{what}` has unknown key {key!r}; known: {', '.join(known)}")


def _place_of(branch: Branch) -> tuple[str, ...]:
    """The narrowest place in a document that says what a branch does."""
    if len(branch.options) == 1:
        return (branch.options[0].key,)
    return ("counts", branch.letter)


def _canonical(branch: Branch, option: Option, value: Any, shape: StageShape) -> Any:
    """The canonical value on a backbone's stage, given defaults for the other options."""
    if isinstance(option, NumberOption) or value is None:
        return value
    numbers = {o.name: o.default for o in branch.options if isinstance(o, NumberOption)}
    values = {**numbers, option.name: value}
    said = tuple((o.name, values[o.name]) for o in branch.options if o.name in values)
    return dict(branch.canonical(said, shape)).get(option.name)


def _read_last_layers(value: Any, path: DocumentPath) -> tuple[LastLayers, ...]:
    """Read `none`, `all`, numbers of last layers as in `read_numbers`, or a list of these."""
    entries: set[LastLayers] = set()
    items = value if isinstance(value, list) else [value]
    for i, item in enumerate(items):
        if item == "all":
            found: tuple[LastLayers, ...] = ("all",)
        elif item == "none":
            found = _NONE
        elif isinstance(value, list):
            found = (read_number(item, (*path, i)),)
        else:
            found = read_numbers(item, path)
        if not entries.isdisjoint(found):
            raise DocumentError((*path, i), f"{item!r} is listed twice; leave one out")
        entries.update(found)
    if not entries:
        raise DocumentError(path, "this list is empty; give none, all, or numbers of layers")
    numbers = sorted(k for k in entries if k != "all")
    return (*numbers, "all") if "all" in entries else tuple(numbers)
