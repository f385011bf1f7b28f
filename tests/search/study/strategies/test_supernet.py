"""A search by shared weights: scored whole or by generations, killed anywhere, front retrained."""

from dataclasses import replace

import pytest
from fakes import DriverKilledError
from supernet_lab import SPACE, SupernetLab

from sharedattn.data import open_data
from sharedattn.errors import InputError
from sharedattn.placement import Placement
from sharedattn.results.database.store import Store
from sharedattn.results.front.summary import StudySummary, front_document
from sharedattn.results.records import TrialRole, TrialState, fine_tuning_key
from sharedattn.search.errors import SharedWorkError
from sharedattn.search.evaluators import measure
from sharedattn.search.evaluators.supernet import SupernetTask
from sharedattn.search.executors import Lost, Preempted
from sharedattn.search.study.strategies.supernet import (
    MAX_EXHAUSTIVE,
    SUPERNET_NOTE,
    check_goes_on,
    default_num_trials,
)
from sharedattn.spaces.budget import Budget, BudgetedSpace
from sharedattn.spaces.space import Space
from sharedattn.supernet import trainer as supernet
from sharedattn.training.trainer import evaluate
from sharedattn.weights.extract import extract


@pytest.fixture
def lab(tmp_path, monkeypatch):
    monkeypatch.setattr("sharedattn.data.digit_pairs.PAIRS_PER_EPOCH", 64)
    monkeypatch.setattr("sharedattn.search.study.strategies.supernet.GENERATION", 11)
    return SupernetLab(tmp_path)


def scores(summary):
    return {row.placement: row.top1 for row in summary.rows if row.role is TrialRole.SEARCH}


def test_a_small_space_is_scored_whole_by_weights_that_were_trained_once(lab):
    summary = lab.run()
    assert summary.count(TrialRole.SEARCH)["complete"] == lab.space.in_budget
    found = scores(summary)
    assert set(found) == {str(p) for p in lab.space.enumerate()}
    training, scoring, _ = lab.executors
    assert len(training.evaluated) == 1
    evaluator = lab.evaluator
    network = evaluator._trained_network(lab.note()["sha256"])
    data = open_data(evaluator.scratch.data)
    for text in list(found)[::11]:
        alone = evaluate(
            network,
            data,
            "validation",
            placement=Placement.parse(text),
            batch_size=32,
            num_images=97,
        )
        assert found[text] == alone.quality
        own = evaluate(
            extract(network, Placement.parse(text)),
            data,
            "validation",
            batch_size=32,
            num_images=97,
        )
        assert own.quality == pytest.approx(alone.quality, abs=1 / 97 + 1e-9)
    # Its front is the exact one of the scores.
    best = -1.0
    expected = []
    for row in sorted(summary.rows, key=lambda row: (row.macs, -row.top1)):
        if row.top1 > best:
            best = row.top1
            expected.append((row.macs, row.top1))
    assert sorted({(m.macs, m.top1) for m in summary.front.members}) == expected
    assert summary.front.fidelity.weights == "inherited"
    # Run again, it has nothing left to do.
    again = lab.run()
    assert not any(executor.evaluated for executor in lab.executors)
    assert again.rows == summary.rows


def test_the_front_is_trained_and_the_final_front_is_of_those_trainings_alone(lab):
    summary = lab.run(confirm_seeds=2)
    inheritance = summary.inheritance
    assert inheritance.num_scored == lab.space.in_budget
    assert summary.front.fidelity.weights == "trained"
    assert summary.front.is_confirmed
    trained = [row for row in summary.rows if row.role is TrialRole.CONFIRM]
    assert {row.state for row in trained} == {TrialState.COMPLETE}
    assert sorted({row.replicate for row in trained}) == [0, 1]
    assert {row.seed for row in trained} == {3, 4}
    assert len(inheritance.gaps) == len(trained) / 2 <= 12
    members = {member.placement for member in summary.front.members}
    assert members <= {row.placement for row in trained}
    document = front_document(summary)
    assert document["trials"]["complete"] == lab.space.in_budget
    assert document["confirmations"]["complete"] == len(trained)
    told = document["inherited"]
    assert told["scored"] == lab.space.in_budget
    assert {gap["placement"] for gap in told["retrained"]} == {row.placement for row in trained}
    assert told["mean_gap"] == pytest.approx(
        sum(g["trained_top1"] - g["inherited_top1"] for g in told["retrained"])
        / len(told["retrained"])
    )
    # Members of the final front keep their weights, and so does the supernet.
    weights = lab.evaluator.scratch.weights
    kept = {run.evaluation_key for member in summary.front.members for run in member.runs}
    assert weights.keys() == {*kept, lab.evaluator.supernet_identity.key}


