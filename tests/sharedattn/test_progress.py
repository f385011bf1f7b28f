"""How far a training is: said seldom, exact, and without a trace in the result."""

from dataclasses import replace

import pytest
import torch
from shades import RECIPE, SPEC, Shades

from sharedattn.progress import ScoringMeter, ScoringProgress, TrainingMeter
from sharedattn.training.trainer import Trainer


@pytest.fixture
def clock(monkeypatch):
    """A clock that is moved by hand."""

    class Clock:
        now = 100.0

    monkeypatch.setattr("sharedattn.progress.time.perf_counter", lambda: Clock.now)
    return Clock


def test_a_training_is_told_of_once_a_second(clock):
    told = []
    meter = TrainingMeter(told.append, epochs=2, steps=8, batch_size=10)
    clock.now += 50  # building the network is no part of the training's time
    meter.begin_epoch(0)
    for step in range(1, 9):
        clock.now += 0.5
        meter.count_step(torch.tensor(2.0 * step))
    assert [(p.epoch, p.step, p.is_validating) for p in told] == [
        (1, 1, False), (1, 3, False), (1, 5, False), (1, 7, False),
    ]  # fmt: skip
    assert {p.loss for p in told} == {2.0}
    assert [p.images_per_s for p in told] == pytest.approx([20.0] * 4)
    assert [p.left_s for p in told] == pytest.approx([7.5, 6.5, 5.5, 4.5])
    assert all((p.epochs, p.steps) == (2, 8) for p in told)


def test_an_evaluation_is_said_and_takes_no_speed_from_the_training(clock):
    told = []
    meter = TrainingMeter(told.append, epochs=2, steps=2, batch_size=10)
    for epoch in range(2):
        meter.begin_epoch(epoch)
        for step in range(1, 3):
            clock.now += 1.0
            meter.count_step(torch.tensor(3.0 * step))
        meter.end_epoch(3.0, validates=True)
        clock.now += 1000.0
    assert [p.is_validating for p in told] == [False, False, True] * 2
    assert {p.images_per_s for p in told} == {10.0}
    assert told[-1].left_s == 0.0
    assert told[2].left_s == pytest.approx(2.0)


def test_a_scoring_is_told_of_once_a_second(clock):
    told = []
    meter = ScoringMeter(told.append, placements=12)
    for share in (0.1, 0.2, 0.5, 1.0):
        clock.now += 0.6
        meter.tell(share)
    assert told == [
        ScoringProgress(placements=12, share=0.2, left_s=pytest.approx(4.8)),
        ScoringProgress(placements=12, share=1.0, left_s=0.0),
    ]


def test_a_training_that_is_watched_is_the_same(monkeypatch):
    monkeypatch.setattr("sharedattn.progress.EVERY_S", 0.0)
    recipe = replace(RECIPE, epochs=2, drop_path_rate=0.2)
    told = []

    def trained(on_progress):
        trainer = Trainer(SPEC, Shades(), recipe, seed=4, on_progress=on_progress)
        while not trainer.finished:
            trainer.run_epoch()
        return trainer.result(), torch.random.get_rng_state()

    (alone, state), (watched, same_state) = trained(None), trained(told.append)
    assert alone.curve == watched.curve
    assert torch.equal(state, same_state)
    for name, tensor in alone.network.state_dict().items():
        assert torch.equal(tensor, watched.network.state_dict()[name])
    steps = told[0].steps
    assert [(p.epoch, p.step) for p in told if not p.is_validating] == [
        (epoch, step) for epoch in (1, 2) for step in range(1, steps + 1)
    ]
    # What is said at the end of an epoch is its point on the curve.
    assert told[-1].loss == watched.curve[-1].train_loss
    assert told[-1].is_validating


def test_one_that_goes_on_says_where_it_is(monkeypatch):
    monkeypatch.setattr("sharedattn.progress.EVERY_S", 0.0)
    first = Trainer(SPEC, Shades(), replace(RECIPE, epochs=3), seed=4)
    first.run_epoch()
    told = []
    second = Trainer(SPEC, Shades(), replace(RECIPE, epochs=3), seed=4, on_progress=told.append)
    second.load_state_dict(first.state_dict())
    second.run_epoch()
    assert {p.epoch for p in told} == {2}
