"""Kendall tau of a supernet's scores with accuracies from scratch.

    python benchmarks/supernet_ranks.py FOLDER [--recipe NAME|FILE] [--epochs N] [--json]

FOLDER has the tables of `trained_table.py`: the same placements, trained from scratch with five
seeds. This trains the supernet of the embedded space, and scores these placements on a search's
images. It prints four figures, each the tau with the mean accuracy from scratch of three seeds,
averaged over the ten choices of three of five: the noise ceiling (the mean of the other two
seeds), inherited accuracy, params and MACs. A mean of two seeds is noisier than one of three, so
the ceiling is a little low. Intervals are from resampled placements.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore", message=".*torch.jit.*")

import numpy as np  # noqa: E402 (the warning is timm's, at import)
from inherited import inherited_top1  # noqa: E402
from rank_correlation import (  # noqa: E402
    Estimate,
    Floats,
    estimate_tau,
    estimate_tau_difference,
    kendall_tau,
)
from trained_table import (  # noqa: E402
    RECIPE,
    SEEDS,
    embedded_space,
    read_tables,
)

from sharedattn.costs.model import CostModel  # noqa: E402
from sharedattn.data import DataConfig, open_data  # noqa: E402
from sharedattn.placement import Placement  # noqa: E402
from sharedattn.search.evaluation.recipes import supernet_recipe_for  # noqa: E402
from sharedattn.search.provenance import provenance  # noqa: E402
from sharedattn.supernet.trainer import SupernetRecipe  # noqa: E402

TARGET = 0.8  # share of the noise ceiling


def inherited(
    recipe: SupernetRecipe, seed: int, placements: list[Placement]
) -> tuple[list[float], float, float]:
    """Accuracies with shared weights, and seconds of training and of scoring."""
    space = embedded_space()
    return inherited_top1(space, "digit-pairs", RECIPE, recipe, placements, seed=seed)


def ranks_document(
    folder: Path, score: Callable[[list[Placement]], tuple[list[float], float, float]]
) -> dict[str, Any]:
    """The four figures with intervals, and the values of each placement."""
    tables = read_tables(folder)
    texts = list(tables[SEEDS[0]])
    tops = np.array([[tables[seed][text][-1] for seed in SEEDS] for text in texts])
    placements = [Placement.parse(text) for text in texts]
    found, train_s, score_s = score(placements)
    costs = CostModel(embedded_space().space.backbone)
    totals = [costs.totals(placement) for placement in placements]
    figures: dict[str, Floats] = {
        "inherited": found,
        "params": [float(total.params) for total in totals],
        "macs": [float(total.macs) for total in totals],
    }
    splits = [
        (list(three), [i for i in range(len(SEEDS)) if i not in three])
        for three in itertools.combinations(range(len(SEEDS)), 3)
    ]
    ceiling = statistics.mean(
        kendall_tau(tops[:, two].mean(1), tops[:, three].mean(1)) for three, two in splits
    )
    taus = {
        name: statistics.mean(kendall_tau(figure, tops[:, three].mean(1)) for three, _ in splits)
        for name, figure in figures.items()
    }
    rng = np.random.default_rng(0)
    of_all = tops.mean(1)
    return {
        "placements": len(texts),
        "train_s": train_s,
        "score_s": score_s,
        "noise_ceiling": ceiling,
        "tau": taus,
        "share_of_ceiling": taus["inherited"] / ceiling,
        "interval": {
            name: estimate_tau(figure, of_all, rng).to_json() for name, figure in figures.items()
        },
        "inherited_above": {
            name: estimate_tau_difference(found, figures[name], of_all, rng).to_json()
            for name in ("params", "macs")
        },
        "by_placement": {
            text: {"inherited": one, "scratch": mean}
            for text, one, mean in zip(texts, found, of_all.tolist(), strict=True)
        },
        "provenance": provenance(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recipe", help="a supernet's recipe (default: the embedded one)")
    parser.add_argument("--epochs", type=int, help="in place of the recipe's")
    parser.add_argument("--seed", type=int, default=0, help="of the supernet's training")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    recipe = supernet_recipe_for(
        arguments.recipe, open_data(DataConfig(name="digit-pairs")), arguments.epochs
    )
    document = ranks_document(
        arguments.folder, lambda placements: inherited(recipe, arguments.seed, placements)
    )
    document["recipe"] = recipe.to_json()
    if arguments.json:
        print(json.dumps(document, indent=2))
        return
    print(
        f"{document['placements']} placements; supernet of {recipe.training.epochs} epochs "
        f"trained in {document['train_s']:.0f} s, scored in {document['score_s']:.0f} s"
    )
    print(f"noise ceiling {document['noise_ceiling']:.3f}")
    for name, tau in document["tau"].items():
        interval = Estimate(**document["interval"][name])
        print(f"{name:9} {tau:+.3f}  of all seeds {interval}")
    print(
        f"inherited is {document['share_of_ceiling']:.2f} of the ceiling "
        f"(target at least {TARGET})"
    )
    for name, above in document["inherited_above"].items():
        print(f"above {name}: {Estimate(**above)} (target: the interval is above 0)")


if __name__ == "__main__":
    main()
