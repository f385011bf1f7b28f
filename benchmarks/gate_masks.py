"""Which blocks of a residual network should a shared unit gate? A search, published codes, chance.

    python benchmarks/gate_masks.py FOLDER [--rows FILE] [--workers 2] [--costs-only] [--json]

EAN (arXiv:2011.14058) chose one bit for each of ResNet-50's 16 blocks: gated by its stage's unit,
or not. First this prints what its two published codes cost, counted exactly, and how many of the
65,536 codes have no more MACs. Parameters say nothing here: one unit serves a stage, whatever the
number of its blocks.

ImageNet is not at hand, so accuracies are those of a narrow network with the same 3, 4, 6 and 3
bottlenecks on the embedded digits. Inside the MACs of the published code of DIA units, searches of
24 short trials choose a code, each searcher's best. Then these, the published code, no gate, a
gate on every block, and codes drawn at random with as many gates as the published one are trained
for longer, on seeds that no search used. FOLDER keeps the searches, FILE the trainings: run again,
it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from trained_rows import TABLES, Job, Rows, Trainings, train_all

import sharedattn as sa
from sharedattn.costs.model import CostModel
from sharedattn.data import DataConfig
from sharedattn.placement import BackboneSpec, Placement
from sharedattn.recipe import RECIPES
from sharedattn.spaces.budget import Budget, BudgetedSpace
from sharedattn.spaces.space import Space

PRESET = "resnet50-ean"
DEPTHS = (3, 4, 6, 3)
TASK = "digit-count"
NARROW = (
    "resnet_cifar(block=bottleneck,depths=3-4-6-3,in_chans=1,inner_widths=6-8-12-16,"
    "num_classes=4,stem_width=12,widths=12-16-24-32)@16"
)
DIA_CODE, SGE_CODE = "1100011110010011", "1001011010011011"  # published
SEARCHERS = ("model", "stratified")
NUM_TRIALS, TRIAL_EPOCHS = 24, 5
EPOCHS = 16
SEEDS = (1, 2, 3)  # searches use seed 0
NUM_RANDOM = 6

Document = dict[str, Any]


def placement_of(code: str, unit: str) -> Placement:
    """The placement of a code of 16 bits, the first block's bit first.

    Args:
        code: bits.
        unit: text of a stage's shared unit, such as dia1.
    """
    stages, bits = [], iter(code)
    for depth in DEPTHS:
        mask = "".join(next(bits) for _ in range(depth))
        stages.append(f"V{depth}/{unit}[{mask}]" if "1" in mask else f"V{depth}")
    return Placement.parse(" | ".join(stages))


def random_codes(number: int, num_gates: int) -> list[str]:
    """Different codes with as many gates each, always the same ones."""
    drawn: dict[str, None] = {}
    stream = random.Random(0)
    while len(drawn) < number:
        gated = stream.sample(range(len(DIA_CODE)), num_gates)
        drawn["".join("01"[i in gated] for i in range(len(DIA_CODE)))] = None
    return list(drawn)


def published_costs() -> list[Document]:
    """What the published codes cost on ResNet-50, and the share of codes that cost no more."""
    found = []
    for unit, gated, code in (("dia1", "V/d0", DIA_CODE), ("sge1", "V/p0", SGE_CODE)):
        space = _space_of(gated)
        costs = CostModel(space.backbone)
        named = {"none": "0" * len(code), "published": code, "all": "1" * len(code)}
        totals = {name: costs.totals(placement_of(bits, unit)) for name, bits in named.items()}
        within = BudgetedSpace(space, Budget(max_macs=totals["published"].macs))
        found.append(
            {
                "unit": unit,
                "code": code,
                "num_gated": code.count("1"),
                **{n: {"params": total.params, "macs": total.macs} for n, total in totals.items()},
                "share_with_no_more_macs": within.in_budget / within.size,
            }
        )
    return found


def _space_of(gated: str) -> Space:
    """The preset's masks of another unit."""
    document = {
        "name": "codes",
        "backbone": str(Space.load(PRESET).backbone),
        "stages": [{"layers": [["V", gated]] * depth} for depth in DEPTHS],
    }
    return Space.from_document(document)


