"""Latency as an objective and as a bound: measured once, while nothing runs, and stored."""

import random
from collections import Counter
from dataclasses import replace

import pytest
from fakes import DriverKilledError, Fake, Inline
from lab import SPACE, Lab

from sharedattn.costs.latency import LatencySetting
from sharedattn.costs.model import CostModel
from sharedattn.costs.timing import Timing
from sharedattn.errors import InputError
from sharedattn.placement import Placement
from sharedattn.results.database.store import Store
from sharedattn.results.records import LatencySource
from sharedattn.search.searchers import SEARCHERS
from sharedattn.search.study import latency
from sharedattn.search.study.latency import check_setting, with_latencies
from sharedattn.spaces.budget import Budget, BudgetedSpace
from sharedattn.spaces.space import Space

OBJECTIVES = ("top1", "latency_ms")
COUNTED = BudgetedSpace(Space.from_document(SPACE))
TIGHT = BudgetedSpace(COUNTED.space, Budget(max_macs=30_000))  # of 32 placements
BACKBONE = COUNTED.space.backbone
SETTING = LatencySetting.here("cpu", 1)


def made_up_ms(placement):
    """Not in the order of MACs: external layers are slow here."""
    slow = sum(layer.kind == "E" for layer in placement.layers)
    return CostModel(BACKBONE).totals(placement).macs / 1e4 + 2.5 * slow


def document(source="network", **changes):
    return {
        "source": source,
        "where": str(SETTING),
        "setting": SETTING.to_json(),
        "backbone": BACKBONE.to_json(),
        **changes,
    }


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path, COUNTED)


@pytest.fixture
def other_lab(tmp_path):
    (tmp_path / "other").mkdir()
    return Lab(tmp_path / "other", COUNTED)


@pytest.fixture
def measured(monkeypatch):
    """How often each placement was measured; a study's executor may be put in `must_rest`."""
    counts = Counter()
    counts.must_rest = None

    def measure_network(spec, setting):
        assert (spec.backbone, setting) == (BACKBONE, SETTING)
        if counts.must_rest is not None:
            assert counts.must_rest.num_free == counts.must_rest.num_slots
        counts[str(spec.placement)] += 1
        return Timing(made_up_ms(spec.placement), repeats=31)

    monkeypatch.setattr(latency, "measure_network", measure_network)
    return counts


def latencies(place, name="study"):
    with Store.open(place.url) as store:
        return store.latencies(store.study(name))


def test_the_front_is_of_accuracy_and_latency(lab, measured):
    summary = lab.run(num_trials=30, objectives=OBJECTIVES, latency=document())
    assert set(measured.values()) == {1}
    assert measured.keys() == {row.placement for row in summary.rows}
    for row in summary.rows:
        assert row.costs["latency_ms"] == made_up_ms(Placement.parse(row.placement))
        assert row.latency_source is LatencySource.NETWORK
    members = summary.front.members
    assert [m.costs["latency_ms"] for m in members] == sorted(
        m.costs["latency_ms"] for m in members
    )
    values = {row.placement: (-row.top1, row.costs["latency_ms"]) for row in summary.rows}
    assert {m.placement for m in members} == {
        placement
        for placement, (loss, ms) in values.items()
        if not any(a <= loss and b <= ms and (a, b) != (loss, ms) for a, b in values.values())
    }
    with Store.open(lab.url) as store:
        assert store.snapshots(summary.study)[-1].hypervolume == pytest.approx(summary.hypervolume)


@pytest.mark.parametrize("searcher", sorted(SEARCHERS))
def test_a_killed_search_goes_on_and_measures_nothing_again(lab, other_lab, measured, searcher):
    asked = {
        "searcher": searcher,
        "num_trials": 20,
        "confirm_seeds": 2,
        "objectives": ("top1", "macs", "latency_ms"),
        "latency": document(),
        "max_latency_ms": 12.5,
    }
    lab.run(executor=Inline(Fake(noise=0.3)), **asked)
    of_whole = dict(measured)
    measured.clear()
    for events in (1, 4, 7):
        with pytest.raises(DriverKilledError):
            other_lab.run(executor=Inline(Fake(noise=0.3), die_after=events), **asked)
    other_lab.run(executor=Inline(Fake(noise=0.3)), **asked)
    assert other_lab.history() == lab.history()
    assert dict(measured) == of_whole
    assert set(of_whole.values()) == {1}
    assert latencies(other_lab) == latencies(lab)