@pytest.mark.parametrize("die_after", [(1, None, None), (None, 1, None), (None, None, 3)])
def test_a_search_that_was_killed_comes_to_the_same_end(lab, tmp_path, die_after):
    other = SupernetLab(tmp_path / "other")
    (tmp_path / "other").mkdir()
    expected = other.run(confirm_seeds=2)
    with pytest.raises(DriverKilledError):
        lab.run(confirm_seeds=2, die_after=die_after)
    summary = lab.run(confirm_seeds=2)
    assert scores(summary) == scores(expected)
    assert [(m.placement, m.top1s) for m in summary.front.members] == [
        (m.placement, m.top1s) for m in expected.front.members
    ]
    if die_after[0] is None:
        assert not lab.executors[0].evaluated


def test_a_larger_space_is_searched_by_generations(lab, monkeypatch):
    monkeypatch.setattr("sharedattn.search.study.strategies.supernet.GENERATION", 7)
    summary = lab.run("some", num_trials=19)
    rows = [row for row in summary.rows if row.role is TrialRole.SEARCH]
    assert [row.number for row in rows] == list(range(19))
    assert rows[0].placement == "V2"
    assert len({row.placement for row in rows}) == 19
    whole = lab.run("all")
    assert scores(summary).items() <= scores(whole).items()
    # A killed search proposes the same again.
    other = SupernetLab(lab.folder / "other")
    with pytest.raises(DriverKilledError):
        other.run("killed", num_trials=19, die_after=(None, 2, None))
    assert 0 < len(other.summary("killed").rows) < 19
    resumed = other.run("killed", num_trials=19)
    assert scores(resumed) == scores(summary)
    # What is stored is not scored again, and changes nothing.
    assert scores(lab.run("again", num_trials=19)) == scores(summary)
    assert lab.executors[1].evaluated == []


def test_a_training_that_loses_its_worker_is_run_again_but_not_for_ever(lab):
    summary = lab.run(deaths=[Preempted("taken"), Lost("died"), Preempted("taken")])
    assert summary.count(TrialRole.SEARCH)["complete"] == lab.space.in_budget


def test_a_training_that_cannot_be_run_says_why(lab):
    with pytest.raises(SharedWorkError, match="supernet failed: died"):
        lab.run(deaths=[Lost("died"), Lost("died")])


def test_the_number_of_scores_follows_the_size_of_the_space(lab):
    assert default_num_trials(lab.space) == lab.space.in_budget
    large = BudgetedSpace(Space.load("deit-tiny"))
    assert large.in_budget > MAX_EXHAUSTIVE
    assert default_num_trials(large) == 2000


def test_a_killed_training_goes_on_from_its_checkpoint(lab, monkeypatch):
    evaluator = lab.evaluator
    evaluator = replace(evaluator, scratch=replace(evaluator.scratch, checkpoint_every_s=0.0))
    task = evaluator.supernet_task("study/supernet")
    assert isinstance(task, SupernetTask)
    whole = measure(evaluator, replace(task, checkpoint=None))
    evaluation = evaluator.evaluate(task)
    assert next(evaluation).epoch == 1
    evaluation.close()
    epochs = []
    run_epoch = "sharedattn.supernet.trainer.SupernetTrainer.run_epoch"
    from sharedattn.supernet.trainer import SupernetTrainer

    original = SupernetTrainer.run_epoch

    def counted(self, **arguments):
        epochs.append(self.epoch + 1)
        return original(self, **arguments)

    monkeypatch.setattr(run_epoch, counted)
    resumed = measure(evaluator, task)
    assert epochs == [2]
    assert resumed.weights_sha256 == whole.weights_sha256


