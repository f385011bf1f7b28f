"""Inherited accuracies: what placements reach with the weights of one supernet of their space."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence

import torch

from sharedattn.placement import Placement
from sharedattn.recipe import Recipe
from sharedattn.results.artifacts.blobs import BlobStore
from sharedattn.results.artifacts.weights import WeightsStore
from sharedattn.search.data_plan import data_for
from sharedattn.search.evaluators import measure
from sharedattn.search.evaluators.scratch import ScratchEvaluator
from sharedattn.search.evaluators.supernet import Scores, SupernetEvaluator
from sharedattn.search.evaluators.supernet_spec import SupernetSpec
from sharedattn.spaces.budget import BudgetedSpace
from sharedattn.supernet.trainer import SupernetRecipe


def inherited_top1(
    space: BudgetedSpace,
    data: str,
    recipe: Recipe,
    supernet_recipe: SupernetRecipe,
    placements: Sequence[Placement],
    *,
    seed: int,
) -> tuple[list[float], float, float]:
    """Train a supernet on one thread, and score placements on a search's images.

    Args:
        space: the supernet's.
        data: name of the embedded data.
        recipe: of a placement's own training.
        supernet_recipe: of the supernet.
        placements: members of the space.
        seed: of the supernet's training.

    Returns:
        Accuracies in the order of `placements`; seconds of training; seconds of scoring.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        evaluator = SupernetEvaluator(
            scratch=ScratchEvaluator(
                data=data_for(space.space.backbone, data, None),
                recipe=recipe,
                weights=WeightsStore(BlobStore(folder)),
            ),
            supernet=SupernetSpec(
                space=space.space, budget=space.budget, recipe=supernet_recipe, seed=seed
            ),
            fine_tunes=False,
        )
        trained = measure(evaluator, evaluator.supernet_task("supernet"))
        assert trained.weights_sha256 is not None
        started = time.perf_counter()
        scores = measure(evaluator, evaluator.score_task(placements, trained.weights_sha256))
    assert isinstance(scores, Scores)
    found = [metrics.quality for metrics in scores.metrics]
    return found, trained.wall_time_s, time.perf_counter() - started
