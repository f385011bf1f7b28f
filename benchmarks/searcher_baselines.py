"""Searchers that others offer, for comparison alone: each is driven as a study drives its own.

They see the encoding's parameters and are told those of the repaired placements, as Optuna's are,
and their first trials are the backbone as published and draws from bands of MACs, as the others'.

- gp: Optuna's GPSampler.
- evolution: regularised evolution (Real et al. 2019) over placements, with this tool's mutation.
- syne-ehvi and syne-evolution: Syne Tune's expected hypervolume improvement by BoTorch, and its
  multi-objective regularised evolution; they need `pip install syne-tune botorch`.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import optuna
import torch
from numpy.typing import NDArray

from sharedattn.errors import InputError
from sharedattn.objectives import Objective
from sharedattn.placement import Placement
from sharedattn.results.front.pareto import non_dominated, to_losses
from sharedattn.search.run import REFERENCE_FACTOR
from sharedattn.search.searchers import PastTrial, Proposal, Searcher
from sharedattn.search.searchers.optuna_search import JUMP_PROBABILITY, OptunaSearcher
from sharedattn.spaces.nearest import NearestMembers
from sharedattn.spaces.stratified import StratifiedSampler
from sharedattn.spaces.variation import Variation

FloatArray = NDArray[np.float64]

NUM_FIRST = 8
"""First trials of the samplers with a model."""


def population_size(num_trials: int) -> int:
    """Members of an evolution's population: a quarter of the trials, from 8 to 100."""
    return min(100, max(NUM_FIRST, num_trials // 4))


class GPSearcher(OptunaSearcher):
    """Optuna's Gaussian process over the encoding."""

    name: ClassVar[str] = "gp"

    @property
    def num_first_trials(self) -> int:
        return NUM_FIRST

    def make_sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        with warnings.catch_warnings():
            # Optuna calls it experimental.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=self.num_first_trials)


class _BandedSearcher(Searcher):
    """A searcher whose first trials are drawn from bands of MACs; takes `Searcher`'s arguments."""

    @property
    def num_first(self) -> int:
        """Number of trials before the searcher itself proposes."""
        return NUM_FIRST

    @cached_property
    def _bands(self) -> StratifiedSampler:
        return StratifiedSampler(self.space, max(1, self.num_first - 1), shared_edges=True)

    @cached_property
    def _nearest(self) -> NearestMembers:
        return NearestMembers(self.encoding)

    def first(self, number: int, attempt: int) -> Proposal:
        """A proposal of the first trials, each from the next band."""
        rng = self.generator(number, attempt)
        return Proposal(placement=self._bands.sample_from(rng, number + attempt - 1))

    def instead_of(self, refused: Placement) -> Iterable[Placement]:
        return self._nearest.of(refused)


class EvolutionSearcher(_BandedSearcher):
    """Regularised evolution (Real et al. 2019, algorithm 1) of several objectives.

    The population is the newest P results, so that the oldest dies, however good. A child is a
    mutation of the best of S members drawn from it without replacement: of the lowest rank of
    non-domination in the population, and among these of the largest crowding distance (Deb et al.
    2002). P is a quarter of the trials, from 8 to 100, and S a quarter of P, Real et al.'s share.
    """

    name: ClassVar[str] = "evolution"

    @cached_property
    def _told(self) -> list[tuple[Placement, tuple[float, ...]]]:
        return []

    @property
    def num_first(self) -> int:
        return population_size(self.num_trials)

    @cached_property
    def _variation(self) -> Variation:
        return Variation(self.encoding)

    def ask(self, number: int, attempt: int) -> Proposal:
        population = self._told[-self.num_first :]
        if len(population) < self.num_first:
            return self.first(number, attempt)
        rng = self.generator(number, attempt)
        order = fitness_order(np.array([values for _, values in population]), self.objectives)
        drawn = rng.sample(range(len(population)), max(2, len(population) // 4))
        parent, _ = population[min(drawn, key=list(order).index)]
        return Proposal(
            placement=self._variation.mutate(parent, rng, jump_probability=JUMP_PROBABILITY)
        )

    def accept(self, trial: PastTrial, parameters: Mapping[str, Any] | None = None) -> None:
        pass

    def tell(self, trial: PastTrial) -> None:
        if trial.values is not None and not trial.failed:
            self._told.append((trial.placement, trial.values))


def fitness_order(values: FloatArray, objectives: Sequence[Objective]) -> NDArray[np.intp]:
    """Rows from the fittest: by rank of non-domination, then by crowding distance.

    Args:
        values: (n, m), of the objectives.
        objectives: the m objectives.

    Returns:
        (n,), row numbers.
    """
    losses = to_losses(values, objectives)
    ranks = np.zeros(len(losses), dtype=int)
    crowding = np.zeros(len(losses))
    left, rank = np.arange(len(losses)), 0
    while left.size:
        is_member = non_dominated(losses[left])
        members = left[is_member]
        ranks[members] = rank
        crowding[members] = _crowding(losses[members])
        left, rank = left[~is_member], rank + 1
    return np.lexsort((-crowding, ranks))


def _crowding(losses: FloatArray) -> FloatArray:
    """Crowding distances (n,) of losses (n, m) of one rank; those at an end are infinite."""
    distances = np.zeros(len(losses))
    for column in losses.T:
        order = np.argsort(column, kind="stable")
        spread = np.ptp(column) or 1.0
        distances[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / spread
        distances[order[[0, -1]]] = np.inf
    return distances


class _SyneSearcher(_BandedSearcher):
    """A searcher of Syne Tune over the encoding; takes the arguments of `Searcher`.

    It minimises -2 where an objective is at the reference point, and -3 where it is ideal: its
    expected hypervolume improvement maximises the negatives with a fixed reference point of 2.
    """

    @cached_property
    def _choices(self) -> dict[str, tuple[Any, ...]]:
        return {name: tuple(values) for name, values in self.encoding.dimensions.items()}

    @property
    @abstractmethod
    def _searcher(self) -> Any:
        """Syne Tune's searcher, made when it is first asked for."""

    @property
    def _config_space(self) -> dict[str, Any]:
        from syne_tune.config_space import choice

        return {
            name: choice([str(i) for i in range(len(values))])
            for name, values in self._choices.items()
        }

    @cached_property
    def _reference(self) -> tuple[float, float]:
        classes = self.space.space.backbone.num_classes
        return 1.0 / classes, REFERENCE_FACTOR * self.space.macs_range[1]

    def ask(self, number: int, attempt: int) -> Proposal:
        if number < NUM_FIRST:
            return self.first(number, attempt)
        config = self._suggested()
        parameters = {name: self._choices[name][int(place)] for name, place in config.items()}
        return Proposal(placement=self.encoding.repair(self.encoding.decode(parameters)))

    def _suggested(self) -> dict[str, str]:
        suggested: dict[str, str] = self._searcher.suggest()
        return suggested

    def _config_of(self, placement: Placement) -> dict[str, str]:
        encoded = self.encoding.encode(placement)
        return {name: str(self._choices[name].index(value)) for name, value in encoded.items()}

    def accept(self, trial: PastTrial, parameters: Mapping[str, Any] | None = None) -> None:
        pass

    def tell(self, trial: PastTrial) -> None:
        assert trial.values is not None
        chance, most_macs = self._reference
        top1, macs = trial.values
        metrics = [-2.0 - (top1 - chance) / (1.0 - chance), -3.0 + macs / most_macs]
        self._searcher.on_trial_complete(trial.number, self._config_of(trial.placement), metrics)


class SyneEvolutionSearcher(_SyneSearcher):
    """Syne Tune's multi-objective regularised evolution, with the population of `evolution`."""

    name: ClassVar[str] = "syne-evolution"

    @cached_property
    def _searcher(self) -> Any:
        module = _syne("multiobjective.multi_objective_regularized_evolution")
        size = population_size(self.num_trials)
        return module.MultiObjectiveRegularizedEvolution(
            self._config_space,
            population_size=size,
            sample_size=max(2, size // 4),
            random_seed=self.seed,
        )


class SyneEHVISearcher(_SyneSearcher):
    """Syne Tune's expected hypervolume improvement, by Gaussian processes of BoTorch."""

    name: ClassVar[str] = "syne-ehvi"

    @cached_property
    def _searcher(self) -> Any:
        module = _syne("multiobjective.expected_hyper_volume_improvement")
        return module.ExpectedHyperVolumeImprovement(self._config_space, random_seed=self.seed)

    def _suggested(self) -> dict[str, str]:
        # Its models are float64 and its tensors of torch's default type, and BoTorch 0.18 refuses
        # to mix them.
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            config = super()._suggested()
        finally:
            torch.set_default_dtype(default)
        # It notes what it suggests as a trial that runs. What runs is the repaired placement, and
        # only once it has been accepted.
        number = len(self._searcher.trial_configs) - 1
        del self._searcher.trial_configs[number]
        self._searcher.pending_trials.discard(number)
        return config

    def accept(self, trial: PastTrial, parameters: Mapping[str, Any] | None = None) -> None:
        self._searcher.trial_configs[trial.number] = self._config_of(trial.placement)
        self._searcher.pending_trials.add(trial.number)


def _syne(name: str) -> Any:
    """A module of Syne Tune's schedulers.

    Raises:
        InputError: it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(f"syne_tune.optimizer.schedulers.{name}")
    except ImportError as error:
        raise InputError(
            f"this searcher needs Syne Tune ({error}); pip install syne-tune botorch"
        ) from error


BASELINES: dict[str, type[Searcher]] = {
    searcher.name: searcher
    for searcher in (GPSearcher, EvolutionSearcher, SyneEvolutionSearcher, SyneEHVISearcher)
}