def test_weights_of_another_space_are_refused(lab):
    lab.run()
    weights = lab.evaluator.scratch.weights
    key = lab.evaluator.supernet_identity.key
    smaller = Space.from_document({**SPACE, "stages": [{"depth": 1, "counts": {"V": 1}}]})
    other = replace(lab.evaluator, supernet=replace(lab.evaluator.supernet, space=smaller))
    assert other.supernet_identity.key != key
    state = weights.load(key, lab.note()["sha256"])
    sha256 = weights.save(other.supernet_identity.key, state)
    with pytest.raises(InputError, match="of another space or backbone"):
        other._trained_network(sha256)


def test_a_study_of_several_networks_does_not_go_on(lab):
    summary = lab.run("split")
    recipe = {**lab.evaluator.supernet.recipe.to_json(), "split_by": "dia"}
    with Store.open(f"sqlite:///{lab.folder / 'lab.db'}") as store:
        study = store.study("split")
        check_goes_on(store, study)
        with store.drive(study) as driver:
            note = {**store.searcher_attributes(study)[SUPERNET_NOTE], "recipe": recipe}
            driver.save_searcher_attributes({SUPERNET_NOTE: note})
        with pytest.raises(InputError, match="'split' is shown.*does not go on.*split_by: dia"):
            check_goes_on(store, study)
        assert scores(StudySummary.read(store, study)) == scores(summary)


def test_a_study_may_be_asked_for_the_whole_space_after_a_part_and_keeps_what_it_has(lab):
    part = lab.run("part", num_trials=19)
    whole = lab.run("part")
    assert scores(part).items() <= scores(whole).items()
    rows = [row for row in whole.rows if row.role is TrialRole.SEARCH]
    assert sorted(row.number for row in rows) == list(range(lab.space.in_budget))
    assert scores(whole) == scores(lab.run("all"))


def test_studies_of_one_database_share_a_supernet(lab):
    first = lab.run("first", num_trials=19)
    [key] = lab.executors[0].evaluated
    second = lab.run("second", num_trials=25)
    assert lab.executors[0].evaluated == []
    assert lab.note("second") == lab.note("first")
    assert (lab.note("second")["key"], len(second.rows)) == (key, 25)
    assert all(
        row.reused for row in second.rows if row.spec_key in {r.spec_key for r in first.rows}
    )
    # Weights that have gone are trained for a study that asks for them.
    lab.evaluator.scratch.weights.delete(key)
    lab.run("third", num_trials=5)
    assert lab.executors[0].evaluated == [key]
    assert lab.note("third")["sha256"] == lab.note("first")["sha256"]


