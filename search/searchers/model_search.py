"""Model-based search: a Gaussian process of accuracy, and costs that are known exactly.

A placement's costs need no training, so they are no part of the model: it learns accuracy alone
from what `sharedattn.spaces.features` says of a placement, and the next trial is the candidate of
most expected improvement of the front's hypervolume along the cost axes. The front is that of the
model's means, so that a lucky accuracy does not hide what is better. Placements that still run
count as if they had given what the model expects (kriging believer, Ginsbourger et al. 2010).

Nothing is kept but what was told: scales are fitted to the first results, at numbers of results
that are fixed, in float64 on one thread. So a resumed study goes on as if never interrupted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, cached_property, lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from sharedattn.objectives import Objective
from sharedattn.placement import Placement
from sharedattn.results.accuracy_model.fitting import (
    LEAST_RESULTS,
    fitted_rows,
    kept_rows,
    mean_and_spread,
)
from sharedattn.results.accuracy_model.gaussian_process import GaussianProcess, GroupKernel, Scales
from sharedattn.results.accuracy_model.scores import scores_of, top1_of
from sharedattn.results.front.pareto import non_dominated
from sharedattn.search.searchers.base import PastTrial, Proposal, Searcher
from sharedattn.search.searchers.candidates import (
    COST_FACTOR,
    Candidates,
    CandidateTable,
    candidates_of,
    joined,
)
from sharedattn.search.searchers.improvement import KnownFront
from sharedattn.search.searchers.prior import GROUP, PRIOR_NOTE, PriorFeatures
from sharedattn.spaces.budget import BudgetedSpace
from sharedattn.spaces.features import PlacementFeatures
from sharedattn.spaces.stratified import StratifiedSampler

FloatArray = NDArray[np.float64]

NUM_BANDS = 7
"""Bands of MACs that trials are drawn from, after the published backbone, until the model can."""
BAND_STEP = 3
"""From a trial's band to the next one's, so that few draws, too, are spread over all MACs."""
FIT_FACTOR = 1.2
"""Scales are fitted again when there are this many times as many results."""
NUM_CLIMBED = 3  # best candidates of a large space whose neighbours are considered as well
MAX_RANKED = 512  # best candidates of a large space beside those


class ModelSearcher(Searcher):
    """Bayesian optimisation along known cost axes; takes the arguments of `Searcher`.

    Costs that are measured, such as latency, have models of their own, whose means stand for
    their values.
    """

    name: ClassVar[str] = "model"
    uses_prior: ClassVar[bool] = True

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
        self._prior: Mapping[str, float] = study_attributes.get(PRIOR_NOTE, {})
        # Accuracy is the first objective of a study.
        self._measured = tuple(
            i for i, objective in enumerate(self.objectives) if i and objective.value_of is None
        )
        self._seen: dict[Placement, None] = {}
        self._pending: dict[int, Placement] = {}  # by trial number
        # With the accuracy's score in place of the accuracy.
        self._told: list[tuple[Placement, tuple[float, ...]]] = []
        self._ranked = lru_cache(1)(self._rank)
        self._scales = lru_cache(4)(self._fit)

    @cached_property
    def _candidates(self) -> Candidates:
        known = [objective for objective in self.objectives if objective.value_of is not None]
        results = {Placement.parse(text): top1 for text, top1 in self._prior.items()}
        plain = PlacementFeatures(self.space)
        features = PriorFeatures(plain, results) if results else plain
        return candidates_of(self.space, known, features, self.encoding, self.seed)

    @cached_property
    def _kernel(self) -> GroupKernel:
        return GroupKernel(self._candidates.features.groups, strong={GROUP})

    @cached_property
    def _first_bands(self) -> StratifiedSampler:
        return StratifiedSampler(self.space, NUM_BANDS, shared_edges=True)

    def ask(self, number: int, attempt: int) -> Proposal:
        rng = self.generator(number, attempt)
        if len(self._told) < LEAST_RESULTS:
            band = BAND_STEP * (number + attempt - 1)
            return Proposal(placement=self._first_bands.sample_from(rng, band))
        ranked = self._ranked(number, len(self._told))
        # What was refused is out of a bound that only the study can check. Drawn from ever more
        # of the best, it is not proposed again and again at the trials to come.
        place = rng.randrange(min(4**attempt, len(ranked)))
        return Proposal(placement=ranked[place])

    def accept(self, trial: PastTrial, parameters: Mapping[str, Any] | None = None) -> None:
        self._seen[trial.placement] = None
        self._pending[trial.number] = trial.placement

    def tell(self, trial: PastTrial) -> None:
        self._pending.pop(trial.number, None)
        if trial.values is not None and not trial.failed:
            top1, *costs = trial.values
            score = float(scores_of(np.array(top1)))
            self._told.append((trial.placement, (score, *costs)))

    def _rank(self, number: int, num_told: int) -> tuple[Placement, ...]:
        """The candidates of a trial after some results, the best first."""
        del num_told
        # Sums on several threads have another order, and so other last digits.
        with _threads().limit(limits=1, user_api="blas"):
            return self._rank_on_one_thread(number)

    def _rank_on_one_thread(self, number: int) -> tuple[Placement, ...]:
        every = np.array([values for _, values in self._told])
        rows = kept_rows(every)
        values = every[rows]
        told = self._candidates.of([self._told[i][0] for i in rows])
        waiting = self._candidates.of(list(self._pending.values()))
        models = {i: self._model(i, told, waiting, values[:, i]) for i in (0, *self._measured)}
        both = joined([told, waiting])
        top1 = top1_of(models[0].predict_mean(both.features))
        costs = self._costs(both, models, values)
        is_member = non_dominated(np.column_stack([-top1, costs]))
        members = sorted(np.flatnonzero(is_member), key=lambda i: (*costs[i], i))
        chance = 1.0 / self.space.space.backbone.num_classes
        front = KnownFront(top1[members], costs[members], chance)

        def order_of(table: CandidateTable) -> NDArray[np.intp]:
            mean, sd = models[0].predict(table.features)
            gains = front.improvements(mean, sd, self._costs(table, models, values))
            return np.lexsort((-sd, -gains))

        seen = self._candidates.of(list(self._seen))
        table = self._candidates.unseen(number, seen, [both.placements[i] for i in members])
        order = order_of(table)
        best = [table.placements[i] for i in order[:NUM_CLIMBED]]
        known = np.concatenate([seen.keys, table.keys])
        near = self._candidates.near(best, known)
        if near.placements:
            leading = order[:MAX_RANKED]
            table = joined([table.rows(leading), near])
            order = order_of(table)
        return tuple(table.placements[i] for i in order)

    def _costs(
        self, table: CandidateTable, models: Mapping[int, GaussianProcess], values: FloatArray
    ) -> FloatArray:
        """The costs (n, d) as shares of the largest that count; expected where measured."""
        if not self._measured:
            return table.costs
        columns = [
            models[i].predict_mean(table.features) / (COST_FACTOR * values[:, i].max())
            for i in self._measured
        ]
        return np.column_stack([table.costs, *columns])

    def _model(
        self, objective: int, told: CandidateTable, waiting: CandidateTable, outputs: FloatArray
    ) -> GaussianProcess:
        """The model of an objective, with what runs as it is expected to end."""
        scales = self._scales(objective, _fitted_size(len(self._told)))
        mean, spread = mean_and_spread(outputs)

        def given(features: FloatArray, outputs: FloatArray) -> GaussianProcess:
            return GaussianProcess.of(
                self._kernel, scales, features, outputs, mean=mean, spread=spread
            )

        model = given(told.features, outputs)
        if not waiting.placements:
            return model
        expected = model.predict_mean(waiting.features)
        features = np.concatenate([told.features, waiting.features])
        return given(features, np.concatenate([outputs, expected]))

    def _fit(self, objective: int, num_told: int) -> Scales:
        """The scales of an objective by the first results, evenly thinned if they are many."""
        rows = [self._told[i] for i in fitted_rows(num_told)]
        outputs = np.array([values[objective] for _, values in rows])
        mean, spread = mean_and_spread(outputs)
        table = self._candidates.of([placement for placement, _ in rows])
        return self._kernel.fitted(table.features, (outputs - mean) / spread)


def _fitted_size(num_told: int) -> int:
    """The number of results that the scales are fitted to when there are `num_told`."""
    size = LEAST_RESULTS
    while (following := max(size + 1, int(FIT_FACTOR * size))) <= num_told:
        size = following
    return size


@cache
def _threads() -> ThreadpoolController:
    return ThreadpoolController()
