"""Optuna's NSGA-II and TPE over placements.

Optuna's study lives in memory and is rebuilt from the database. Trial and study attributes are
stored, since NSGA-II keeps its generations in the former and their parents in the latter. Two
things differ from plain Optuna. Before a sampler has data (NSGA-II's first generation, TPE's
start-up), proposals cycle through bins of MACs, uniformly within each: uniform over all legal
placements, most would be deep and the cheap end of the front would stay empty. And NSGA-II's
children come from crossover and mutation of placements, not of parameters. Decoded parameters are
repaired to the nearest legal placement, and Optuna is told the repaired parameters.

A study notes the `RULES` that it began with, and goes on by them. Since the second ones, a
proposal that was refused too often gives way to the nearest untried member rather than to a
uniform draw, and a mutation may jump to any member. Studies without the note began by the first.
"""

from __future__ import annotations

import math
import random
import warnings
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from sharedattn.objectives import Direction, Objective
from sharedattn.placement import Placement
from sharedattn.search.searchers.base import PastTrial, Proposal, Searcher
from sharedattn.spaces.budget import BudgetedSpace
from sharedattn.spaces.nearest import NearestMembers
from sharedattn.spaces.stratified import StratifiedSampler
from sharedattn.spaces.variation import Variation

FIRST_NUM_TRIALS = "sharedattn:first_num_trials"
RULES = "sharedattn:rules"
NEWEST_RULES = 2
CROSSOVER_PROBABILITY = 0.9
MUTATION_PROBABILITY = 0.5
JUMP_PROBABILITY = 0.05  # of mutations, since edits may not connect all members


class _WholeSpace(BaseSampler):
    """Samples all parameters jointly, so that none is drawn independently.

    Every trial has every parameter of the encoding, so the search space is fixed.
    """

    def __init__(self, sampler: BaseSampler, space: dict[str, BaseDistribution]) -> None:
        self._sampler = sampler
        self._space = space

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        if isinstance(self._sampler, TPESampler):
            # TPE groups the parameters here, and uses the groups when sampling.
            self._sampler.infer_relative_search_space(study, trial)
        return self._space

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        raise AssertionError("no parameter is sampled independently")


class OptunaSearcher(Searcher):
    """A searcher on top of one of Optuna's samplers; takes the arguments of `Searcher`."""

    def __init__(
        self,
        space: BudgetedSpace,
        objectives: Sequence[Objective],
        *,
        seed: int,
        num_trials: int,
        study_attributes: Mapping[str, Any],
    ) -> None:
        super().__init__(
            space,
            objectives,
            seed=seed,
            num_trials=num_trials,
            study_attributes=study_attributes,
        )
        self._distributions: dict[str, BaseDistribution] = {
            name: CategoricalDistribution(choices)
            for name, choices in self.encoding.dimensions.items()
        }
        self._storage = optuna.storages.InMemoryStorage()
        directions = [
            StudyDirection.MAXIMIZE
            if objective.direction is Direction.MAXIMIZE
            else StudyDirection.MINIMIZE
            for objective in objectives
        ]
        # The in-memory study is an implementation detail; keep its messages off the terminal.
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(storage=self._storage, directions=directions)
        self._study_id = self._storage.get_study_id_from_name(self._study.study_name)
        # Populations and start-up phases keep their size when a study is extended.
        self.first_num_trials: int = study_attributes.get(FIRST_NUM_TRIALS, num_trials)
        begun_with = 1 if FIRST_NUM_TRIALS in study_attributes else NEWEST_RULES
        self._rules: int = study_attributes.get(RULES, begun_with)
        attributes = {**study_attributes, FIRST_NUM_TRIALS: self.first_num_trials}
        if self._rules > 1:
            attributes[RULES] = self._rules
        for key, value in attributes.items():
            self._storage.set_study_system_attr(self._study_id, key, value)
        self._placements: list[Placement] = []  # by trial number
        # Optuna's trial of the open proposal: attempts share it, `accept` completes it.
        self._open_trial_id: int | None = None

    def instead_of(self, refused: Placement) -> Iterable[Placement]:
        return self._nearest.of(refused) if self._rules > 1 else ()

    @cached_property
    def _nearest(self) -> NearestMembers:
        return NearestMembers(self.encoding)

    @property
    @abstractmethod
    def num_first_trials(self) -> int:
        """Number of trials before the sampler itself proposes."""

    @abstractmethod
    def make_sampler(self, seed: int) -> BaseSampler:
        """Optuna's sampler for one attempt at a proposal."""

    def ask(self, number: int, attempt: int) -> Proposal:
        sampler = _WholeSpace(
            self.make_sampler(self.seed_of(number, attempt)), self._distributions
        )
        if self._open_trial_id is None:
            self._study.sampler = sampler
            trial = self._study.ask()
            assert trial.number == number
            self._open_trial_id = trial._trial_id
            parameters = trial.relative_params
        else:
            frozen = self._storage.get_trial(self._open_trial_id)
            space = sampler.infer_relative_search_space(self._study, frozen)
            parameters = sampler.sample_relative(self._study, frozen, space)
        placement = (
            self.encoding.repair(self.encoding.decode(parameters))
            if parameters
            else self._first_placement(number, attempt)
        )
        return Proposal(
            placement=placement,
            proposed=dict(parameters),
            attributes=self._storage.get_trial(self._open_trial_id).system_attrs,
            study_attributes=self._storage.get_study_system_attrs(self._study_id),
        )

    @cached_property
    def _first_bins(self) -> StratifiedSampler:
        # The first trial is the backbone as published; the others are drawn from the bins.
        num_bins = max(1, self.num_first_trials - 1)
        return StratifiedSampler(self.space, num_bins, shared_edges=True)

    def _first_placement(self, number: int, attempt: int) -> Placement:
        """A placement of the start-up phase, each trial from the next bin of MACs."""
        return self._first_bins.sample_from(self.generator(number, attempt), number - 1)

    def accept(self, trial: PastTrial, parameters: Mapping[str, Any] | None = None) -> None:
        self._placements.append(trial.placement)
        if parameters is None:
            parameters = self.encoding.encode(trial.placement)
        if self._open_trial_id is None:
            self._study.add_trial(
                create_trial(
                    state=TrialState.RUNNING,
                    params=dict(parameters),
                    distributions=self._distributions,
                    system_attrs=dict(trial.attributes),
                )
            )
            return
        for name, value in parameters.items():
            distribution = self._distributions[name]
            self._storage.set_trial_param(
                self._open_trial_id, name, distribution.to_internal_repr(value), distribution
            )
        self._open_trial_id = None

    def tell(self, trial: PastTrial) -> None:
        if trial.failed:
            self._study.tell(trial.number, state=TrialState.FAIL)
        else:
            self._study.tell(trial.number, trial.values)


