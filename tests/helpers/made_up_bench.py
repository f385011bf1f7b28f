"""A table of PlacementBench with made-up accuracies, for a space of few members."""

import numpy as np

from sharedattn.costs.model import CostModel
from sharedattn.search.tables import PlacementBench
from sharedattn.spaces.budget import BudgetedSpace
from sharedattn.spaces.space import Space


def made_up_arrays(space: Space, *, every: int = 2, num_seeds: int = 3, epochs: int = 3) -> dict:
    """Arguments of `PlacementBench`: every so-many-th member is measured."""
    members = list(BudgetedSpace(space).enumerate())
    macs = np.array([CostModel(space.backbone).totals(member).macs for member in members])
    final = 0.5 + 0.4 * macs / macs.max()
    truth = final[:, None] * (np.arange(1, epochs + 1) / epochs)
    measured = np.arange(0, len(members), every)
    rng = np.random.default_rng(0)
    noise = 0.01 * rng.standard_normal((len(measured), num_seeds, epochs))
    return {
        "about": {
            "space": space.to_document(),
            "task": "made-up",
            "recipe": "0" * 12,
            "data": "1" * 12,
            "seeds": list(range(num_seeds)),
        },
        "placements": tuple(map(str, members)),
        "measured": measured,
        "top1": np.clip(truth[measured][:, None, :] + noise, 0, 1),
        "seconds": 10.0 + np.arange(len(measured) * num_seeds).reshape(-1, num_seeds),
        "inherited": final / 2,
        "predicted": truth,
        "predicted_s": 10.0 + np.arange(len(members)),
    }


def made_up_bench(space: Space, **sizes: int) -> PlacementBench:
    return PlacementBench(**made_up_arrays(space, **sizes))
