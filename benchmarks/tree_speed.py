"""How close evaluation by shared prefixes comes to its bound.

The bound depends on the placements: blocks computed one placement at a time, divided by distinct
prefixes. There are three sets of placements, on networks with untrained weights, which cost the
same:

- 12 vanilla layers, with context broadcasting on or off in each: 4,096 placements;
- the last 100 proposals of NSGA-II over a space of 6 to 12 layers of every kind, with accuracies
  from the tree;
- all members of the embedded space.

The tree evaluates all placements. One at a time, only a number of them (--singles), spread evenly
over the set, is evaluated, half before the tree and half after it, and the time is scaled by
blocks: all 4,096 would take minutes. Their metrics must equal the tree's. The time is
the process's on one thread, since machines are shared; wall time is shown beside it.

    python benchmarks/tree_speed.py [--images 128] [--singles 200] [--json]
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
import warnings
import weakref
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

warnings.filterwarnings("ignore", message=".*torch.jit.*")

import torch  # noqa: E402 (the warning is timm's, at import)

from sharedattn.backbones import build_network  # noqa: E402
from sharedattn.costs.model import CostModel  # noqa: E402
from sharedattn.data import DataConfig, open_data  # noqa: E402
from sharedattn.data.source import spread  # noqa: E402
from sharedattn.networks.network import Network  # noqa: E402
from sharedattn.networks.state import StartedLayer  # noqa: E402
from sharedattn.objectives import parse_objectives  # noqa: E402
from sharedattn.placement import BackboneSpec, Envelope, LayerChoice, Placement  # noqa: E402
from sharedattn.search.provenance import provenance  # noqa: E402
from sharedattn.search.searchers.base import PastTrial, Proposal  # noqa: E402
from sharedattn.search.searchers.optuna_search import NSGA2Searcher  # noqa: E402
from sharedattn.spaces.budget import BudgetedSpace  # noqa: E402
from sharedattn.spaces.space import Space  # noqa: E402
from sharedattn.supernet import tree_evaluation  # noqa: E402
from sharedattn.supernet.tree_evaluation import Carried, TreeEvaluation, compute  # noqa: E402
from sharedattn.training.tasks.interface import Metrics  # noqa: E402
from sharedattn.training.trainer import evaluate  # noqa: E402

TARGET = 0.8
DATA = open_data(DataConfig(name="digit-pairs"))
BACKBONE = (
    "vit(class_token=false,depth=12,embed_dim=64,global_pool=avg,in_chans=1,mlp_ratio=2.0,"
    "num_classes=2,num_heads=4,patch_size=4)@16"
)
DEEP_SPACE = {
    "name": "twelve-layers",
    "backbone": BACKBONE,
    "order": "any",
    "stages": [
        {
            "depth": "6..12",
            "counts": dict.fromkeys("EVLN", "0..12"),
            "slots": [8, 16, 32],
            "dia": [0, 1, 2],
            "cb": ["none", 1, 2, 3, 6, "all"],
        }
    ],
}
NUM_PROPOSALS = 600
POPULATION = 50
"""NSGA-II's population in a long search; a generation is evaluated at once."""


class Clock:
    """Process time and wall time of a block of code."""

    def __init__(self) -> None:
        self.cpu_s = self.wall_s = 0.0

    def __enter__(self) -> None:
        self._started = time.process_time(), time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.cpu_s += time.process_time() - self._started[0]
        self.wall_s += time.perf_counter() - self._started[1]


def with_and_without_cb(depth: int) -> list[Placement]:
    """Vanilla layers, each with CB on or off."""
    return [
        Placement((tuple(LayerChoice("V", cb=cb) for cb in layers),))
        for layers in itertools.product((False, True), repeat=depth)
    ]


def population(space: Space, num_images: int) -> tuple[Network, list[Placement]]:
    """A network over a space, and NSGA-II's last 100 distinct proposals there."""
    counted, model = BudgetedSpace(space), CostModel(space.backbone)
    searcher = NSGA2Searcher(
        counted,
        parse_objectives(["top1", "macs"]),
        seed=0,
        num_trials=POPULATION**2,
        study_attributes={},
    )
    network = build_network(space.backbone, space.envelope())
    proposed: list[Placement] = []
    while len(proposed) < NUM_PROPOSALS:
        generation: list[tuple[int, Proposal]] = []
        for number in range(len(proposed), len(proposed) + POPULATION):
            proposal = searcher.ask(number, 0)
            generation.append((number, proposal))
            searcher.accept(_trial(number, proposal))
            proposed.append(proposal.placement)
        found = tree_of(network, [p.placement for _, p in generation], num_images).run()
        for number, proposal in generation:
            macs = model.cost(proposal.placement).macs
            values = found[proposal.placement].quality, float(macs)
            searcher.tell(_trial(number, proposal, values))
    distinct = list(dict.fromkeys(reversed(proposed)))
    return network, distinct[:100]