def test_networks_are_measured_while_no_trial_runs(lab, measured):
    executor = Inline(Fake(), num_slots=3, rng=random.Random(7))
    measured.must_rest = executor
    summary = lab.run(num_trials=20, executor=executor, objectives=OBJECTIVES, latency=document())
    assert len(summary.rows) == len(measured) == 20
    # Rounds of three, and what is left over: all slots are used although nothing runs meanwhile.
    assert len(executor.evaluated) == 20


def test_with_several_slots_deterministic_means_any_order_of_completion(lab, other_lab, measured):
    for place, seed in ((lab, 1), (other_lab, 2)):
        executor = Inline(Fake(noise=0.3), num_slots=3, rng=random.Random(seed))
        place.run(
            searcher="nsga2",
            num_trials=20,
            deterministic=True,
            executor=executor,
            objectives=OBJECTIVES,
            latency=document(),
        )
    assert lab.history() == other_lab.history()


def test_what_takes_too_long_is_refused_and_stored(lab, measured):
    summary = lab.run(num_trials=25, latency=document(), max_latency_ms=10.0)
    assert len(summary.rows) == 25
    assert max(row.costs["latency_ms"] for row in summary.rows) <= 10.0
    stored = {record.latency_ms for record in latencies(lab).values()}
    assert max(stored) > 10.0
    assert len(latencies(lab)) == len(measured)


def test_a_bound_that_nothing_meets(lab, measured):
    fastest = min(map(made_up_ms, TIGHT.enumerate()))
    rule = rf"is within --max-latency-ms 0\.25; the fastest of 32 takes {fastest:.3g} ms"
    with pytest.raises(InputError, match=rule):
        lab.run(space=TIGHT, latency=document(), max_latency_ms=0.25)
    assert lab.summary().rows == []


def test_a_bound_that_few_meet_ends_the_search(lab, measured):
    few = sorted(map(made_up_ms, TIGHT.enumerate()))[2]
    asked = {"space": TIGHT, "num_trials": 12, "latency": document(), "max_latency_ms": few}
    summary = lab.run(**asked)
    assert {row.placement for row in summary.rows} == {
        str(p) for p in TIGHT.enumerate() if made_up_ms(p) <= few
    }
    assert summary.study.finished_at is not None
    again = lab.run(**asked)
    assert [row.id for row in again.rows] == [row.id for row in summary.rows]
    assert set(measured.values()) == {1}


def test_latencies_of_another_device_do_not_mix(lab, measured):
    setting = replace(SETTING, device_name="another processor", threads=7)
    elsewhere = document(setting=setting.to_json(), where=str(setting))
    with pytest.raises(InputError, match="measured on another processor, 7 threads"):
        lab.run(objectives=OBJECTIVES, latency=elsewhere)
    assert not measured
    check_setting(document(), SETTING)


def test_a_study_of_summed_latencies_does_not_go_on(lab, measured):
    """As earlier versions wrote it, with the times of layers and what came of them."""
    summed = document("table", repeats=93, factor=0.5, worst_error=0.03, checks=[], parts={"V": 1})
    with pytest.raises(InputError, match="summed from the times of layers, which is no longer"):
        lab.run(objectives=OBJECTIVES, latency=summed)
    assert not measured
    assert lab.summary().latency_text == f"summed from parts; {SETTING}"


# Before the first trial


def test_a_new_study_measures_its_reference(lab, measured):
    new = lab.record("new", "random", 3, 1, 5)
    record = with_latencies(new, COUNTED, SETTING, reference_factor=1.1)
    assert record.latency == document()
    expected = 1.1 * made_up_ms(COUNTED.most_expensive)
    assert record.reference_point["latency_ms"] == pytest.approx(expected)
    assert record.reference_point["macs"] == new.reference_point["macs"]
    assert record.fingerprint == new.fingerprint
    assert measured == {str(COUNTED.most_expensive): 1}
