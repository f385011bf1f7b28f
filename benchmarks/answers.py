"""Does a search from a trained model beat what a person would do by hand in the same CPU time?

    python benchmarks/answers.py FOLDER [--data pairs,shapes] [--blocks 4,3]
        [--seeds 0,1,2,3,4] [--print-only] [--json]

For each data set and seed a network of six vanilla layers is trained (`sharedattn train`). Within
the MACs of some of its blocks, and not far below them, a search starts from it (`sharedattn search
--evaluator supernet --weights`), one training of each member of its front, and the member that is
most accurate on validation data is exported. Against it stand two controls of plain PyTorch, each
with as much CPU time as the search took:

- cut by hand: the first and evenly spread blocks, each with two learning rates, as many epochs as
  their quarter of the time allows; the best on validation data;
- the network that the search chose, from the same weights, by the better of two learning rates.

All are compared once on test data, on which no choice depends. FOLDER keeps data sets, models and
studies; a finished row is a line of `answers.jsonl` there, so that it goes on where it was.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore", message=".*torch.jit.*")

import torch  # noqa: E402 (the warning is timm's, at import)
from scipy.stats import t as student  # noqa: E402
from small_folders import DEPTH, JUDGES, backbone_of, config_of, images_of  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from sharedattn.backbones import resolve  # noqa: E402
from sharedattn.costs.model import CostModel  # noqa: E402
from sharedattn.data import DataSource, open_data  # noqa: E402
from sharedattn.networks.network import Network  # noqa: E402
from sharedattn.placement import NetworkSpec, Placement, ResolvedSpec  # noqa: E402
from sharedattn.recipe import RECIPES, Recipe  # noqa: E402
from sharedattn.results.export.folder import read_export  # noqa: E402
from sharedattn.spaces.budget import Budget, BudgetedSpace  # noqa: E402
from sharedattn.spaces.naive import NaiveKind, naive_networks  # noqa: E402
from sharedattn.spaces.space import Space  # noqa: E402
from sharedattn.training.trainer import evaluate  # noqa: E402
from sharedattn.weights.trained_start import TrainedStart  # noqa: E402

Document = dict[str, Any]

START_EPOCHS = 48  # of the trained model
BLOCKS = (4, 3)  # of the trained model, whose MACs are the most of an answer
LEAST_SHARE = 0.8  # of these MACs, the least of an answer: one answer is wanted, not a front
SEEDS = (0, 1, 2, 3, 4)
LEARNING_RATES = (1e-3, 3e-4)  # of AdamW, for the controls
BATCH_SIZE = 50
# The augmentation of the tool's own recipe for small folders; images are loaded in this process,
# whose CPU time is what counts.
PLAIN = Recipe(
    epochs=1,
    batch_size=BATCH_SIZE,
    crop_scale_min=RECIPES["small"].crop_scale_min,
    loader_workers=0,
)

SPACE = """
name: {name}
backbone: {backbone}
order: any
stages:
  - depth: {depth}
    counts: {{V: 0..{depth}, L: 0..{depth}, N: 0..{depth}, X: 0..{most_absent}}}
