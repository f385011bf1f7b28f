"""What zero-cost proxies are worth on placements trained from scratch with several seeds.

Reads the tables `short-warm-up-<seed>.json` of a folder, each a JSON object from placement text to
a list of accuracies, one an epoch; takes the last epoch, means over seeds of the placements that
all tables have; prints the tau of params, MACs and every proxy with its interval, and which are
on.

    python benchmarks/proxy_ranks.py FOLDER [--space digit-pairs-vit] [--images 64] [--json]
"""

from __future__ import annotations

import argparse
import json
import math
import warnings
from dataclasses import replace
from pathlib import Path

warnings.filterwarnings("ignore", message=".*torch.jit.*")

from rich.console import Console  # noqa: E402 (the warning is timm's, at import)

from sharedattn.errors import InputError  # noqa: E402
from sharedattn.search.cli.tables import proxies_table  # noqa: E402
from sharedattn.search.config import DEFAULT_DATA, DEFAULT_SPACE  # noqa: E402
from sharedattn.search.jobs.proxies import (  # noqa: E402
    TrainedPlacements,
    proxies_document,
    score_proxies,
    trained_of_table,
)
from sharedattn.search.provenance import provenance  # noqa: E402
from sharedattn.spaces.space import Space  # noqa: E402

PATTERN = "short-warm-up-*.json"


def read_means(folder: Path, space: str) -> tuple[TrainedPlacements, int]:
    """Placements of all tables with their mean accuracies, and the number of tables.

    Raises:
        InputError: no table in the folder, or too few placements that all of them have.
    """
    paths = sorted(folder.glob(PATTERN))
    if not paths:
        raise InputError(f"`the folder has tables {PATTERN}` must hold, but {folder} has none")
    backbone = Space.load(space).backbone
    tables = [trained_of_table(path, backbone, DEFAULT_DATA, None) for path in paths]
    top1s = [dict(zip(table.specs, table.top1s, strict=True)) for table in tables]
    common = tuple(spec for spec in tables[0].specs if all(spec in table for table in top1s))
    means = tuple(math.fsum(table[spec] for table in top1s) / len(top1s) for spec in common)
    return replace(tables[0], source=str(folder), specs=common, top1s=means), len(paths)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--space", default=DEFAULT_SPACE)
    parser.add_argument("--images", type=int, default=64, help="of the batch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON document")
    arguments = parser.parse_args()
    trained, num_seeds = read_means(arguments.folder, arguments.space)
    options = {"num_images": arguments.images, "seed": arguments.seed}
    document = proxies_document(trained, score_proxies(trained, **options), **options)
    if arguments.json:
        document |= {"training_seeds": num_seeds, "provenance": provenance()}
        print(json.dumps(document, indent=2))
        return
    console = Console(markup=False, highlight=False)
    console.print(f"{len(trained.specs)} placements, means of {num_seeds} seeds")
    console.print(proxies_table(document))
    console.print(f"on: {', '.join(document['recommended']) or 'none'}")


if __name__ == "__main__":
    main()
