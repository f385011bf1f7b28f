"""Tables of accuracies whose best front is known, for simulated searches.

A table is named `KIND[:SPACE][@SHARE]`, for example `additive`, `interacting:deit-tiny-any` or
`measured@67%`: a rule over a space (the embedded one if none is named), or a part of
PlacementBench, among the members within a share of the backbone's MACs if one is given.

A rule is a sum over the symbols of a member's path through the space's automaton, each by what the
rule remembers of the symbols before. So a dynamic program over (state, memory, exact MACs) finds
the best accuracy at each number of MACs, and with it the best front, of spaces that cannot be
listed: 948,584,016 members take a second. Options of branches and broadcasting belong to a symbol.
DIA units are counted by the automaton's edges, which say where a symbol begins a unit of its
stage: the k-th one adds what k units are worth beyond k - 1.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from sharedattn.costs.model import CostModel
from sharedattn.errors import InputError
from sharedattn.objectives import OBJECTIVES as KNOWN_OBJECTIVES
from sharedattn.objectives import parse_objectives
from sharedattn.placement import LayerChoice, Placement
from sharedattn.results.front.pareto import hypervolume
from sharedattn.search.run import REFERENCE_FACTOR
from sharedattn.search.tables import SHIPPED, Part, PlacementBench
from sharedattn.spaces.automaton import Automaton, Cells, count_cell
from sharedattn.spaces.budget import Budget, BudgetedSpace
from sharedattn.spaces.pricing import PricedAutomaton, macs_of
from sharedattn.spaces.space import Space
from sharedattn.units import Share, parse_bound

FloatArray = NDArray[np.float64]

OBJECTIVES = parse_objectives(("top1", "macs"))
RULES = ("additive", "saturating", "interacting")
PARTS = ("measured", "surrogate", "inherited")
SPACE = "digit-pairs-vit"
NOISE_SD = 0.015  # of an accuracy by the seed of its training, as on the embedded task
RANGES = {"additive": (0.55, 0.95), "saturating": (0.52, 0.96), "interacting": (0.52, 0.96)}
"""Least and most accuracy of a rule over the whole space."""
BENDS = {"additive": 0.0, "saturating": 4.0, "interacting": 2.0}
"""z becomes (1 - exp(-bend z)) / (1 - exp(-bend)) where z is a member's worth from 0 to 1."""
MEANS = {"V": 1.0, "L": 0.8, "E": 0.5, "N": 0.1}
"""What a layer of each kind is worth on average; of other kinds there are no rules."""


class Table(ABC):
    """True accuracies of a space's members, and what a search sees of them.

    Args:
        space: the members inside the budget.

    Attributes:
        space: as given.
        full: hypervolume of the best front of these members.
    """

    full: float

    def __init__(self, space: BudgetedSpace) -> None:
        self.space = space
        self._costs = CostModel(space.space.backbone)

    @abstractmethod
    def top1_of(self, placement: Placement) -> float:
        """The true accuracy of a member."""

    @abstractmethod
    def seen(self, placement: Placement) -> float:
        """The accuracy of a member that a search is told; the same each time."""

    @property
    def reference(self) -> dict[str, float]:
        """The reference point of a study of the space."""
        classes = self.space.space.backbone.num_classes
        return {"top1": 1.0 / classes, "macs": REFERENCE_FACTOR * self.space.macs_range[1]}

    def macs_of(self, placement: Placement) -> int:
        """MACs of a member."""
        return self._costs.totals(placement).macs

    def points(self, placements: Iterable[Placement]) -> FloatArray:
        """True accuracies and MACs (k, 2) of members."""
        rows = [(self.top1_of(placement), self.macs_of(placement)) for placement in placements]
        return np.array(rows, dtype=float).reshape(-1, 2)

    def hypervolume(self, points: FloatArray) -> float:
        """The hypervolume of accuracies and MACs (k, 2)."""
        return hypervolume(points, OBJECTIVES, self.reference)