def test_budgets_share_a_supernet_and_a_larger_one_takes_what_a_smaller_one_scored(lab):
    whole = lab.space
    low, high = whole.macs_range
    lab.space = BudgetedSpace(whole.space, Budget(max_macs=(low + high) // 2))
    small = lab.run("small", num_trials=7)
    assert len(lab.executors[0].evaluated) == 1
    lab.space = whole
    large = lab.run("large", num_trials=9)
    assert lab.executors[0].evaluated == []
    assert lab.note("large") == lab.note("small")
    # Its own nine, as if the other study were not there, then what that scored besides.
    alone = SupernetLab(lab.folder / "alone").run("large", num_trials=9)
    rows = [row for row in large.rows if row.role is TrialRole.SEARCH]
    assert [row.placement for row in rows[:9]] == [row.placement for row in alone.rows]
    assert [row.number for row in rows] == list(range(len(rows)))
    assert {row.placement for row in rows} == {row.placement for row in (*alone.rows, *small.rows)}
    for row in rows:
        assert row.reused is (row.placement in scores(small))
        assert row.top1 == (scores(small) | scores(alone))[row.placement]
    # A smaller budget takes nothing of a larger one, and a finished study adds nothing.
    assert lab.run("large", num_trials=9).count(TrialRole.SEARCH) == large.count(TrialRole.SEARCH)
    lab.space = BudgetedSpace(whole.space, Budget(max_macs=(low + high) // 2 - 1))
    assert len(lab.run("smaller", num_trials=5).rows) == 5
    # Between two bounds none is below the lower one, and the supernet is still that of all.
    lab.space = BudgetedSpace(
        whole.space, Budget(max_macs=(low + high) // 2, min_macs=(low + high) // 3)
    )
    between = lab.run("between", num_trials=11)
    assert lab.executors[0].evaluated == []
    assert lab.note("between") == lab.note("small")
    assert (low + high) // 3 <= min(row.macs for row in between.rows)


def test_a_space_that_was_begun_to_be_scored_whole_is_whatever_number_is_asked_for_since(lab):
    with pytest.raises(DriverKilledError):
        lab.run("killed", die_after=(None, 2, None))
    begun = lab.summary("killed").rows
    assert 0 < len(begun) < lab.space.in_budget
    lab.run("killed", num_trials=1)
    assert len(lab.summary("killed").rows) == lab.space.in_budget


@pytest.fixture
def tuning(lab):
    """A lab that fine-tunes its front."""
    lab.fine_tunes = True
    lab.neutral_gates = False
    return lab


def test_fine_tunings_are_named_by_the_weights_that_they_begin_with(tuning):
    summary = tuning.run(confirm_seeds=1)
    [key] = {row.recipe_key for row in tuning.evaluations("trained")}
    recipe_key = tuning.evaluator.scratch.recipe_key
    assert key == fine_tuning_key(recipe_key, tuning.note()["sha256"])
    assert summary.inheritance.fine_tuned


def test_weights_that_have_gone_are_trained_again_before_anything_is_fine_tuned(tuning):
    expected = tuning.run("whole", confirm_seeds=1)
    tuning.run()
    weights = tuning.evaluator.scratch.weights
    weights.delete(tuning.evaluator.supernet_identity.key)
    summary = tuning.run(confirm_seeds=1)
    assert len(tuning.executors[0].evaluated) == 1
    assert [(m.placement, m.top1s) for m in summary.front.members] == [
        (m.placement, m.top1s) for m in expected.front.members
    ]


def test_other_weights_never_stand_in_for_those_that_scored(tuning, monkeypatch):
    tuning.run()
    weights = tuning.evaluator.scratch.weights
    weights.delete(tuning.evaluator.supernet_identity.key)
    # As another machine's arithmetic would.
    initialise = supernet.initialise

    def otherwise(network, scheme):
        initialise(network, scheme)
        next(network.parameters()).data.mul_(1.001)

    monkeypatch.setattr(supernet, "initialise", otherwise)
    with pytest.raises(InputError, match="scored 36 placements are not at .*put them back there"):
        tuning.run(confirm_seeds=1)
    assert not tuning.summary("study").count(TrialRole.CONFIRM)["failed"]


def test_fine_tunings_that_were_in_flight_wait_for_the_shared_work(tuning):
    with pytest.raises(DriverKilledError):
        tuning.run(num_trials=19, confirm_seeds=1, die_after=(None, None, 1))
    tuning.run(num_trials=30, confirm_seeds=1)
    _, scoring, front = tuning.executors
    assert scoring.evaluated
    assert front.evaluated
    rows = tuning.summary("study").rows
    assert {row.state for row in rows} == {TrialState.COMPLETE}


def test_a_member_has_the_stochastic_depth_of_its_own_recipe(tuning):
    tuning.run()
    evaluator = tuning.evaluator
    recipe = replace(evaluator.scratch.recipe, drop_path_rate=0.25)
    evaluator = replace(evaluator, scratch=replace(evaluator.scratch, recipe=recipe))
    member = evaluator.member(Placement.parse("V2"), tuning.note()["sha256"])
    assert member.drop_path_rate == 0.25