class NSGA2Searcher(OptunaSearcher):
    """NSGA-II (Deb et al. 2002) with a population that fits the number of trials.

    Optuna's population of 50 would make a search of 24 trials random. Ours is sqrt(2 * trials),
    from 4 to 50: 7 for 24 trials, 14 for 100.
    """

    name: ClassVar[str] = "nsga2"

    @property
    def num_first_trials(self) -> int:
        """The size of the population, which the first generation fills."""
        return min(50, max(4, round(math.sqrt(2 * self.first_num_trials))))

    @cached_property
    def _variation(self) -> Variation:
        return Variation(self.encoding)

    def make_sampler(self, seed: int) -> BaseSampler:
        rng = random.Random(seed)
        jump_probability = JUMP_PROBABILITY if self._rules > 1 else 0.0

        def make_child(
            study: Study, _: dict[str, BaseDistribution], parents: list[FrozenTrial]
        ) -> dict[str, Any]:
            # Optuna orders them by rank right after selection, and by number afterwards.
            parents = sorted(parents, key=lambda trial: trial.number)
            one, other = (self._tournament(study, parents, rng) for _ in range(2))
            child = one
            if rng.random() < CROSSOVER_PROBABILITY:
                child = self._variation.crossover(one, other, rng)
            if child in (one, other) or rng.random() < MUTATION_PROBABILITY:
                child = self._variation.mutate(child, rng, jump_probability=jump_probability)
            return self.encoding.encode(child)

        with warnings.catch_warnings():
            # Optuna 5.0 calls child_generation_strategy experimental.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return NSGAIISampler(
                population_size=self.num_first_trials,
                seed=seed,
                child_generation_strategy=make_child,
            )

    def _tournament(
        self, study: Study, parents: list[FrozenTrial], rng: random.Random
    ) -> Placement:
        """The parent that dominates the other, or the first one drawn if neither does."""
        first, second = rng.choice(parents), rng.choice(parents)
        winner = second if _dominates(second, first, study) else first
        return self._placements[winner.number]


def _dominates(one: FrozenTrial, other: FrozenTrial, study: Study) -> bool:
    """Whether `one` is no worse than `other` in every objective and better in at least one."""
    signs = [1 if d is StudyDirection.MINIMIZE else -1 for d in study.directions]
    losses_one = [sign * value for sign, value in zip(signs, one.values, strict=True)]
    losses_other = [sign * value for sign, value in zip(signs, other.values, strict=True)]
    return losses_one != losses_other and all(
        a <= b for a, b in zip(losses_one, losses_other, strict=True)
    )


class TPESearcher(OptunaSearcher):
    """Multi-objective TPE (Ozaki et al. 2022), multivariate and grouped."""

    name: ClassVar[str] = "tpe"

    @property
    def num_first_trials(self) -> int:
        return min(10, max(4, self.first_num_trials // 3))

    def make_sampler(self, seed: int) -> BaseSampler:
        with warnings.catch_warnings():
            # Optuna calls multivariate and group experimental.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return TPESampler(
                n_startup_trials=self.num_first_trials,
                multivariate=True,
                group=True,
                constant_liar=True,
                seed=seed,
            )
