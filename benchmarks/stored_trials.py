"""Test 50,000 stored trials: front within 1 s of process time, report within 10 s and 10 MB.

The trials are written directly to the tables, with random accuracies of real placements of twelve
layers. `front` is the command without its imports: open the database, read the trials, compute the
front and its hypervolume, build the document.

    python benchmarks/stored_trials.py [--trials 50000] [--json]
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from sharedattn.hashing import document_key
from sharedattn.placement import LayerChoice, Placement
from sharedattn.results.database.engine import open_engine
from sharedattn.results.database.models import Base, utc_now
from sharedattn.results.database.store import Store
from sharedattn.results.front.summary import StudySummary, front_document
from sharedattn.results.records import (
    EvaluationIdentity,
    Fidelity,
    StudyRecord,
    TrialRole,
    TrialState,
)
from sharedattn.results.report import write_report

MAX_FRONT_S = 1.0
MAX_REPORT_S = 10.0
MAX_REPORT_BYTES = 10_000_000
DEPTH = 12
MACS = {"V": 80e6, "L": 62e6, "E": 41e6, "N": 20e6}
GAIN = {"V": 1.0, "L": 0.75, "E": 0.5, "N": 0.0}


def random_placement(rng: random.Random) -> Placement:
    """A legal placement of twelve layers, with every mechanism now and then."""
    cells, share = [None, 0, 0, 1], rng.random()
    layers: list[LayerChoice] = []
    for _ in range(DEPTH):
        has_scores = any(layer.kind == "V" for layer in layers)
        kinds = [kind for kind in MACS if has_scores or kind != "L"]
        kind = rng.choices(kinds, [1 + 3 * share * (k == "V") for k in kinds])[0]
        layers.append(
            LayerChoice.of(
                kind,
                slots=rng.choice([16, 32, 64]) if kind == "E" else None,
                dia=rng.choice(cells),
                cb=rng.random() < 0.3,
            )
        )
    return Placement((tuple(layers),))


def fill(url: str, num_trials: int, seed: int = 0) -> None:
    """Create a database with a finished study of `num_trials` search trials."""
    rng = random.Random(seed)
    placements = {Placement.all_vanilla([DEPTH])}
    while len(placements) < num_trials:
        placements.add(random_placement(rng))
    with Store.open(url, create=True) as store:
        study = store.get_or_create_study(
            StudyRecord(
                name="stored-trials",
                fingerprint_document={"made up": True},
                space={"name": "twelve layers"},
                data={"name": "made up"},
                recipe={"epochs": 12},
                objectives=("top1", "macs"),
                searcher="random",
                seed=seed,
                reference_point={"top1": 0.1, "macs": 1.1e9},
                provenance={"command": "python benchmarks/stored_trials.py"},
                num_trials=num_trials,
                confirm_seeds=1,
            )
        )
    now, fidelity = utc_now(), Fidelity(epochs=12, image_size=224)
    rows: dict[str, list[dict[str, Any]]] = {"specs": [], "evaluations": [], "trials": []}
    for i, placement in enumerate(sorted(placements, key=str)):
        text, spec_key = str(placement), document_key(placement.to_json())
        gain = sum(GAIN[layer.kind] for layer in placement.layers) / DEPTH
        top1 = 0.55 + 0.27 * gain**0.6 + rng.gauss(0, 0.01)
        macs = int(sum(MACS[x.kind] + 1e5 * (x.option("slots") or 0) for x in placement.layers))
        is_failed = i % 97 == 5
        identity = EvaluationIdentity(
            spec_key=spec_key,
            recipe_key="r" * 64,
            data_fingerprint="d" * 64,
            fidelity=fidelity,
            seed=seed,
        )
        parameters = {f"layer{j}": layer.kind for j, layer in enumerate(placement.layers)}
        rows["specs"].append(
            {
                "id": i + 1,
                "key": spec_key,
                "params": 2_000_000 + macs // 300,
                "macs": macs,
                "attention_bytes": 10**6,
                "placement": text,
                "text": f"made_up: {text}",
                "document": {"placement": placement.to_json()},
            }
        )
        rows["evaluations"].append(
            {
                "id": i + 1,
                "key": identity.key,
                "spec_id": i + 1,
                "recipe_key": identity.recipe_key,
                "data_fingerprint": identity.data_fingerprint,
                "fidelity_key": fidelity.key,
                "seed": seed,
                "split": "validation",
                "top1": round(top1 * 4000) / 4000,
                "loss": 1.2 - top1,
                "num_images": 4000,
                "wall_time_s": 14.0,
                "device": "cpu",
                "threads": 1,
                "versions": {"torch": "2.14.1", "timm": "1.0.31"},
                "learning_curve": [{"epoch": e, "top1": 0.5, "loss": 0.7} for e in range(12)],
            }
        )
        rows["trials"].append(
            {
                "study_id": study.id,
                "role": TrialRole.SEARCH,
                "number": i,
                "replicate": 0,
                "state": TrialState.FAILED if is_failed else TrialState.COMPLETE,
                "spec_id": i + 1,
                "evaluation_id": None if is_failed else i + 1,
                "finished_at": now + timedelta(seconds=i),
                "error": "RuntimeError: the loss is nan" if is_failed else None,
                "proposed": parameters,
                "repaired": parameters,
                "sampler_attributes": {},
            }
        )
    engine = open_engine(url, create=False, read_only=False)
    with engine.execution_options(write=True).begin() as connection:
        for table, values in rows.items():
            connection.execute(insert(Base.metadata.tables[table]), values)
    engine.dispose()


def process_seconds(run: Callable[[], None]) -> float:
    """Process time of one call."""
    started = time.process_time()
    run()
    return time.process_time() - started


def measure(num_trials: int) -> dict[str, Any]:
    """Fill a database with `num_trials` trials, and time its readers."""
    with tempfile.TemporaryDirectory() as folder:
        url, path = f"sqlite:///{folder}/study.db", Path(folder) / "report.html"
        fill(url, num_trials)

        def front() -> None:
            with Store.open(url, read_only=True) as store:
                front_document(StudySummary.read(store, store.study("stored-trials")))

        def report() -> None:
            with Store.open(url, read_only=True) as store:
                summary = StudySummary.read(store, store.study("stored-trials"))
                write_report(path, summary, convention="made-up figures")

        return {
            "trials": num_trials,
            "front_s": process_seconds(front),
            "report_s": process_seconds(report),
            "report_bytes": path.stat().st_size,
        }


def main() -> int:
    """Print the figures; exit with 1 if one misses its limit."""
    parser = argparse.ArgumentParser(description="Time reading and reporting a large study.")
    parser.add_argument("--trials", type=int, default=50_000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = measure(arguments.trials)
    if arguments.json:
        print(json.dumps(figures, indent=2))
    else:
        print(
            f"{figures['trials']} stored trials: front {figures['front_s']:.2f} s, report "
            f"{figures['report_s']:.2f} s and {figures['report_bytes'] / 1e6:.1f} MB"
        )
    is_met = (
        figures["front_s"] <= MAX_FRONT_S
        and figures["report_s"] <= MAX_REPORT_S
        and figures["report_bytes"] <= MAX_REPORT_BYTES
    )
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
