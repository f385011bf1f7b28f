"""Every searcher behind one contract: legal, repeatable, blind to nothing it was told."""

import itertools

import pytest

from sharedattn.costs.model import CostModel
from sharedattn.errors import InputError
from sharedattn.objectives import parse_objectives
from sharedattn.search.searchers import SEARCHERS, PastTrial
from sharedattn.search.searchers.optuna_search import (
    FIRST_NUM_TRIALS,
    JUMP_PROBABILITY,
    RULES,
)
from sharedattn.search.searchers.stratified_search import NUM_BANDS
from sharedattn.spaces.automaton import pad
from sharedattn.spaces.budget import Budget, BudgetedSpace
from sharedattn.spaces.nearest import NearestMembers
from sharedattn.spaces.repair import difference
from sharedattn.spaces.space import Space
from sharedattn.spaces.variation import Variation

OBJECTIVES = parse_objectives(("top1", "macs"))
MODEL_BASED = ("nsga2", "tpe")


@pytest.fixture(scope="module")
def space():
    return BudgetedSpace(Space.load("digit-pairs-vit"), Budget(max_macs=1_900_000))


def make(name, space, num_trials=24, seed=5, **study_attributes):
    return SEARCHERS[name](
        space, OBJECTIVES, seed=seed, num_trials=num_trials, study_attributes=study_attributes
    )


def macs_of(space, placement):
    return CostModel(space.space.backbone).totals(placement).macs


def tell(searcher, space, number, proposal, top1):
    trial = PastTrial(number=number, placement=proposal.placement, attributes=proposal.attributes)
    searcher.accept(trial)
    values = (top1, float(macs_of(space, proposal.placement)))
    searcher.tell(
        PastTrial(
            number=number,
            placement=proposal.placement,
            attributes=proposal.attributes,
            values=values,
        )
    )


def attending(placement):
    return 0.5 + 0.1 * sum(layer.kind in "VL" for layer in placement.layers)


@pytest.mark.parametrize("name", sorted(SEARCHERS))
def test_proposals_are_legal_and_attempts_differ(space, name):
    searcher = make(name, space)
    for number in range(30):
        proposals = [searcher.ask(number, attempt) for attempt in range(4)]
        assert all(proposal.placement in space for proposal in proposals)
        assert len({proposal.placement for proposal in proposals}) > 1
        tell(searcher, space, number, proposals[-1], attending(proposals[-1].placement))


@pytest.mark.parametrize("name", sorted(SEARCHERS))
def test_proposals_are_between_both_bounds(name):
    budget = Budget(max_macs=1_900_000, min_macs=1_700_000)
    between = BudgetedSpace(Space.load("digit-pairs-vit"), budget)
    searcher = make(name, between)
    for number in range(17):
        proposal = searcher.ask(number, 0)
        assert 1_700_000 <= macs_of(between, proposal.placement) <= 1_900_000
        tell(searcher, between, number, proposal, attending(proposal.placement))


@pytest.mark.parametrize("name", sorted(SEARCHERS))
def test_refused_attempts_leave_no_trace(space, name):
    patient, hasty = make(name, space), make(name, space)
    for number in range(30):
        for attempt in range(3):
            patient.ask(number, attempt)
        one, other = patient.ask(number, 7), hasty.ask(number, 7)
        assert one.placement == other.placement
        assert one.attributes == other.attributes
        for searcher, proposal in ((patient, one), (hasty, other)):
            tell(searcher, space, number, proposal, attending(proposal.placement))


@pytest.mark.parametrize("name", MODEL_BASED)
def test_the_first_proposals_span_the_costs(space, name):
    searcher = make(name, space, num_trials=100)
    num_bands = searcher.num_first_trials - 1
    least, most = space.macs_range[0], 1_900_000
    width = (most - least) / num_bands
    for number in range(searcher.num_first_trials):
        proposal = searcher.ask(number, 0)
        macs = macs_of(space, proposal.placement)
        if number:
            band = number - 1
            assert least + round(band * width) <= macs <= least + round((band + 1) * width)
        tell(searcher, space, number, proposal, attending(proposal.placement))


@pytest.mark.parametrize(
    ("num_trials", "population"), [(1, 4), (24, 7), (100, 14), (1250, 50), (10_000, 50)]
)
def test_the_population_fits_the_number_of_trials(space, num_trials, population):
    assert make("nsga2", space, num_trials=num_trials).num_first_trials == population


@pytest.mark.parametrize("name", MODEL_BASED)
def test_sizes_stay_when_more_trials_are_asked_for(space, name):
    first = make(name, space, num_trials=24)
    attributes = first.ask(0, 0).study_attributes
    again = make(name, space, num_trials=500, **attributes)
    assert again.num_first_trials == first.num_first_trials


@pytest.mark.parametrize("name", MODEL_BASED)
def test_a_model_learns_what_random_search_does_not(space, name):
    def mean_rate(searcher):
        """Share of late proposals that are accurate and cheap, in a toy with a known answer."""
        good = 0
        for number in range(60):
            proposal = searcher.ask(number, 0)
            # Broadcasting in the first layer is worth everything, and nothing else is.
            top1 = 0.9 if proposal.placement.layers[0].cb else 0.5
            tell(searcher, space, number, proposal, top1)
            good += number >= 30 and top1 == 0.9
        return good / 30

    def mean(name):
        return sum(mean_rate(make(name, space, 60, seed)) for seed in range(4)) / 4

    assert mean(name) > mean("random") + 0.05


