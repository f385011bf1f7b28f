"""Compare a supernet search with trials from scratch in the same wall time.

    python benchmarks/supernet_search.py [--seeds 0,1,2,3,4] [--scratch-epochs 4,12]
        [--front-training fine-tune] [--out DIR] [--json]

For each seed, it runs the whole search with a supernet over the embedded space (its training, the
scores of all placements, the trainings of its front with three seeds each). Then, for each number
of epochs, it runs a search from scratch that is interrupted after the same time: many short
trials, or fewer long ones. That one's front is then confirmed with three seeds, in time that does
not count. All fronts have trained accuracies with three seeds, and their hypervolumes are of one
box. Fine-tuning starts all three runs of a member from the same shared weights.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, NoReturn

warnings.filterwarnings("ignore", message=".*torch.jit.*")

import sharedattn as sa  # noqa: E402 (the warning is timm's, at import)
from sharedattn.search.provenance import provenance  # noqa: E402

Document = dict[str, Any]
SPACE = "digit-pairs-vit"
NEVER = 10_000  # more trials than fit the time


class TimeIsUpError(Exception):
    """Stops a search at once; committed data is kept."""


def by_supernet(seed: int, out: Path, front_training: Any) -> Document:
    started = time.monotonic()
    evaluator = sa.FromSupernet(front_training=front_training)
    study = sa.Study(SPACE, evaluator, seed=seed, out=out)
    study.run(workers=None, progress=False)
    document: Document = study.front().to_document()
    document["measured_s"] = time.monotonic() - started
    return document


def from_scratch(seed: int, out: Path, epochs: int, seconds: float) -> Document:
    """Run a search that is interrupted after some seconds, then confirm its front."""
    study = sa.Study(SPACE, sa.FromScratch(epochs=epochs), seed=seed, out=out, name="scratch")

    def stop(*_: object) -> NoReturn:
        raise TimeIsUpError

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        study.run(trials=NEVER, workers=None, progress=False)
        raise RuntimeError("a search from scratch has ended before its time")
    except TimeIsUpError:
        complete = study.front().to_document()["trials"]["complete"]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    study.run(trials=complete, workers=None, progress=False)
    document: Document = study.front().to_document()
    return document


def compare(seed: int, folder: Path, front_training: str, scratch_epochs: list[int]) -> Document:
    shared = by_supernet(seed, folder / f"supernet-{seed}", front_training)
    scratch = {
        epochs: from_scratch(
            seed, folder / f"scratch-{epochs}-{seed}", epochs, shared["measured_s"]
        )
        for epochs in scratch_epochs
    }
    return {
        "seed": seed,
        "wall_time_s": shared["measured_s"],
        "scored": shared["trials"]["complete"],
        "trained": shared["confirmations"]["complete"],
        "supernet_hypervolume": shared["hypervolume"],
        "inherited_hypervolume": shared["inherited"]["hypervolume"],
        "mean_gap": shared["inherited"]["mean_gap"],
        "supernet_front": shared["front"],
        "scratch": {
            epochs: {
                "trials": document["trials"]["complete"],
                "hypervolume": document["hypervolume"],
                "front": document["front"],
            }
            for epochs, document in scratch.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--scratch-epochs", default="4,12")
    parser.add_argument("--front-training", choices=("fine-tune", "retrain"), default="fine-tune")
    parser.add_argument("--out", type=Path, help="keep the studies there (default: nowhere)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    scratch_epochs = [int(epochs) for epochs in arguments.scratch_epochs.split(",")]
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.out or Path(temporary)
        rows = []
        for seed in map(int, arguments.seeds.split(",")):
            row = compare(seed, folder, arguments.front_training, scratch_epochs)
            rows.append(row)
            print(
                f"seed {seed}: {row['wall_time_s']:.0f} s, {row['scored']:,} scored, "
                f"{row['trained']} trained; hypervolume {row['supernet_hypervolume']:.4f}; "
                + "; ".join(
                    f"{one['trials']} trials of {epochs} epochs {one['hypervolume']:.4f}"
                    for epochs, one in row["scratch"].items()
                ),
                file=sys.stderr,
                flush=True,
            )
    names = ("wall_time_s", "supernet_hypervolume", "inherited_hypervolume", "mean_gap")
    document: Document = {
        "front_training": arguments.front_training,
        "means": {name: statistics.mean(row[name] for row in rows) for name in names},
        "scratch_means": {
            epochs: statistics.mean(row["scratch"][epochs]["hypervolume"] for row in rows)
            for epochs in scratch_epochs
        },
        "rows": rows,
        "provenance": provenance(),
    }
    if arguments.json:
        print(json.dumps(document, indent=2))
        return
    means = document["means"]
    print(
        f"means of {len(rows)} seeds: hypervolume {means['supernet_hypervolume']:.4f} by a "
        f"supernet in {means['wall_time_s']:.0f} s; trained minus inherited accuracy "
        f"{means['mean_gap']:+.4f}"
    )
    for epochs, mean in document["scratch_means"].items():
        print(f"trials of {epochs} epochs from scratch in the same time: {mean:.4f}")


if __name__ == "__main__":
    main()