class Memory(NamedTuple):
    """What an interacting rule remembers of the layers so far.

    Attributes:
        last: kind of the layer before, or "" before the first.
        with_vanilla: whether there was a vanilla layer.
    """

    last: str = ""
    with_vanilla: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What members of a space are worth, as a sum over layers, before it is scaled.

    A layer is worth something by its position and kind, by the values of its branch's options, and
    by its position if context is broadcast. The DIA units of each stage are worth something by
    their number. An interacting rule adds something for each pair of kinds in sequence, and for
    the position of the network's first vanilla layer.

    Attributes:
        kinds: (depth,) worths by kind.
        options: worth of an option's value, by name and value.
        broadcasting: (depth,).
        units: worth of 0, 1, ... DIA units in a stage.
        pairs: worth of two kinds in sequence, or None if the rule does not interact.
        first: (depth + 1,), worth of the first vanilla layer by position, the last one of none.
    """

    kinds: Mapping[str, FloatArray]
    options: Mapping[tuple[str, object], float]
    broadcasting: FloatArray
    units: FloatArray
    pairs: Mapping[str, float] | None
    first: FloatArray

    @classmethod
    def drawn(cls, automaton: Automaton, kind: str, seed: int) -> Rule:
        """Draw the numbers of a rule of some kind for a space.

        Raises:
            InputError: the space has layers of other kinds than those of `MEANS`.
        """
        symbols = [s for alphabet in automaton.alphabets for s in alphabet if s is not None]
        if others := {symbol.kind for symbol in symbols} - set(MEANS):
            raise InputError(
                f"there are no rules for layers of kind {', '.join(sorted(others))}; name a space "
                f"whose layers are of the kinds {', '.join(MEANS)}"
            )
        rng, depth = np.random.default_rng([seed, RULES.index(kind)]), len(automaton.positions)
        kinds = {letter: rng.normal(mean, 0.3, depth) for letter, mean in MEANS.items()}
        slots = sorted({s.option("slots") for s in symbols} - {None})
        options: dict[tuple[str, object], float] = {
            ("slots", number): rng.uniform(0.0, 0.1 * i) if i else 0.0
            for i, number in enumerate(slots)
        }
        broadcasting = rng.normal(0.1, 0.15, depth)
        num_units = max((s.gate.cell + 1 for s in symbols if s.gate is not None), default=0)
        units = np.array([0.0, *rng.normal(0.1, 0.15, num_units)])
        pairs = {one + other: rng.normal(0.0, 0.35) for one in MEANS for other in MEANS}
        first = rng.normal(0.0, 0.4, depth + 1)
        for form in sorted({s.option("form") for s in symbols} - {None}):
            options["form", form] = rng.normal(0.0, 0.1)
        return cls(
            kinds=kinds,
            options=options,
            broadcasting=broadcasting,
            units=units,
            pairs=pairs if kind == "interacting" else None,
            first=first,
        )

    def step(
        self, memory: Memory, position: int, symbol: LayerChoice, *, new_unit: bool
    ) -> tuple[float, Memory]:
        """What a layer adds, and what is remembered after it.

        Args:
            memory: of the layers before.
            position: from 0, over all stages at full depth.
            symbol: the layer.
            new_unit: whether it is the first of its stage with its DIA unit.
        """
        worth = float(self.kinds[symbol.kind][position])
        worth += sum(self.options.get(option, 0.0) for option in symbol.options)
        if symbol.cb:
            worth += float(self.broadcasting[position])
        if new_unit:
            assert symbol.gate is not None
            number = symbol.gate.cell
            worth += float(self.units[number + 1] - self.units[number])
        if self.pairs is None:
            return worth, memory
        worth += self.pairs.get(memory.last + symbol.kind, 0.0)
        if symbol.kind == "V" and not memory.with_vanilla:
            worth += float(self.first[position])
        return worth, Memory(symbol.kind, memory.with_vanilla or symbol.kind == "V")

    def end(self, memory: Memory) -> float:
        """What is added after the last layer."""
        return 0.0 if self.pairs is None or memory.with_vanilla else float(self.first[-1])

    def worth(self, automaton: Automaton, placement: Placement) -> float:
        """What a member is worth."""
        path = automaton.path(placement)
        assert path is not None
        total, memory = 0.0, Memory()
        cells: Cells = ()
        for level, (symbol, (_, position)) in enumerate(
            zip(path, automaton.positions, strict=True)
        ):
            new_unit, cells = count_cell(cells if position else (), symbol)
            if symbol is not None:
                worth, memory = self.step(memory, level, symbol, new_unit=new_unit)
                total += worth
        return total + self.end(memory)


def best_by_macs(priced: PricedAutomaton, rule: Rule, sign: int = 1) -> dict[int, float]:
    """The most that a member of a space is worth, for each number of MACs that any has.

    A dynamic program over the automaton's levels: for each state with what the rule remembers, the
    best sum so far for each exact number of MACs so far.

    Args:
        priced: the space.
        rule: what its members are worth.
        sign: 1, or -1 for the least.
    """
    steps = lru_cache(None)(rule.step)
    reached: dict[tuple[int, Memory], dict[int, float]]
    reached = {(0, Memory()): {macs_of(priced.fixed): 0.0}}
    for level, (states, arcs) in enumerate(
        zip(priced.automaton.levels[:-1], priced.arcs, strict=True)
    ):
        following: dict[tuple[int, Memory], dict[int, float]] = {}
        for (state, memory), sums in reached.items():
            for edge, arc in zip(states[state], arcs[state], strict=True):
                worth, after = 0.0, memory
                if edge.symbol is not None:
                    worth, after = steps(memory, level, edge.symbol, new_unit=edge.new_cell)
                into = following.setdefault((arc.target, after), {})
                _extend(into, sums, macs_of(arc.cost), worth, sign)
        reached = following
    found: dict[int, float] = {}
    for (_, memory), sums in reached.items():
        _extend(found, sums, 0, rule.end(memory), sign)
    return found


def _extend(
    into: dict[int, float], sums: Mapping[int, float], macs: int, worth: float, sign: int
) -> None:
    """Enter sums with one more layer where they are better than what is there."""
    for before, value in sums.items():
        total, after = value + worth, before + macs
        if after not in into or sign * total > sign * into[after]:
            into[after] = total


class RuleTable(Table):
    """True accuracies of every member of a space, by a rule that a seed draws.

    Accuracies are scaled over the whole space, so that a budget changes none.

    Args:
        space: the space; its budget bounds MACs alone.
        kind: one of `RULES`.
        seed: of the rule's numbers and of the noise.

    Raises:
        InputError: the space has layers of kinds without rules.
        ValueError: another cost is bounded.
    """

    def __init__(self, space: BudgetedSpace, kind: str, seed: int) -> None:
        super().__init__(space)
        if set(dict(space.budget.bounds)) - {"macs"}:
            raise ValueError("a rule's front is known inside bounds on MACs alone")
        self._seed, self._kind = seed, kind
        self._automaton = space.space.automaton
        self._rule = Rule.drawn(self._automaton, kind, seed)
        best = best_by_macs(space.priced, self._rule)
        self._least = min(best_by_macs(space.priced, self._rule, -1).values())
        self._most = max(best.values())
        points = [(self._accuracy(best[macs]), macs) for macs in best if self._admits(macs)]
        self.best = np.array(sorted(points, key=lambda point: point[1]), dtype=float)
        """(k, 2), the best accuracy at each number of MACs inside the budget, and these MACs."""
        self.full = self.hypervolume(self.best)

    def top1_of(self, placement: Placement) -> float:
        return self._accuracy(self._rule.worth(self._automaton, placement))

    def seen(self, placement: Placement) -> float:
        # By the placement, not by its number: members of large spaces cannot be listed.
        draws = random.Random(f"{self._seed} {placement}")
        return float(np.clip(self.top1_of(placement) + draws.gauss(0.0, NOISE_SD), 0.0, 1.0))

    def _admits(self, macs: int) -> bool:
        budget = self.space.budget
        return budget.admits({"macs": macs})

    def _accuracy(self, worth: float) -> float:
        bend, (low, high) = BENDS[self._kind], RANGES[self._kind]
        scaled = (worth - self._least) / (self._most - self._least)
        bent = np.expm1(-bend * scaled) / np.expm1(-bend) if bend else scaled
        return float(low + (high - low) * bent)


class BenchTable(Table):
    """The accuracies of PlacementBench.

    - measured: the truth is a placement's mean over seeds, and a search sees one seed's value. The
      mean has noise too, and holds what is seen.
    - surrogate: the truth is what is predicted, and a search sees it with noise as measured.
    - inherited: accuracies with a supernet's weights, which have no noise.

    Args:
        bench: the table.
        part: one of `PARTS`.
        seed: of the values that are seen, modulo the number of seeds of the measured ones.
        budget: what members may cost.

    Raises:
        InputError: no member has an inherited accuracy, none is inside the budget, or none is
            better than chance.
    """

    def __init__(
        self, bench: PlacementBench, part: str, seed: int, budget: Budget | None = None
    ) -> None:
        truth = _truth(bench, part)
        members = [Placement.parse(text) for text in truth]
        space = Space.from_document(bench.space_document)
        super().__init__(BudgetedSpace(space, budget, among=members))
        self._bench, self._part, self._seed = bench, part, seed
        self._truth = dict(zip(members, truth.items(), strict=True))
        self.full = self.hypervolume(self.points(self.space.enumerate()))
        if not self.full:
            raise InputError(f"no accuracy of the table `{part}` is above chance; leave it out")

    def top1_of(self, placement: Placement) -> float:
        return self._truth[placement][1]

    def seen(self, placement: Placement) -> float:
        text, top1 = self._truth[placement]
        if self._part == "inherited":
            return top1
        return float(self._bench.curve(cast(Part, self._part), text, self._seed)[-1])


def _truth(bench: PlacementBench, part: str) -> dict[str, float]:
    """The true accuracies of a part, by the placement's text."""
    if part != "inherited":
        return bench.truth(cast(Part, part))
    known = zip(bench.placements, map(float, bench.inherited), strict=True)
    if truth := {text: top1 for text, top1 in known if not np.isnan(top1)}:
        return truth
    raise InputError("the table has no inherited accuracies; leave out the table `inherited`")


