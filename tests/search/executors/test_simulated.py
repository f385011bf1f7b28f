"""A simulated executor ends trials in the order in which trainings would end."""

import random

import pytest
from made_up_bench import made_up_bench
from tiny import SPACE_WITH_CB

from sharedattn.placement import NetworkSpec, Placement
from sharedattn.search.evaluators.table import BenchEvaluator
from sharedattn.search.executors import Finished, Raised, Reported
from sharedattn.search.executors.simulated import SimulatedExecutor, end_times
from sharedattn.spaces.space import Space

SPACE = Space.from_yaml(SPACE_WITH_CB, "tiny")


@pytest.fixture(scope="module")
def bench():
    return made_up_bench(SPACE)


def task(evaluator, text, seed=0):
    return evaluator.task(NetworkSpec(SPACE.backbone, Placement.parse(text)), seed)


def test_slots_are_filled_as_they_become_free_and_the_clock_says_so(bench):
    evaluator = BenchEvaluator(bench, "measured", 16)
    rng = random.Random(0)
    tasks = [task(evaluator, rng.choice(bench.texts("measured")), seed) for seed in range(17)]
    seconds = [evaluator.simulated_s(one) for one in tasks]
    ended = {}
    waiting = list(range(17))
    with SimulatedExecutor(evaluator, num_slots=5) as executor:
        while waiting or executor.held:
            while waiting and executor.num_free:
                ticket = waiting.pop(0)
                executor.submit(ticket, tasks[ticket])
            [(ticket, event)] = executor.wait()
            assert isinstance(event, Finished)
            assert event.measurement.wall_time_s == seconds[ticket]
            ended[ticket] = executor.now_s
    assert [ended[ticket] for ticket in range(17)] == pytest.approx(end_times(seconds, 5))
    assert list(ended.values()) == sorted(ended.values())
    assert list(ended) != sorted(ended)


def test_end_times_by_hand():
    assert end_times([3.0, 1.0, 1.0, 4.0], 2) == [3.0, 1.0, 2.0, 6.0]
    assert end_times([3.0, 1.0, 1.0], 1) == [3.0, 4.0, 5.0]
    assert end_times([3.0, 1.0], 5) == [3.0, 1.0]
    assert end_times([], 2) == []


def test_a_report_comes_after_its_share_of_the_epochs_and_a_stop_frees_the_slot(bench):
    evaluator = BenchEvaluator(bench, "measured", 16, rungs=(1, 2))
    first, second = bench.texts("measured")[:2]  # 10 and 13 seconds for 3 epochs
    with SimulatedExecutor(evaluator, num_slots=2) as executor:
        executor.submit(0, task(evaluator, second))
        executor.submit(1, task(evaluator, first))
        [(ticket, event)] = executor.wait()
        assert (ticket, event.metrics.epoch) == (1, 1) and isinstance(event, Reported)
        assert executor.now_s == pytest.approx(10 / 3)
        executor.stop(1)
        [(ticket, event)] = executor.wait()
        assert (ticket, executor.now_s) == (0, pytest.approx(13 / 3))
        executor.go_on(0)
        executor.submit(2, task(evaluator, first))
        tickets = []
        for _ in range(5):
            [(ticket, event)] = executor.wait()
            tickets.append(ticket)
            if isinstance(event, Reported):
                executor.go_on(ticket)
        # 0 ends at 13; 2 began at 13 / 3 and reports every 10 / 3 s.
        assert tickets == [2, 0, 2, 0, 2]
        assert executor.now_s == pytest.approx(13 / 3 + 10)


def test_a_placement_that_is_not_there_fails_at_once(bench):
    evaluator = BenchEvaluator(bench, "measured", 16)
    with SimulatedExecutor(evaluator, num_slots=1) as executor:
        executor.submit(0, task(evaluator, bench.placements[1]))
        [(ticket, event)] = executor.wait()
        assert isinstance(event, Raised) and "give --table-part surrogate" in event.traceback
        assert executor.now_s == 0.0
