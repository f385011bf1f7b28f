"""Model-based search: a Gaussian process of accuracy, and costs that are known exactly.

A placement's costs need no training, so they are no part of the model: it learns accuracy alone
from what `sharedattn.spaces.features` says of a placement, and the next trial is the candidate of
most expected improvement of the front's hypervolume along the cost axes. The front is that of the
model's means, so that a lucky accuracy does not hide what is better. Placements that still run
count as if they had given what the model expects (kriging believer, Ginsbourger et al. 2010).

With early stopping, accuracy is that at a training's end, of which stopped trials tell as well
(`sharedattn.search.searchers.fidelities`). A stopped trial is on no front.

Nothing is kept but what was told: scales are fitted to the first results, at numbers of results
that are fixed, in float64 on one thread. So a resumed study goes on as if never interrupted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, cached_property, lru_cache, partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from sharedattn.objectives import Objective
from sharedattn.placement import Placement
from sharedattn.results.accuracy_model.fitting import (
    LEAST_RESULTS,
    evenly,
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
from sharedattn.search.searchers.fidelities import Fidelities, kernel_above
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


class _Result(NamedTuple):
    """What a trial has told.

    Attributes:
        placement: what it measured.
        scores: of its accuracies, at the rungs that it reached, and the final one.
        costs: its values beside accuracy.
    """

    placement: Placement
    scores: tuple[float, ...]
    costs: tuple[float, ...]

    @property
    def values(self) -> tuple[float, ...]:
        """The score that all trials have, and the costs."""
        return (self.scores[0], *self.costs)


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
        self._told: list[_Result] = []
        self._ranked = lru_cache(1)(self._rank)
        self._scales = lru_cache(32)(self._fit)

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
    def _kernel_above(self) -> GroupKernel:
        groups = self._candidates.features.groups
        return kernel_above(groups, sum(map(len, groups.values())))

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
            scores = scores_of(np.array(trial.accuracies or (top1,)))
            self._told.append(_Result(trial.placement, tuple(scores.tolist()), tuple(costs)))

    def _rank(self, number: int, num_told: int) -> tuple[Placement, ...]:
        """The candidates of a trial after some results, the best first."""
        del num_told
        # Sums on several threads have another order, and so other last digits.
        with _threads().limit(limits=1, user_api="blas"):
            return self._rank_on_one_thread(number)

    def _rank_on_one_thread(self, number: int) -> tuple[Placement, ...]:
        every = np.array([result.values for result in self._told])
        rows = kept_rows(every)
        values = every[rows]
        told = self._candidates.of([self._told[i].placement for i in rows])
        waiting = self._candidates.of(list(self._pending.values()))
        models = {i: self._model(i, rows, waiting) for i in (0, *self._measured)}
        both = joined([told, waiting])
        top1 = top1_of(models[0].predict_mean(both.features))
        costs = self._costs(both, models, values)
        reached = np.array([len(self._told[i].scores) for i in rows])
        may_be = np.append(reached == reached.max(), np.ones(len(waiting.placements), dtype=bool))
        able = np.flatnonzero(may_be)
        is_member = non_dominated(np.column_stack([-top1, costs])[able])
        members = sorted(able[is_member], key=lambda i: (*costs[i], i))
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
        self, table: CandidateTable, models: Mapping[int, Fidelities], values: FloatArray
    ) -> FloatArray:
        """The costs (n, d) as shares of the largest that count; expected where measured."""
        if not self._measured:
            return table.costs
        columns = [
            models[i].predict_mean(table.features) / (COST_FACTOR * values[:, i].max())
            for i in self._measured
        ]
        return np.column_stack([table.costs, *columns])

    def _model(self, objective: int, rows: Sequence[int], waiting: CandidateTable) -> Fidelities:
        """The model of an objective by some results, with what runs as it is expected to end."""
        num = 1
        while len(self._reached(objective, num, rows)) >= LEAST_RESULTS:
            num += 1
        return self._fidelities(objective, num, rows, len(self._told), waiting)

    def _fidelities(
        self,
        objective: int,
        num: int,
        rows: Sequence[int],
        num_told: int,
        waiting: CandidateTable | None = None,
    ) -> Fidelities:
        """The processes of an objective's first fidelities.

        Args:
            objective: which one; all but accuracy have one fidelity.
            num: number of fidelities.
            rows: the results to learn from.
            num_told: number of results by which the scales are chosen.
            waiting: what counts as if it had given what is expected.
        """
        model = Fidelities(())
        for fidelity in range(num):
            reached = self._reached(objective, fidelity, rows)
            num_reached = len(self._reached(objective, fidelity, range(num_told)))
            scales = self._scales(objective, fidelity, _fitted_size(num_reached))
            inputs = model.above(self._features(reached))
            outputs = self._outputs(objective, fidelity, reached)
            mean, spread = mean_and_spread(outputs)
            given = partial(
                GaussianProcess.of,
                self._kernel_above if fidelity else self._kernel,
                scales,
                mean=mean,
                spread=spread,
            )
            process = given(inputs, outputs)
            if waiting is not None and waiting.placements and fidelity == num - 1:
                more = model.above(waiting.features)
                expected = np.concatenate([outputs, process.predict_mean(more)])
                process = given(np.concatenate([inputs, more]), expected)
            model = Fidelities((*model.processes, process))
        return model

    def _fit(self, objective: int, fidelity: int, size: int) -> Scales:
        """The scales of a fidelity by the first results there, evenly thinned if they are many."""
        reached = self._reached(objective, fidelity, range(len(self._told)))[:size]
        num_told = reached[-1] + 1
        # By what was known with the last of them, so that scales do not depend on when they are
        # asked for.
        below = self._fidelities(objective, fidelity, evenly(num_told).tolist(), num_told)
        rows = [reached[i] for i in fitted_rows(size)]
        outputs = self._outputs(objective, fidelity, rows)
        mean, spread = mean_and_spread(outputs)
        kernel = self._kernel_above if fidelity else self._kernel
        return kernel.fitted(below.above(self._features(rows)), (outputs - mean) / spread)

    def _reached(self, objective: int, fidelity: int, rows: Sequence[int]) -> list[int]:
        """Those of some results that have a fidelity of an objective."""
        if objective:
            return list(rows) if fidelity == 0 else []
        return [i for i in rows if len(self._told[i].scores) > fidelity]

    def _features(self, rows: Sequence[int]) -> FloatArray:
        return self._candidates.of([self._told[i].placement for i in rows]).features

    def _outputs(self, objective: int, fidelity: int, rows: Sequence[int]) -> FloatArray:
        results = [self._told[i] for i in rows]
        return np.array(
            [r.costs[objective - 1] if objective else r.scores[fidelity] for r in results]
        )


def _fitted_size(num_told: int) -> int:
    """The number of results that the scales are fitted to when there are `num_told`."""
    size = LEAST_RESULTS
    while (following := max(size + 1, int(FIT_FACTOR * size))) <= num_told:
        size = following
    return size


@cache
def _threads() -> ThreadpoolController:
    return ThreadpoolController()
