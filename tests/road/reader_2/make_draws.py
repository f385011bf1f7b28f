"""Everything that is drawn or enumerated, by seed: python make_draws.py > draws.json.

`lab` and `fakes` are in `tests/search`, which is to be on the path.

Of long lists there are the number, the first entries, and the head of the sha256 of all. The tests
ask the same functions.
"""

import hashlib
import json
import random
import tempfile
from pathlib import Path

import optuna
from fakes import Fake, Inline, Staged
from lab import Lab

from sharedattn.backbones import resolve
from sharedattn.costs.model import CostModel
from sharedattn.data import DataConfig, open_data
from sharedattn.objectives import parse_objectives
from sharedattn.placement import NetworkSpec, Placement
from sharedattn.recipe import Recipe
from sharedattn.search.pruners.mo_asha import MoAsha
from sharedattn.search.searchers import SEARCHERS
from sharedattn.search.searchers.base import PastTrial
from sharedattn.search.searchers.optuna_search import FIRST_NUM_TRIALS
from sharedattn.spaces.budget import Budget, BudgetedSpace
from sharedattn.spaces.encoding import Encoding
from sharedattn.spaces.space import Space, presets
from sharedattn.spaces.stratified import StratifiedSampler
from sharedattn.spaces.variation import Variation
from sharedattn.supernet.placement_tree import PlacementTree
from sharedattn.supernet.trainer import (
    SupernetRecipe,
    SupernetTrainer,
    supernet_network,
)

HERE = Path(__file__).parent
FILES = sorted(path.stem for path in (HERE / "spaces").iterdir())
LATER = {  # presets after these draws
    "deit-tiny-cut",
    "digit-count-resnet",
    "digit-count-vit",
    "digit-pairs-cut",
    "digits-unet",
    "resnet164-cifar",
    "resnet50",
    "resnet50-ean",
}
SPACES = [*(name for name in presets() if name not in LATER), *FILES]
SEARCHERS_OF_THEN = ("nsga2", "random", "tpe")
SEARCHED = ("loop", "family-pvt", "listed")
NUM_PROPOSALS = 40
NOTES_OF_THEN = {FIRST_NUM_TRIALS: NUM_PROPOSALS}  # of a study that a searcher had begun
FIRST = 3  # entries of a long list that can be read
MOST = 48  # characters of them


def digest(entries) -> str:
    """A long list in short: `20: first; second; third ... sha256`."""
    entries = list(entries)
    said = [e if isinstance(e, str) else json.dumps(e, sort_keys=True) for e in entries]
    head = hashlib.sha256("\n".join(said).encode()).hexdigest()[:16]
    return f"{len(said)}: {'; '.join(said[:FIRST])[:MOST]} ... {head}"


def texts(placements) -> str:
    """Placements in short."""
    return digest(map(str, placements))


def load(name: str) -> Space:
    """A preset, or a space of this folder."""
    return Space.load(name if name in presets() else HERE / "spaces" / f"{name}.yaml")


def bounded(space: Space, whole: BudgetedSpace) -> BudgetedSpace:
    """The space under a budget about half-way of either range."""
    (macs, most_macs), (params, most_params) = whole.macs_range, whole.params_range
    bounds = Budget(
        max_macs=macs + (most_macs - macs) * 6 // 10,
        max_params=params + (most_params - params) * 8 // 10,
    )
    return BudgetedSpace(space, bounds)