def test_nsga2_keeps_its_parents_in_study_attributes(space):
    searcher = make("nsga2", space, num_trials=24)
    for number in range(searcher.num_first_trials + 1):
        proposal = searcher.ask(number, 0)
        tell(searcher, space, number, proposal, attending(proposal.placement))
    assert any("parent" in key for key in proposal.study_attributes)
    generations = [value for key, value in proposal.attributes.items() if "generation" in key]
    assert generations == [1]


def test_a_bin_without_members_falls_back_to_the_whole_space():
    two = Space.from_document(
        {
            "name": "two",
            "backbone": "vit(depth=4,embed_dim=8,num_heads=2,patch_size=4)@16",
            "stages": [{"depth": [1, 4], "counts": {"V": [1, 4]}}],
        }
    )
    counted = BudgetedSpace(two)
    searcher = make("nsga2", counted, num_trials=100)
    for number, attempt in itertools.product(range(10), range(3)):
        assert searcher.ask(number, attempt).placement in counted
        if attempt == 2:
            proposal = searcher.ask(number, 3)
            tell(searcher, counted, number, proposal, 0.5)


def first_placement_of_old(space, searcher, number):
    """The start-up draw as it was before bins had a room of their own."""
    rng = searcher.generator(number, 0)
    least = space.macs_range[0]
    most = min(space.macs_range[1], space.budget.max_macs or space.macs_range[1])
    num_bins = max(1, searcher.num_first_trials - 1)
    width = (most - least) / num_bins
    bin_ = (number - 1) % num_bins
    low, high = least + round(bin_ * width), least + round((bin_ + 1) * width)
    try:
        return space.sample_in_macs_bin(rng, low, high)
    except InputError:
        return space.sample(rng)


@pytest.mark.parametrize("bound", [None, 1_900_000, 1_234_567])
@pytest.mark.parametrize("name", MODEL_BASED)
def test_first_draws_without_a_bound_on_params_are_as_ever(name, bound):
    space = BudgetedSpace(Space.load("digit-pairs-vit"), Budget(max_macs=bound))
    searcher = make(name, space, seed=3)
    for number in range(searcher.num_first_trials):
        proposal = searcher.ask(number, 0)
        assert proposal.placement == first_placement_of_old(space, searcher, number)
        tell(searcher, space, number, proposal, 0.5)


def test_the_first_generation_is_spread_over_bins_within_a_bound_on_params(monkeypatch):
    whole = BudgetedSpace(Space.load("digit-pairs-vit"))
    least, most = whole.params_range
    space = BudgetedSpace(whole.space, Budget(max_params=(least + most) // 2))
    low, high = space.macs_range_in_budget
    assert high < whole.macs_range[1]
    searcher = make("nsga2", space, num_trials=72)
    assert searcher.num_first_trials == 12

    def no_uniform_draw(rng):
        raise AssertionError("a bin without a member")

    monkeypatch.setattr(space, "sample", no_uniform_draw)
    bins = []
    for number in range(12):
        proposal = searcher.ask(number, 0)
        tell(searcher, space, number, proposal, 0.5)
        bins.append((macs_of(space, proposal.placement) - low) * 11 / (high - low))
    # The first trial draws from the last bin; neighbours share the value at their edge.
    assert all(number - 1 <= bins[number] <= number for number in range(1, 12))


def test_the_control_draws_from_every_band_in_turn(space):
    searcher = make("stratified", space)
    least, most = space.macs_span
    bands = []
    for number in range(2 * NUM_BANDS + 1):
        macs = macs_of(space, searcher.ask(number, 0).placement)
        bands.append((macs - least) * NUM_BANDS // (most + 1 - least))
    assert bands[1:] == [*range(NUM_BANDS)] * 2
    # A refused draw gives way to the next band.
    macs = macs_of(space, searcher.ask(1, 3).placement)
    assert (macs - least) * NUM_BANDS // (most + 1 - least) == 3


@pytest.mark.parametrize("name", MODEL_BASED)
def test_instead_of_a_repeat_stands_the_nearest_member(space, name):
    searcher = make(name, space)
    start = space[101]
    expected = list(NearestMembers(searcher.encoding).of(start))
    assert list(searcher.instead_of(start)) == expected
    path, other = (pad(p.stages, space.space.automaton.depths) for p in (start, expected[0]))
    assert sum(map(difference, path, other)) == 1


@pytest.mark.parametrize("name", MODEL_BASED)
def test_a_study_goes_on_by_the_rules_that_it_began_with(space, name):
    new = make(name, space)
    notes = new.ask(0, 0).study_attributes
    assert notes[RULES] == 2
    of_then = {key: value for key, value in notes.items() if key != RULES}
    old = make(name, space, **of_then)
    assert RULES not in old.ask(0, 0).study_attributes
    assert tuple(old.instead_of(space[101])) == ()
    again = make(name, space, **notes)
    assert next(iter(again.instead_of(space[101]))) == next(iter(new.instead_of(space[101])))


@pytest.mark.parametrize("name", ["random", "stratified", "model"])
def test_others_leave_repeats_to_the_study(space, name):
    assert tuple(make(name, space).instead_of(space[101])) == ()


def test_only_new_studies_mutate_by_jumps(space, monkeypatch):
    asked = []
    mutate = Variation.mutate

    def watched(self, placement, rng, *, jump_probability=0.0):
        asked.append(jump_probability)
        return mutate(self, placement, rng, jump_probability=jump_probability)

    monkeypatch.setattr(Variation, "mutate", watched)
    for notes, probability in (({}, JUMP_PROBABILITY), ({FIRST_NUM_TRIALS: 24}, 0.0)):
        asked.clear()
        searcher = make("nsga2", space, **notes)
        for number in range(20):
            proposal = searcher.ask(number, 0)
            tell(searcher, space, number, proposal, attending(proposal.placement))
        assert asked and set(asked) == {probability}