@dataclass(frozen=True, slots=True)
class TableName:
    """What a table's name says.

    Attributes:
        kind: one of `RULES` or `PARTS`.
        space: name of the space of a rule, or "".
        share: most MACs as a share of the backbone's, or None.
    """

    kind: str
    space: str
    share: Share | None

    @classmethod
    def parse(cls, text: str) -> TableName:
        """Read `KIND[:SPACE][@SHARE]`.

        Raises:
            InputError: the kind is unknown, a part of PlacementBench has a space, or the share is
                none.
        """
        named, _, bound = text.partition("@")
        kind, _, space = named.partition(":")
        if kind not in (*RULES, *PARTS):
            raise InputError(
                f"`--tables` has {text}; name some of {', '.join((*RULES, *PARTS))}, a rule with "
                f"a space as in additive:deit-tiny-any, each with a budget as in additive@67%"
            )
        if space and kind in PARTS:
            raise InputError(f"`--tables` has {text}; {kind} has its own space, so write {kind}")
        share = parse_bound(bound, KNOWN_OBJECTIVES["macs"].unit) if "@" in text else None
        if share is not None and not isinstance(share, Share):
            raise InputError(f"`--tables` has {text}; give a share of MACs, such as @67%")
        return cls(kind, space, share)


class Tables:
    """The tables by name and seed; spaces and the file of PlacementBench are opened once.

    Args:
        bench: the file of PlacementBench.

    Attributes:
        table: the table of a name and seed; errors are those of `TableName.parse`, `Space.load`,
            `PlacementBench.load` and of the tables.
    """

    def __init__(self, bench: Path = SHIPPED) -> None:
        self._path = bench
        self._space = lru_cache(None)(self._opened)
        self._bench = lru_cache(None)(PlacementBench.load)
        # All searchers search a table before the next one is made.
        self.table = lru_cache(1)(self._table)

    def _table(self, text: str, seed: int) -> Table:
        name = TableName.parse(text)
        if name.kind in PARTS:
            return BenchTable(self._bench(self._path), name.kind, seed, Budget(name.share))
        return RuleTable(self._space(name.space or SPACE, name.share), name.kind, seed)

    @staticmethod
    def _opened(space: str, share: Share | None) -> BudgetedSpace:
        return BudgetedSpace(Space.load(space), Budget(share))


def all_tables(bench: Path = SHIPPED) -> tuple[str, ...]:
    """The names of the tables that are compared by default.

    Args:
        bench: the file of PlacementBench; its parts are left out if it is not there.
    """
    rules = (*RULES, *(f"{rule}:deit-tiny-any" for rule in RULES), *(f"{r}@67%" for r in RULES))
    return (*rules, *(PARTS[:2] if bench.exists() else ()))