def bounded_in_macs(space: Space, whole: BudgetedSpace) -> BudgetedSpace:
    """The space under a bound on MACs alone.

    Of a bound on params, searchers took no notice as they parted the range of MACs for their first
    proposals. They do so now, which changes these draws, and no others.
    """
    macs, most_macs = whole.macs_range
    return BudgetedSpace(space, Budget(max_macs=macs + (most_macs - macs) * 6 // 10))


def of_space(name: str) -> dict[str, object]:
    """All draws of a space, without a budget and with one."""
    space = load(name)
    whole = BudgetedSpace(space)
    found = {
        "document": digest([space.to_document()]),
        "alphabets": digest(
            [str(symbol) for symbol in alphabet] for alphabet in space.automaton.alphabets
        ),
        "envelope": digest(_envelope(space)),
        "in a budget": of_counted(bounded(space, whole)),
        "in bins of MACs": of_bins(bounded_in_macs(space, whole)),
    }
    if name in ("listed", "loop", *presets()):
        found["without budget"] = {**of_counted(whole), **of_bins(whole)}
    return found


def _envelope(space: Space):
    for stage in space.envelope().stages:
        for position in stage:
            forms = [[k, dict(o).get("form") or ""] for k, o in position.branches if k in "EL"]
            yield [
                sorted({kind for kind, _ in position.branches}),
                max((size for _, _, size in position.sizes), default=0),
                sorted(cell.cell for cell in position.cells),
                position.cb,
                sorted(forms),
            ]


def of_counted(counted: BudgetedSpace) -> dict[str, object]:
    """Size, order, draws, encoding, repair and variation of a space in its budget."""
    members = counted.in_budget
    some = counted.sample_many(random.Random(3), min(10, members))
    return {
        "size": str(counted.size),
        "in_budget": str(members),
        "macs_range": str(counted.macs_range),
        "params_range": str(counted.params_range),
        "cheapest": str(counted.cheapest),
        "dearest": str(counted.most_expensive),
        "by number": texts(counted[number] for number in range(0, members, -(-members // 40))),
        "last": str(counted[members - 1]),
        "sample": _drawn(counted.sample, 7, 20),
        "sample_many": texts(some),
        "tree": _tree(some),
        **_of_encoding(Encoding(counted), some),
    }


def of_bins(counted: BudgetedSpace) -> dict[str, object]:
    """Bins of MACs, and what is drawn from them."""
    strata = StratifiedSampler(counted, 8)
    members = counted.in_budget
    return {
        "bins": digest(map(list, strata.filled_bins)),
        "bin sizes": digest(str(counted.num_in_macs_bin(*bin_)) for bin_ in strata.filled_bins),
        "sample from bins": _drawn(strata.sample, 7, 20),
        "sample_many from bins": texts(strata.sample_many(random.Random(5), min(20, members))),
    }


def _drawn(sample, seed: int, number: int) -> str:
    rng = random.Random(seed)
    return texts(sample(rng) for _ in range(number))


def _tree(placements) -> list[object]:
    tree = PlacementTree(placements)
    steps = digest(
        [step.act.value, step.stage, step.index, str(step.choice), len(step.placements)]
        for step in tree.depth_first()
    )
    return [tree.evaluations, tree.prefixes, tree.parts, tree.num_steps, steps]


def _of_encoding(encoding: Encoding, some) -> dict[str, object]:
    variation = Variation(encoding)
    encoded = [encoding.encode(placement) for placement in some]
    rng = random.Random(11)
    proposed = [
        encoding.decode({name: rng.choice(c) for name, c in encoding.dimensions.items()})
        for _ in range(4)
    ]
    return {
        "dimensions": digest([name, list(c)] for name, c in encoding.dimensions.items()),
        "encoded": digest(list(values.items()) for values in encoded),
        "decoded": [encoding.repair(encoding.decode(values)) for values in encoded] == some,
        "proposed": digest(
            [[str(layer) for layer in stage] for stage in proposal] for proposal in proposed
        ),
        "repaired": texts(map(encoding.repair, proposed)),
        "neighbours": texts(variation.neighbours(some[0])),
        "mutated": _varied(lambda i, rng: variation.mutate(some[i % len(some)], rng), 20),
        "crossed": _varied(
            lambda i, rng: variation.crossover(some[i], some[i - 1], rng), min(4, len(some))
        ),
    }


def _varied(vary, number: int) -> str:
    rng = random.Random(13)
    return texts(vary(i, rng) for i in range(number))


def proposals(searcher: str, name: str) -> dict[str, object]:
    """What a searcher proposes where every trial ends before the next, some of them failed."""
    counted = bounded_in_macs(load(name), BudgetedSpace(load(name)))
    costs = CostModel(counted.space.backbone)
    told = SEARCHERS[searcher](
        counted,
        parse_objectives(("top1", "macs")),
        seed=5,
        num_trials=NUM_PROPOSALS,
        study_attributes=NOTES_OF_THEN,
    )
    placements, proposed = [], []
    for number in range(NUM_PROPOSALS):
        proposal = told.ask(number, 0)
        if number % 5 == 4:
            proposal = told.ask(number, 1)
        trial = {
            "number": number,
            "placement": proposal.placement,
            "attributes": dict(proposal.attributes),
        }
        told.accept(PastTrial(**trial))
        if number % 7 == 6:
            told.tell(PastTrial(**trial, failed=True))
        else:
            macs = costs.totals(proposal.placement).macs
            values = (_accuracy(str(proposal.placement)), float(macs))
            told.tell(PastTrial(**trial, values=values))
        placements.append(str(proposal.placement))
        proposed.append(dict(proposal.proposed))
    return {"placements": placements, "proposed": digest(proposed)}


def _accuracy(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32


def of_loop(searcher: str, stopped: bool, num_slots: int) -> list[str]:
    """The trials of a whole study: role, number, replicate, state, placement and accuracy."""
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder), BudgetedSpace(load("loop")))
        stopping = MoAsha(rungs=(1, 2)) if stopped else None
        evaluator = Staged() if stopped else Fake()
        executor = Inline(evaluator, num_slots=num_slots, rng=random.Random(1))
        summary = lab.run(
            searcher=searcher,
            num_trials=NUM_PROPOSALS,
            confirm_seeds=2,
            executor=executor,
            pruner=stopping,
            notes=NOTES_OF_THEN,
        )
        return [
            f"{row.role.value} {row.number}.{row.replicate} {row.state.value} {row.placement} "
            f"{row.top1}"
            for row in summary.rows
        ]


LOOPS = [
    (searcher, stopped, num_slots)
    for searcher in SEARCHERS_OF_THEN
    for stopped in (False, True)
    for num_slots in (1, 3)
]


def updates() -> list[list[str]]:
    """The placements that a supernet's updates run."""
    counted = BudgetedSpace(load("shared"))
    recipe = SupernetRecipe(training=Recipe(epochs=1, batch_size=16, init="torch"), strata=4)
    envelope = counted.space.envelope()
    largest = Placement.all_vanilla([len(positions) for positions in envelope.stages])
    network = supernet_network(counted.space.backbone, envelope, recipe, seed=3)
    trainer = SupernetTrainer(
        network,
        open_data(DataConfig(name="digit-pairs")),
        recipe,
        largest=largest,
        smallest=counted.cheapest,
        sampler=StratifiedSampler(counted, recipe.strata),
        seed=3,
    )
    return [[str(placement) for placement in trainer.placements_of(i)] for i in range(10)]


def keys_of_draws(name: str) -> list[str]:
    """Spec keys of some draws: what a study would store of them."""
    counted = BudgetedSpace(load(name))
    drawn = counted.sample_many(random.Random(17), min(5, counted.in_budget))
    return [resolve(NetworkSpec(counted.space.backbone, placement)).key for placement in drawn]


if __name__ == "__main__":
    found = {
        "optuna": optuna.__version__,
        "spaces": {name: of_space(name) for name in SPACES},
        "keys": {name: keys_of_draws(name) for name in SPACES},
        "proposals": {
            f"{searcher}, {name}": proposals(searcher, name)
            for searcher in SEARCHERS_OF_THEN
            for name in SEARCHED
        },
        "loops": {
            f"{searcher}, {'mo-asha' if stopped else 'none stopped'}, {slots} at once": of_loop(
                searcher, stopped, slots
            )
            for searcher, stopped, slots in LOOPS
        },
        "updates": {"none": updates()},
    }
    print(json.dumps(found, indent=0))
