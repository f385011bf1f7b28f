"""Pack the trainings of `placement_bench.py` into the shipped table, and write its data card.

    python -m benchmarks.placement_pack [--task NAME] [--seeds 0,1,2] [--out FILE] [--card FILE]

All trainings of the placements and seeds have to be there. A surrogate is chosen by
cross-validation and predicts all members of the space. The card is a page of the docs: list it in
mkdocs.yml. Packed again from the same rows at the same commit, the file has the same bytes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))  # run as a module, by the root's path alone

import numpy as np
import numpy.typing as npt
from placement_bench import (
    NUM_LONG,
    NUM_PLACEMENTS,
    SEEDS,
    BenchTrainings,
    Inherited,
    document_of,
    front_of,
)
from placement_surrogate import (
    NUM_FOLDS,
    cross_validated,
    features_of,
    predicted_curves,
    predicted_seconds,
)
from rank_correlation import Estimate, kendall_tau
from trained_rows import TABLES, Job, Rows, whole_numbers

from sharedattn.errors import InputError
from sharedattn.objectives import OBJECTIVES
from sharedattn.results.artifacts.atomic import atomic_write
from sharedattn.results.front.pareto import hypervolume
from sharedattn.search.data_plan import DEFAULT_DATA
from sharedattn.search.provenance import provenance
from sharedattn.search.run import REFERENCE_FACTOR
from sharedattn.search.tables import SHIPPED, Part, PlacementBench

CARD = Path(__file__).parents[1] / "docs" / "measurements" / "placement_bench.md"
MAX_BYTES = 10_000_000
NUM_CEILING_DRAWS = 100

Floats = npt.NDArray[np.float64]


def pack(trained: BenchTrainings, rows: Rows, inherited: Inherited) -> PlacementBench:
    """The table of finished trainings.

    Raises:
        InputError: a training is missing, or was not validated after every epoch.
    """
    top1, seconds = curves_of(trained, rows)
    members = list(trained.space.enumerate())
    placements = tuple(map(str, members))
    numbers = {text: number for number, text in enumerate(placements)}
    measured = np.array([numbers[text] for text in trained.placements])
    features = features_of(members, trained.backbone)
    means = top1.mean(axis=1)
    errors = cross_validated(features[measured], means)
    recipe, _, data = trained.keys(trained.jobs()[0])
    figures = document_of(trained, rows, inherited)
    del figures["front"], figures["cpu_hours_left"]
    return PlacementBench(
        about={
            **figures,
            "space": trained.space.space.to_document(),
            "recipe": recipe,
            "data": data,
            "seeds": list(trained.seeds),
            "ceiling_tau": ceiling_tau(top1[:, :, -1]),
            "surrogate": [error.to_json() for error in errors],
            **{name: provenance()[name] for name in ("commit", "versions")},
        },
        placements=placements,
        measured=measured,
        top1=top1,
        seconds=seconds,
        inherited=np.array([inherited.top1.get(text, np.nan) for text in placements]),
        predicted=predicted_curves(features, measured.tolist(), means, errors[0].model),
        predicted_s=predicted_seconds(features, measured.tolist(), seconds.mean(axis=1)),
    )


def curves_of(trained: BenchTrainings, rows: Rows) -> tuple[Floats, Floats]:
    """Accuracies (P, S, E) and seconds (P, S) of the measured placements; errors as in `pack`."""
    found, missing = [], []
    for placement in trained.placements:
        for seed in trained.seeds:
            row = rows.get(placement, seed, trained.epochs)
            if row is None:
                missing.append(Job(placement=placement, seed=seed, epochs=trained.epochs))
                continue
            if [epoch for epoch, _ in row.curve] != list(range(1, trained.epochs + 1)):
                raise InputError(
                    f"the training of {placement} on seed {seed} was not validated after every "
                    f"epoch; leave its line out, and train it by placement_bench.py"
                )
            found.append(row)
    if missing:
        raise InputError(
            f"{len(missing)} of {len(found) + len(missing)} trainings are missing, the first of "
            f"{missing[0].placement} on seed {missing[0].seed}; run placement_bench.py again, or "
            f"give fewer --placements or --seeds"
        )
    shape = len(trained.placements), len(trained.seeds)
    top1 = np.array([[value for _, value in row.curve] for row in found])
    return top1.reshape(*shape, -1), np.array([row.cpu_s for row in found]).reshape(shape)


def ceiling_tau(top1: Floats) -> float | None:
    """About the most that Kendall's tau with means over seeds can be, for the noise they have.

    The tau of the means with the same means and noise once more: of as many trainings as a mean
    has, drawn from how trainings differ from their placement's mean.

    Args:
        top1: (P, S).

    Returns:
        A mean over draws, or None of one seed.
    """
    num, num_seeds = top1.shape
    if num_seeds < 2:
        return None
    means = top1.mean(axis=1)
    residuals = (top1 - means[:, None]).ravel() * np.sqrt(num_seeds / (num_seeds - 1))
    rng = np.random.default_rng(0)
    return statistics.mean(
        kendall_tau(means, means + rng.choice(residuals, (num, num_seeds)).mean(axis=1))
        for _ in range(NUM_CEILING_DRAWS)
    )


def true_front(table: PlacementBench, trained: BenchTrainings, part: Part) -> dict[str, Any]:
    """The front by accuracies without noise, and its hypervolume as a search counts it."""
    truth = table.truth(part)
    macs = [trained.macs(placement) for placement in truth]
    values = np.column_stack([list(truth.values()), macs])
    reference = {
        "top1": 1.0 / trained.backbone.num_classes,
        "macs": REFERENCE_FACTOR * trained.space.macs_range[1],
    }
    return {
        "front": front_of(list(truth), macs, np.array(list(truth.values()))),
        "hypervolume": hypervolume(values, (OBJECTIVES["top1"], OBJECTIVES["macs"]), reference),
    }


def card(table: PlacementBench, trained: BenchTrainings, num_bytes: int) -> str:
    """The data card, a page of the docs."""
    about = table.about
    num, num_seeds = len(table.measured), len(table.seeds)
    lines = [
        "# PlacementBench",
        "",
        f"Learning curves of {num} of the {len(table.placements):,} placements of "
        f"`{about['space']['name']}` on `{about['task']}`, each trained from scratch with "
        f"{num_seeds} seeds for {table.epochs} epochs: validation accuracy after every epoch, and "
        f"CPU seconds. Written by `python -m benchmarks.placement_pack`.",
        "",
        "`sharedattn search --evaluator table` searches the measured placements; replicate r of a "
        "study with seed s is the training number s + r, modulo the number of seeds. "
        "`--table-part surrogate` searches all members by predictions with noise. "
        "`sharedattn.search.tables.PlacementBench.load(SHIPPED)` reads the file in Python: "
        f"a NumPy archive without pickles ({num_bytes / 1e6:.1f} MB), rather than Parquet, which "
        "nothing that the package depends on can read.",
        "",
        *_figures(table, trained),
        "",
        *_surrogate(table),
        *_front(table, trained, "measured", "Front of the means"),
        *_front(table, trained, "surrogate", "Front predicted"),
    ]
    return "\n".join(lines) + "\n"


def _figures(table: PlacementBench, trained: BenchTrainings) -> list[str]:
    about = table.about
    return [
        "| what | |",
        "|---|---|",
        "| choice of placements | stratified one by one over MACs, depth, number of layers of "
        "each kind, kind of the first and last layer, DIA groups, CB and slots "
        "(`benchmarks/placement_strata.py`) |",
        f"| training | recipe `{about['task']}`, key {about['recipe']}; data {about['data']} |",
        f"| CPU seconds of a training | mean {table.seconds.mean():.1f}, from "
        f"{table.seconds.min():.1f} to {table.seconds.max():.1f} |",
        f"| noise: standard deviation over seeds, pooled | {_points(about['noise_points'])} |",
        f"| Kendall's tau of one seed with another | {_number(about['seeds_tau'])} |",
        f"| noise ceiling: about the most tau with the means can be | "
        f"{_number(about['ceiling_tau'])} |",
        f"| tau with trainings of {about['long_epochs']} epochs, on "
        f"{len(trained.long)} placements | {_estimate(about['long_tau'])} |",
        f"| tau of inherited accuracy of a supernet | {_estimate(about['inherited_tau'])} |",
        f"| made by | {_versions(about)} |",
        "| licence | Apache-2.0, as the code; the images are scikit-learn's digits, UCI's Optical "
        "Recognition of Handwritten Digits, CC BY 4.0 |",
    ]


def _surrogate(table: PlacementBench) -> list[str]:
    errors, noise = table.about["surrogate"], table.about["noise_points"]
    of_mean = None if noise is None else noise / len(table.seeds) ** 0.5
    num_folds = min(NUM_FOLDS, len(table.measured))
    return [
        "## Surrogate",
        "",
        f"Chosen by {num_folds}-fold cross-validation over the measured placements, at the last "
        f"epoch; the noise of a mean over seeds is {_points(of_mean)}.",
        "",
        "| model | error (RMSE) | Kendall's tau with the means |",
        "|---|---|---|",
        *(f"| {e['model']} | {_points(e['rmse_points'])} | {e['tau']:.3f} |" for e in errors),
        "",
        f"Shipped: {errors[0]['model']}. A simulated training adds how one of the measured "
        f"trainings differed from the mean of its placement, among those nearest in accuracy.",
    ]


def _front(table: PlacementBench, trained: BenchTrainings, part: Part, title: str) -> list[str]:
    found = true_front(table, trained, part)
    return [
        "",
        f"## {title}",
        "",
        f"Hypervolume {found['hypervolume']:.4f} (top-1 and MACs).",
        "",
        "| placement | MACs | top-1 |",
        "|---|---|---|",
        *(f"| {m['placement']} | {m['macs']:,} | {m['top1']:.4f} |" for m in found["front"]),
    ]


def _points(value: float | None) -> str:
    return "not known of one seed" if value is None else f"{value:.2f} points"


def _number(value: float | None) -> str:
    return "not known of one seed" if value is None else f"{value:.3f}"


def _estimate(value: dict[str, float] | None) -> str:
    return "not measured" if value is None else str(Estimate(**value))


def _versions(document: dict[str, Any]) -> str:
    versions = document["versions"]
    return f"commit {document['commit']}, torch {versions['torch']}, timm {versions['timm']}"


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default=DEFAULT_DATA, help="default: a search's data")
    parser.add_argument("--rows", type=Path, help="default: where placement_bench.py writes")
    parser.add_argument("--epochs", type=int, help="default: those of the recipe")
    parser.add_argument("--placements", type=int, default=NUM_PLACEMENTS)
    parser.add_argument("--long", type=int, default=NUM_LONG)
    parser.add_argument("--seeds", type=whole_numbers, default=SEEDS)
    parser.add_argument("--out", type=Path, default=SHIPPED)
    parser.add_argument("--card", type=Path, default=CARD)
    given = parser.parse_args(None if arguments is None else list(arguments))
    path = given.rows or TABLES / f"placement-bench-{given.task}.jsonl"
    try:
        trained = BenchTrainings(
            given.task,
            epochs=given.epochs,
            num_placements=given.placements,
            seeds=given.seeds,
            num_long=given.long,
        )
        rows = Rows(path, trained)
        inherited = Inherited(path.with_name(f"{path.stem}-inherited.json"), trained)
        table = pack(trained, rows, inherited)
    except InputError as error:
        parser.error(str(error))
    table.save(given.out)
    num_bytes = given.out.stat().st_size
    if num_bytes > MAX_BYTES:
        given.out.unlink()
        parser.error(f"the table has {num_bytes:,} bytes, more than {MAX_BYTES:,}")
    atomic_write(given.card, card(table, trained, num_bytes).encode())
    print(f"{given.out}: {num_bytes:,} bytes; {given.card}: list it in mkdocs.yml")


if __name__ == "__main__":
    main()