constraints:
  - {{rule: mixing_layer, per: network}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A network that was trained, and how good it is.

    Attributes:
        placement: its text.
        macs: of one image.
        top1: on validation data, by which it was chosen.
        test_top1: on test data.
        cpu_s: CPU seconds of everything that led to it.
        how: what was chosen on the way.
    """

    placement: str
    macs: int
    top1: float
    test_top1: float
    cpu_s: float
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One data set, seed and bound on MACs.

    Attributes:
        data: kind of the data set.
        seed: of the model's training, the search, and the controls.
        blocks: of the model, whose MACs are the bound.
        start: the trained model.
        ours: what the search exported.
        by_hand: the best cut.
        same: the network of the search, trained by a plain loop.
    """

    data: str
    seed: int
    blocks: int
    start: Answer
    ours: Answer
    by_hand: Answer
    same: Answer


class Bench:
    """Makes the rows of one folder.

    Args:
        folder: keeps everything.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def row(self, data: str, seed: int, blocks: int) -> Row:
        """Train, search, and do the same by hand."""
        model, start = self._start(data, seed)
        first = Placement.parse(f"V{blocks}")
        most_macs = CostModel(backbone_of(data)).totals(first).macs
        ours = self._search(data, seed, model, most_macs)
        hand = ByHand(self._source(data), model, seed)
        return Row(
            data=data,
            seed=seed,
            blocks=blocks,
            start=start,
            ours=ours,
            by_hand=hand.cut(self._space(data), most_macs, ours.cpu_s),
            same=hand.same(ours.placement, ours.cpu_s),
        )

    def _images(self, data: str) -> Path:
        return images_of(data, self._folder / "data")

    def _source(self, data: str) -> DataSource:
        return open_data(config_of(data, self._folder / "data"))

    def _space(self, data: str) -> Path:
        path = self._folder / f"{data}.yaml"
        path.write_text(
            SPACE.format(
                name=f"answers-{data}",
                backbone=backbone_of(data),
                depth=DEPTH,
                most_absent=DEPTH - 1,
            )
        )
        return path

    def _start(self, data: str, seed: int) -> tuple[Path, Answer]:
        """The trained model: its folder, and what it is worth."""
        folder = self._folder / "models" / f"{data}-{seed}"
        cpu_s = 0.0
        if not (folder / "config.yaml").is_file():
            network = f"{backbone_of(data)}: V{DEPTH}"
            cpu_s = timed(
                *("train", network, "--data", self._images(data), "--epochs", START_EPOCHS),
                *("--seed", seed, "--to", folder),
            )
        return folder, _exported(folder, cpu_s, "the trained model")

    def _search(self, data: str, seed: int, model: Path, most_macs: int) -> Answer:
        """Search, and export the most accurate member of the front."""
        out = self._folder / "studies" / f"{data}-{seed}-{most_macs}"
        shutil.rmtree(out, ignore_errors=True)
        cpu_s = timed(
            *("search", self._space(data), "--data", self._images(data), "--weights", model),
            *("--evaluator", "supernet", "--max-macs", most_macs),
            *("--min-macs", round(LEAST_SHARE * most_macs)),
            *("--confirm-seeds", 1, "--baselines", "none", "--seed", seed, "--out", out),
        )
        timed("export", "--pick", "best", "--to", out / "best", "--out", out)
        return _exported(out / "best", cpu_s, "the front's best")


def timed(*arguments: object, to: Path = Path(os.devnull)) -> float:
    """Run a command of the tool with a thread a trial, and return its CPU seconds.

    Args:
        arguments: of the command.
        to: file of what it prints.
    """
    before = _children_s()
    with to.open("w") as printed:
        subprocess.run(
            [sys.executable, "-m", "sharedattn", *map(str, arguments)],
            stdout=printed,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=True,
        )
    return _children_s() - before


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _exported(folder: Path, cpu_s: float, how: str) -> Answer:
    record = read_export(folder)
    assert record.test_top1 is not None
    return Answer(
        placement=str(record.spec.placement),
        macs=record.macs,
        top1=record.evaluation.top1,
        test_top1=record.test_top1,
        cpu_s=round(cpu_s, 1),
        how=how,
    )


class ByHand:
    """Plain PyTorch fine-tuning of networks cut from a trained model.

    Args:
        source: the data.
        model: exported folder of the trained model.
        seed: of the trainings.
    """

    def __init__(self, source: DataSource, model: Path, seed: int) -> None:
        self._source = source
        self._model = model
        self._backbone = read_export(model).spec.backbone
        self._seed = seed

    def cut(self, space: Path, most_macs: int, cpu_s: float) -> Answer:
        """The best cut that a person would try within a number of MACs, in some CPU seconds."""
        counted = BudgetedSpace(Space.load(str(space)), Budget(max_macs=most_macs))
        networks = naive_networks(counted, [most_macs], has_weights=True)
        kinds = (NaiveKind.FIRST, NaiveKind.EVEN)
        tries = [
            (network.spec, lr, network.kind.value)
            for network in networks
            if network.kind in kinds
            for lr in LEARNING_RATES
        ]
        return self._best(tries, cpu_s)

    def same(self, placement: str, cpu_s: float) -> Answer:
        """A placement, trained in some CPU seconds."""
        spec = resolve(NetworkSpec(self._backbone, Placement.parse(placement)))
        return self._best([(spec, lr, "the same network") for lr in LEARNING_RATES], cpu_s)

    def _best(self, tries: Sequence[tuple[ResolvedSpec, float, str]], cpu_s: float) -> Answer:
        """The best on validation data of several trainings that share some CPU seconds."""
        best: tuple[float, Network, ResolvedSpec, str] | None = None
        started = time.process_time()
        for spec, lr, how in tries:
            network, epochs = self._trained(spec, lr, cpu_s / len(tries))
            top1 = self._top1(network, "validation")
            if best is None or top1 > best[0]:
                best = top1, network, spec, f"{how}, {epochs} epochs at {lr:g}"
        assert best is not None
        top1, network, spec, how = best
        used_s = time.process_time() - started
        return Answer(
            placement=str(spec.placement),
            macs=CostModel(spec.backbone).totals(spec.placement).macs,
            top1=top1,
            test_top1=self._top1(network, "test"),
            cpu_s=round(used_s, 1),
            how=how,
        )

    def _trained(self, spec: ResolvedSpec, lr: float, cpu_s: float) -> tuple[Network, int]:
        """A network, fine-tuned for as many epochs as some CPU seconds allow, and their number."""
        started = time.process_time()
        start = TrainedStart.of(str(self._model), spec.backbone, self._source)
        network = start.network(spec, PLAIN, self._source, seed=self._seed)
        epoch_s = self._epoch_s(network)
        left_s = cpu_s - (time.process_time() - started)
        epochs = max(1, math.floor(left_s / epoch_s))
        self._fine_tune(network, lr, epochs)
        return network, epochs

    def _epoch_s(self, network: Network) -> float:
        """CPU seconds of an epoch, by one that is not kept."""
        started = time.process_time()
        self._fine_tune(copy.deepcopy(network), 0.0, 1)
        return time.process_time() - started

    def _fine_tune(self, network: Network, lr: float, epochs: int) -> None:
        """AdamW and a cosine schedule, nothing else."""
        optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=0.05)
        steps = epochs * (self._source.num_images("train") // BATCH_SIZE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        network.train()
        for epoch in range(epochs):
            batches = self._source.train_batches(
                PLAIN, seed=self._seed, epoch=epoch, device=torch.device("cpu")
            )
            for images, labels in batches:
                optimizer.zero_grad()
                F.cross_entropy(network(images), labels).backward()
                optimizer.step()
                schedule.step()

    def _top1(self, network: Network, split: Any) -> float:
        return evaluate(network, self._source, split, batch_size=250).quality


def read_rows(path: Path) -> list[Row]:
    """The finished rows of a file."""
    rows = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        document = json.loads(line)
        answers = {name: Answer(**document[name]) for name in ("start", "ours", "by_hand", "same")}
        rows.append(Row(**document | answers))
    return rows


def differences(rows: Iterable[Row], control: str) -> list[float]:
    """Test points of the search over a control, seed by seed."""
    return [100 * (row.ours.test_top1 - getattr(row, control).test_top1) for row in rows]


def interval(values: Sequence[float]) -> float:
    """Half the width of the 95 % interval of a mean, by Student's t; NaN of one value."""
    if len(values) < 2:
        return math.nan
    error = statistics.stdev(values) / math.sqrt(len(values))
    return float(student.ppf(0.975, len(values) - 1)) * error


def print_table(rows: Sequence[Row]) -> None:
    print(
        "| data | MACs | seeds | trained model | search | by hand | search over by hand "
        "| over the same network by hand | CPU s |"
    )
    print("|" + "---|" * 9)
    for data, blocks in sorted({(row.data, row.blocks) for row in rows}):
        own = [row for row in rows if (row.data, row.blocks) == (data, blocks)]
        means = [
            statistics.mean(getattr(row, name).test_top1 for row in own)
            for name in ("start", "ours", "by_hand")
        ]
        compared = [differences(own, control) for control in ("by_hand", "same")]
        print(
            f"| {data} | of {blocks} blocks | {len(own)} | "
            + " | ".join(f"{mean:.3f}" for mean in means)
            + " | "
            + " | ".join(f"{statistics.mean(d):+.1f} ± {interval(d):.1f}" for d in compared)
            + f" | {statistics.mean(row.ours.cpu_s for row in own):.0f} |"
        )


def print_rows(rows: Sequence[Row]) -> None:
    """Each row, the extremes of its differences, and the CPU time of the controls."""
    print(
        "| data, MACs | seed | trained model | search | by hand | the same network by hand "
        "| CPU s |"
    )
    print("|" + "---|" * 7)
    for row in sorted(rows, key=lambda row: (row.data, -row.blocks, row.seed)):
        print(
            f"| `{row.data}`, of {row.blocks} layers | {row.seed} | {row.start.test_top1:.3f} | "
            f"`{row.ours.placement}` {row.ours.test_top1:.3f} | "
            f"`{row.by_hand.placement}` {row.by_hand.test_top1:.3f} | "
            f"{row.same.test_top1:.3f} | {row.ours.cpu_s:.0f} |"
        )
    controls = {"by hand": "by_hand", "the same network by hand": "same"}
    for title, control in controls.items():
        points = differences(rows, control)
        shares = [100 * getattr(row, control).cpu_s / row.ours.cpu_s for row in rows]
        print(
            f"over {title}: {min(points):+.1f} to {max(points):+.1f} points; "
            f"its CPU time {min(shares):.0f} to {max(shares):.0f} % of the search's"
        )
    minutes = [(row.ours.cpu_s + row.by_hand.cpu_s + row.same.cpu_s) / 60 for row in rows]
    print(
        f"a row, without its trained model: {min(minutes):.0f} to {max(minutes):.0f} CPU minutes"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", default=",".join(JUDGES))
    parser.add_argument("--blocks", default=",".join(map(str, BLOCKS)))
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--print-only", action="store_true", help="train nothing")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    path = asked.folder / "answers.jsonl"
    rows = read_rows(path)
    done = {(row.data, row.seed, row.blocks) for row in rows}
    wanted = [
        (data, int(seed), int(blocks))
        for seed in asked.seeds.split(",")
        for data in asked.data.split(",")
        for blocks in asked.blocks.split(",")
    ]
    bench = Bench(asked.folder)
    for data, seed, blocks in [] if asked.print_only else wanted:
        if (data, seed, blocks) in done:
            continue
        asked.folder.mkdir(parents=True, exist_ok=True)
        rows.append(bench.row(data, seed, blocks))
        with path.open("a") as file:
            file.write(json.dumps(asdict(rows[-1])) + "\n")
        print(f"{data} seed {seed} within {blocks} blocks finished", file=sys.stderr, flush=True)
    if asked.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        print_rows(rows)
        print()
        print_table(rows)


if __name__ == "__main__":
    main()
