"""Questions about a space, each as a weighted sum of its members' accuracies.

**The estimand.** What one more of something is worth at equal MACs, such as one more vanilla
layer in stage 2. Members of the space are sorted by MACs and cut into bins of equal numbers. In
each bin, the number a of that thing is regressed on 1 and MACs (and what else the question holds),
which leaves a residual r of the mean 0 that does not go with MACs. The effect is

    sum_i r_i f_i / sum_i r_i a_i,

over the members of all bins, f being true accuracy. By the theorem of Frisch, Waugh and Lovell
this is the coefficient of a in the regression of f on a and on the bins' own lines in MACs.
Without the lines it is a mean of (f_i - f_j) / (a_i - a_j) over all pairs of members in one bin,
weighted by (a_i - a_j)^2: the difference between members of equal MACs for one more.

Why not a mean over members of f(member with the change) - f(nearest member in MACs without):
which member is nearest turns on ties and on the last MAC, its MACs differ all the same, and always
in one direction where the change costs something. Here MACs match on average in every bin
exactly, all pairs count, and what the MACs would have bought otherwise is what the space's other
members of these MACs have. So an effect is about the space as declared: in another space, the
other uses of the same MACs are others.

The weights r_i / sum r a depend on the space alone, and the effect is linear in f: its posterior
is that of a linear functional, see `AccuracyPosterior.variance`.

In a space of more than `MAX_LISTED` members, they are a fixed sample: `NUM_DRAWN` exact draws
without replacement, as evenly from bins of MACs as those have members. An effect is then meant
over members so drawn, which are spread over MACs, and not over these alone: what the sample
leaves open, by White's estimate of a coefficient's variance, belongs to its interval.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, partial
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from sharedattn.costs.model import CostModel
from sharedattn.mechanisms.interface import NumberOption
from sharedattn.mechanisms.registry import branch_of, gate_of
from sharedattn.placement import Placement
from sharedattn.spaces.budget import BudgetedSpace
from sharedattn.spaces.features import PlacementFeatures
from sharedattn.spaces.stratified import StratifiedSampler

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

MAX_LISTED = 8192
"""Most members of a space over all of which effects are averaged."""
NUM_DRAWN = 4096  # members of a larger space that stand for all
NUM_STRATA = 16
NUM_SPREAD = 1024
"""Most members by whose covariance an effect's spread is computed: the work grows with their
square. Fewer members average less, so that the spread is rather too large."""
BIN_SIZE, MAX_BINS = 64, 16  # bins of equal MACs: least members of one, most bins
LEAST_MEMBERS = 8.0
"""Members (in effect, by their weights) that a question needs to have an answer."""
_LEAST_SHARE = 1e-6
"""Of the variance of a number: with less of it left at equal MACs, they determine it."""

_Count = Callable[[FloatArray], FloatArray]
"""What is counted of placements (n,), from their raw features (n, f)."""


class Topic(StrEnum):
    """What a question is about."""

    KIND = "kind"
    DEPTH = "depth"
    BROADCASTING = "broadcasting"
    GATE = "gate"
    OPTION = "option"
    LAYER = "layer"
    INTERACTION = "interaction"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """A question as weights over the members of a space.

    Attributes:
        topic: what it is about.
        stage: the stage, from 0.
        text: what one more of it is, such as "one more layer of vanilla attention".
        letter: the kind's letter, of a question about a kind.
        position: the layer in its stage, from 0, of a question about one layer.
        count: what is counted of placements (n,), from their raw features (n, f).
        weights: (m,), of the members; None if members of equal MACs do not differ in it.
        fewer: (m',), the same of fewer members, for its spread.
    """

    topic: Topic
    stage: int
    text: str
    letter: str | None = None
    position: int | None = None
    count: _Count
    weights: FloatArray | None
    fewer: FloatArray | None


class Members:
    """Members of a space by MACs, in bins of about equal MACs.

    Args:
        raw: (m, f), their raw features.
        macs: (m,), their MACs, ascending.

    Attributes:
        raw: as given.
        macs: as given.
        bins: the rows of each bin.
    """

    def __init__(self, raw: FloatArray, macs: FloatArray) -> None:
        self.raw, self.macs = raw, macs
        num_bins = min(MAX_BINS, max(1, len(macs) // BIN_SIZE))
        self.bins = np.array_split(np.arange(len(macs)), num_bins)

    def weights_of(
        self, values: FloatArray, *held: FloatArray, among: BoolArray | None = None
    ) -> FloatArray | None:
        """The weights (m,) of the effect of one more of `values` at equal MACs.

        Args:
            values: (m,), what is counted.
            held: (m,) each, what else stays as it is, in each bin by a coefficient of its own.
            among: (m,), the members to compare; defaults to all.

        Returns:
            The weights, or None if members of equal MACs do not differ.
        """
        residual = np.zeros(len(self.macs))
        for rows in self.bins:
            chosen = rows if among is None else rows[among[rows]]
            if len(chosen) < len(held) + 3:
                continue
            residual[chosen] = values[chosen] - self._fitted(chosen, values, *held)
        total = float(residual @ residual)
        compared = values if among is None else values[among]
        if total <= _LEAST_SHARE * len(compared) * max(float(compared.var()), _LEAST_SHARE):
            return None
        if total**2 < LEAST_MEMBERS * float((residual**4).sum()):
            return None
        return residual / total

    def fitted_by_macs(self, values: FloatArray) -> FloatArray:
        """Values (m,) as the bins' own lines in MACs give them."""
        return np.concatenate([self._fitted(rows, values) for rows in self.bins])

    def _fitted(self, rows: NDArray[np.intp], values: FloatArray, *held: FloatArray) -> FloatArray:
        """The regression of values (m,) on 1, MACs and what is held, over some rows of a bin."""
        macs = self.macs[rows]
        width = max(float(np.ptp(macs)), 1.0)
        design = np.column_stack(
            [np.ones(len(rows)), (macs - macs[0]) / width, *(h[rows] for h in held)]
        )
        fitted: FloatArray = design @ np.linalg.lstsq(design, values[rows], rcond=None)[0]
        return fitted


class SpaceContrasts:
    """The questions that a space allows.

    Args:
        space: the legal placements inside the budget.

    Attributes:
        features: of the space's members.
        members: the members that effects are averaged over.
        every: these members.
        fewer: every n-th of them, at most `NUM_SPREAD`, by which an effect's spread is computed.
        missing_share: share of the space's members that these are a sample of and not among them.
        num_stages: number of the backbone's stages.
    """

    def __init__(self, space: BudgetedSpace) -> None:
        self.features = PlacementFeatures(space)
        if space.in_budget <= MAX_LISTED:
            drawn = list(space.enumerate())
        else:
            strata = StratifiedSampler(space, NUM_STRATA)
            drawn = strata.sample_many(random.Random(0), NUM_DRAWN)
        self.missing_share = 1.0 - len(drawn) / space.in_budget
        costs = CostModel(space.space.backbone)
        macs = np.array([float(costs.totals(member).macs) for member in drawn])
        order = np.argsort(macs, kind="stable")
        self.members: tuple[Placement, ...] = tuple(drawn[i] for i in order)
        raw = self.features.raw(self.members)
        self.every = Members(raw, macs[order])
        thin = slice(None, None, -(-len(drawn) // NUM_SPREAD))
        self.fewer = Members(raw[thin], self.every.macs[thin])
        self.num_stages = len(costs.shape.stages)
        self._stages = costs.shape.stages

    @cached_property
    def main(self) -> tuple[Contrast, ...]:
        """What one more of each thing is worth, stage by stage."""
        return tuple(
            contrast
            for stage in range(self.num_stages)
            for contrast in (
                *self._counts(stage),
                *self._depths(stage),
                *self._options(stage),
            )
        )

    @cached_property
    def layers(self) -> tuple[Contrast, ...]:
        """What each kind is worth in each layer, against the other kinds in it.

        In a stage of one kind alone, a layer is compared with leaving it out.
        """
        found: list[Contrast] = []
        for stage in range(self.num_stages):
            columns = [(*_layer_of(name), count) for name, count in self._named("kinds", stage)]
            for position, letter, count in columns:
                if branch_of(letter).is_absent:
                    continue
                kinds = {
                    other: also
                    for at, other, also in columns
                    if at == position and not branch_of(other).is_absent
                }
                found.append(
                    self._asked(
                        Topic.LAYER,
                        stage,
                        f"{self._title(stage, letter)} in layer {position + 1}",
                        count,
                        letter=letter,
                        position=position,
                        among=partial(_sum, list(kinds.values())) if len(kinds) > 1 else None,
                    )
                )
        return tuple(found)

    @cached_property
    def interactions(self) -> tuple[Contrast, ...]:
        """What two things are worth together beyond what each is worth alone."""
        found: list[Contrast] = []
        for stage in range(self.num_stages):
            counts = self._counts(stage)
            for one in counts:
                square = partial(_product, one.count, one.count)
                text = f"{one.text}, each beyond the one before"
                # Its second difference is twice the coefficient of a square.
                found.append(self._interaction(stage, text, square, one.count, factor=2.0))
            for one, other in combinations(counts, 2):
                product = partial(_product, one.count, other.count)
                text = f"{one.text} together with {other.text}"
                found.append(self._interaction(stage, text, product, one.count, other.count))
            found += self._sequences(stage)
        return tuple(one for one in found if one.weights is not None)

    def sampling_variance(self, weights: FloatArray, top1: FloatArray) -> FloatArray:
        """The variance of effects over the members by which members were drawn; 0 if all are.

        With the residuals e of accuracies on the bins' lines in MACs, White's (1980) estimate is
        sum_i w_i^2 e_i^2, here times the share of members that were not drawn.

        Args:
            weights: (k, m), of the effects.
            top1: (m,), accuracies as far as they are known.

        Returns:
            (k,).
        """
        left = top1 - self.every.fitted_by_macs(top1)
        found: FloatArray = self.missing_share * (weights**2 @ left**2)
        return found

    def _asked(
        self,
        topic: Topic,
        stage: int,
        text: str,
        count: _Count,
        *held: _Count,
        letter: str | None = None,
        position: int | None = None,
        among: _Count | None = None,
        factor: float = 1.0,
    ) -> Contrast:
        """A question: what one more by `count` is worth, times `factor`."""
        weights = [
            of.weights_of(
                count(of.raw),
                *(one(of.raw) for one in held),
                among=None if among is None else among(of.raw) > 0.0,
            )
            for of in (self.every, self.fewer)
        ]
        every, fewer = (None if w is None else factor * w for w in weights)
        is_tied = every is None or fewer is None
        return Contrast(
            topic=topic,
            stage=stage,
            text=text,
            letter=letter,
            position=position,
            count=count,
            weights=None if is_tied else every,
            fewer=None if is_tied else fewer,
        )

    def _counts(self, stage: int) -> list[Contrast]:
        """Layers of each kind, layers with broadcasting, gate cells."""
        asked: list[tuple[Topic, str, str | None, _Count]] = []
        for name, count in self._named("counts", stage):
            if name != "depth" and not branch_of(name).is_absent:
                text = f"one more layer of {self._title(stage, name)}"
                if self._stages[stage].convolution is not None:
                    text = f"one more {self._title(stage, name)}"
                asked.append((Topic.KIND, text, name, count))
        for name, count in self._named("broadcasting", stage):
            if name == "layers":
                text = "context broadcasting in one more layer"
                asked.append((Topic.BROADCASTING, text, None, count))
        for name, count in self._named("gates", stage):
            gate, what = name.split()
            if what == "cells":
                asked.append((Topic.GATE, f"one more {gate_of(gate).title}", None, count))
        return [
            self._asked(topic, stage, text, count, letter=letter)
            for topic, text, letter, count in asked
        ]

    def _depths(self, stage: int) -> Iterator[Contrast]:
        """Each depth instead of the next smaller one."""
        for name, count in self._named("counts", stage):
            if name != "depth":
                continue
            depths = sorted(set(count(self.every.raw).tolist()))
            for below, depth in pairwise(depths):
                yield self._asked(
                    Topic.DEPTH,
                    stage,
                    f"a depth of {depth:g} instead of {below:g}",
                    partial(_reaches, count, depth),
                    among=partial(_is_either, count, (below, depth)),
                )

    def _options(self, stage: int) -> Iterator[Contrast]:
        """Numbers and forms of a kind's layers, among the members that have such layers."""
        layers = dict(self._named("counts", stage))
        for name, count in self._named("options", stage):
            letter, *words = name.split()
            title, held = self._title(stage, letter), layers.get(letter)
            if words[0] == "log":
                option = next(o for o in branch_of(letter).options if o.name == words[1])
                assert isinstance(option, NumberOption)
                has_some = np.asarray(True if held is None else held(self.every.raw) > 0.0)
                if len(np.unique(count(self.every.raw)[has_some])) < 2:
                    continue  # the space has one number alone
                text = f"twice the {option.title or option.name} of {title}"
            else:
                text = f"the {words[0]} {words[1]} in one more layer of {title}"
            yield self._asked(
                Topic.OPTION,
                stage,
                text,
                count,
                *([] if held is None else [held]),
                letter=letter,
                among=held,
            )

    def _sequences(self, stage: int) -> Iterator[Contrast]:
        """Two kinds in sequence, beyond what they are worth and how deep the stage is."""
        layers = dict(self._named("counts", stage))
        for name, count in self._named("order", stage):
            one, joins, other = (*name.split(), "", "")[:3]
            if joins != "then":
                continue
            held = [layers[key] for key in dict.fromkeys((one, other, "depth")) if key in layers]
            text = f"{self._title(stage, one)} right before {self._title(stage, other)}"
            yield self._interaction(stage, text, count, *held)

    def _interaction(
        self, stage: int, text: str, count: _Count, *held: _Count, factor: float = 1.0
    ) -> Contrast:
        return self._asked(Topic.INTERACTION, stage, text, count, *held, factor=factor)

    def _named(self, group: str, stage: int) -> Iterator[tuple[str, _Count]]:
        """The columns of a group in a stage, by their names."""
        for column, key in enumerate(self.features.keys):
            if key[:2] == (group, f"stage {stage + 1}"):
                yield key[2], partial(_column, column)

    def _title(self, stage: int, letter: str) -> str:
        """What a kind is called in a stage."""
        branch = branch_of(letter)
        if self._stages[stage].convolution is not None and not branch.is_absent:
            return "residual block"
        return branch.title


def _layer_of(name: str) -> tuple[int, str]:
    """Position from 0 and letter in the name of a column, such as `layer 2 V`."""
    _, position, letter = name.split()
    return int(position) - 1, letter


def _column(column: int, raw: FloatArray) -> FloatArray:
    return raw[:, column]


def _product(one: _Count, other: _Count, raw: FloatArray) -> FloatArray:
    return one(raw) * other(raw)


def _sum(counts: Sequence[_Count], raw: FloatArray) -> FloatArray:
    found: FloatArray = np.sum([count(raw) for count in counts], axis=0)
    return found


def _is_either(count: _Count, values: Sequence[float], raw: FloatArray) -> FloatArray:
    return np.isin(count(raw), values).astype(float)


def _reaches(depth_of: _Count, depth: float, raw: FloatArray) -> FloatArray:
    return np.asarray(depth_of(raw) >= depth, dtype=float)