def _trial(
    number: int, proposal: Proposal, values: tuple[float, float] | None = None
) -> PastTrial:
    return PastTrial(
        number=number,
        placement=proposal.placement,
        attributes=proposal.attributes,
        values=values,
    )


def tree_of(network: Network, placements: Sequence[Placement], num_images: int) -> TreeEvaluation:
    """The evaluation of all placements, in one batch."""
    return TreeEvaluation(
        network, placements, DATA, "validation", batch_size=num_images, num_images=num_images
    )


def peak_bytes(network: Network, placements: Sequence[Placement], num_images: int) -> int:
    """Peak bytes of the steps' results in memory, counting each storage once."""
    alive: list[weakref.ref[torch.Tensor]] = []
    peak = 0

    def tensors(given: Carried) -> Iterator[torch.Tensor | None]:
        state = given.state if isinstance(given, StartedLayer) else given[1]
        if isinstance(given, StartedLayer):
            yield from (given.tokens, given.branch, given.passthrough_tokens)
        else:
            yield given[0]
        yield from state.tensors()

    def watched(*arguments: Any) -> Carried:
        nonlocal peak
        given = compute(*arguments)
        alive.extend(weakref.ref(tensor) for tensor in tensors(given) if tensor is not None)
        living = [tensor for ref in alive if (tensor := ref()) is not None]
        alive[:] = map(weakref.ref, living)
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in living}
        peak = max(peak, sum(storages.values()))
        return given

    with mock.patch.object(tree_evaluation, "compute", watched):
        tree_of(network, placements, num_images).run()
    return peak


def measure(
    name: str, network: Network, placements: Sequence[Placement], num_images: int, singles: int
) -> dict[str, Any]:
    """Compute one set's bound, and the tree's share of it."""
    chosen = [placements[i] for i in spread(len(placements), singles)]
    alone: dict[Placement, Metrics] = {}
    one_at_a_time, by_tree = Clock(), Clock()

    def run_alone(part: list[Placement]) -> None:
        for placement in part:
            alone[placement] = evaluate(
                network,
                DATA,
                "validation",
                batch_size=num_images,
                num_images=num_images,
                placement=placement,
            )

    run_alone(chosen[:1])  # warms up
    with one_at_a_time:
        run_alone(chosen[::2])
    with by_tree:
        evaluation = tree_of(network, placements, num_images)
        found = evaluation.run()
    with one_at_a_time:
        run_alone(chosen[1::2])
    tree = evaluation.tree
    scale = tree.evaluations / sum(sum(placement.depths) for placement in chosen)
    speed_up = scale * one_at_a_time.cpu_s / by_tree.cpu_s
    return {
        "set": name,
        "placements": len(tree.placements),
        "blocks": tree.evaluations,
        "prefixes": tree.prefixes,
        "parts": tree.parts,
        "bound": round(tree.bound, 3),
        "speed_up": round(speed_up, 3),
        "speed_up_wall": round(scale * one_at_a_time.wall_s / by_tree.wall_s, 3),
        "share": round(speed_up / tree.bound, 3),
        "target": TARGET,
        "tree_cpu_s": round(by_tree.cpu_s, 2),
        "one_at_a_time_cpu_s": round(scale * one_at_a_time.cpu_s, 2),
        "compared": len(chosen),
        "identical": all(found[placement] == alone[placement] for placement in chosen),
        "peak_bytes": peak_bytes(network, placements, num_images),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=128, help="of the one batch")
    parser.add_argument("--singles", type=int, default=200, help="evaluated one at a time")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with_cb = with_and_without_cb(12)
    twelve = build_network(BackboneSpec.parse(BACKBONE), Envelope.of(*with_cb))
    searched = population(Space.from_document(DEEP_SPACE), arguments.images)
    embedded = Space.load("digit-pairs-vit")
    members = list(BudgetedSpace(embedded).enumerate())
    small = build_network(embedded.backbone, embedded.envelope())
    figures = [
        measure(name, network, placements, arguments.images, arguments.singles)
        for name, network, placements in (
            ("12 layers, CB on or off in each", twelve, with_cb),
            ("NSGA-II, the last 100 proposed", *searched),
            ("digit-pairs-vit, all members", small, members),
        )
    ]
    if arguments.json:
        print(json.dumps({"provenance": provenance(), "sets": figures}, indent=2))
        return
    for row in figures:
        print(
            f"{row['set']}: {row['placements']} placements, {row['blocks']} blocks, "
            f"{row['prefixes']} prefixes, {row['parts']} parts\n"
            f"  bound {row['bound']}, speed-up {row['speed_up']} ({row['speed_up_wall']} by the "
            f"wall), share {row['share']}, target {row['target']}\n"
            f"  tree {row['tree_cpu_s']} s, one at a time {row['one_at_a_time_cpu_s']} s; "
            f"{row['compared']} compared, {'identical' if row['identical'] else 'DIFFERENT'}; "
            f"kept at most {row['peak_bytes']:,} bytes"
        )


if __name__ == "__main__":
    main()