class Masks(Trainings):
    """The long trainings.

    Args:
        codes: codes by what they are called.
    """

    def __init__(self, codes: dict[str, str]) -> None:
        super().__init__(BackboneSpec.parse(NARROW), DataConfig(name=TASK), RECIPES[TASK])
        self.codes = codes

    def jobs(self) -> list[Job]:
        """One seed of every code, then the next."""
        texts = dict.fromkeys(str(placement_of(code, "dia1")) for code in self.codes.values())
        return [Job(placement=t, seed=s, epochs=EPOCHS) for s in SEEDS for t in texts]

    def validated_epochs(self, job: Job) -> Collection[int]:
        """None but the last."""
        del job
        return ()


def search(folder: Path, searcher: str) -> str:
    """The code that a search chooses inside the published one's MACs.

    Args:
        folder: keeps the study, which is not run twice.
        searcher: its name.
    """
    backbone = BackboneSpec.parse(NARROW)
    bound = CostModel(backbone).totals(placement_of(DIA_CODE, "dia1")).macs
    space = sa.Space(replace(Space.load(PRESET), backbone=backbone, name="narrow-codes"))
    study = sa.Study(
        space.within(max_macs=bound),
        sa.FromScratch(TASK, epochs=TRIAL_EPOCHS),
        searcher=searcher,
        confirm_seeds=1,
        storage=folder / "studies.db",
        name=searcher,
    )
    best = study.run(NUM_TRIALS, progress=False).pick("best")
    gates = [layer.gate for stage in best.placement.stages for layer in stage]
    return "".join("01"[gate is not None] for gate in gates)


def figures(rows: Rows, masks: Masks) -> list[Document]:
    """Mean top-1 of each code over the seeds that are done."""
    found = []
    for called, code in masks.codes.items():
        placement = str(placement_of(code, "dia1"))
        done = [rows.get(placement, seed, EPOCHS) for seed in SEEDS]
        top1 = [row.top1 for row in done if row is not None]
        if top1:
            found.append(
                {
                    "code": code,
                    "called": called,
                    "num_gated": code.count("1"),
                    "params": masks.params(placement),
                    "macs": masks.macs(placement),
                    "seeds": len(top1),
                    "top1": statistics.mean(top1),
                    "se": _standard_error(top1),
                }
            )
    return found


def _standard_error(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None


def lines(costs: Iterable[Document], found: Iterable[Document]) -> Iterable[str]:
    """The two tables of the docs."""
    yield "| unit | code | gated | params | MACs | without gates | all gated | no more MACs |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in costs:
        none, published, gated = (row[name] for name in ("none", "published", "all"))
        yield (
            f"| {row['unit']} | {row['code']} | {row['num_gated']} | {published['params']:,} | "
            f"{published['macs']:,} | {none['macs']:,} | {gated['macs']:,} | "
            f"{row['share_with_no_more_macs']:.1%} |"
        )
    yield ""
    yield "| | code | gated | MACs | top1 | seeds |"
    yield "|---|---|---|---|---|---|"
    for row in found:
        noise = "" if row["se"] is None else f" ± {row['se']:.3f}"
        yield (
            f"| {row['called']} | {row['code']} | {row['num_gated']} | {row['macs']:,} | "
            f"{row['top1']:.3f}{noise} | {row['seeds']} |"
        )


def chance(found: Iterable[Document]) -> str:
    """The mean of the random codes, each the mean of its seeds."""
    at_random = [row["top1"] for row in found if row["called"].startswith("random")]
    return f"{len(at_random)} random codes, mean top1: {statistics.mean(at_random):.3f}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=Path, default=TABLES / "gate-masks.jsonl")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--costs-only", action="store_true", help="train nothing")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    costs, found = published_costs(), []
    if not asked.costs_only:
        asked.folder.mkdir(parents=True, exist_ok=True)
        codes = {"published": DIA_CODE, "none": "0" * 16, "all": "1" * 16}
        codes |= {searcher: search(asked.folder, searcher) for searcher in SEARCHERS}
        at_random = random_codes(NUM_RANDOM, DIA_CODE.count("1"))
        codes |= {f"random {i}": code for i, code in enumerate(at_random, start=1)}
        masks = Masks(codes)
        rows = Rows(asked.rows, masks)
        train_all(rows, partial(Masks, codes), asked.workers)
        found = figures(rows, masks)
    if asked.json:
        print(json.dumps({"costs": costs, "networks": found}, indent=2))
    else:
        print("\n".join(lines(costs, found)))
        if found:
            print(chance(found))


if __name__ == "__main__":
    main()
