import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from sharedattn.errors import InputError
from sharedattn.placement import NetworkSpec
from sharedattn.results.records.records import (
    EvaluationIdentity,
    EvaluationRecord,
    Fidelity,
    LatencyRecord,
    LatencySource,
    RungReport,
    SpecRecord,
    StudyRecord,
)


def test_a_fidelity_is_read_back_from_its_key() -> None:
    fidelity = Fidelity(epochs=7, image_size=16, weights="inherited")
    assert Fidelity.from_key(fidelity.key) == fidelity
    assert fidelity.key == (
        '{"data_fraction":1.0,"epochs":7,"image_size":16,"weights":"inherited"}'
    )
    with pytest.raises(InputError, match="of 0.5 of the training data"):
        Fidelity.from_json({**fidelity.to_json(), "data_fraction": 0.5})


@pytest.mark.parametrize(
    "fields",
    [
        {"epochs": 0},
        {"epochs": 2.5},
        {"image_size": 0},
        {"weights": "borrowed"},
    ],
)
def test_what_is_no_fidelity_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(InputError, match="`fidelity` has `epochs` and `image_size`, whole"):
        Fidelity(**{"epochs": 7, "image_size": 16, **fields})  # type: ignore[arg-type]


def test_the_most_faithful_fidelity_ranks_highest() -> None:
    inherited = Fidelity(epochs=300, image_size=224, weights="inherited")
    small = Fidelity(epochs=300, image_size=112)
    short = Fidelity(epochs=10, image_size=224)
    full = Fidelity(epochs=300, image_size=224)
    ranked = sorted([full, short, small, inherited], key=lambda f: f.rank)
    assert ranked == [inherited, small, short, full]


def test_every_part_of_an_identity_changes_its_key() -> None:
    parts = {
        "spec_key": "s",
        "recipe_key": "r",
        "data_fingerprint": "d",
        "fidelity": Fidelity(epochs=7, image_size=16),
        "seed": 5,
    }
    changed = {
        "spec_key": "t",
        "recipe_key": "t",
        "data_fingerprint": "t",
        "fidelity": Fidelity(epochs=8, image_size=16),
        "seed": 6,
    }
    keys = {EvaluationIdentity(**{**parts, name: changed[name]}).key for name in parts}  # type: ignore[arg-type]
    keys.add(EvaluationIdentity(**parts).key)  # type: ignore[arg-type]
    assert len(keys) == 6


@pytest.mark.parametrize(
    "metrics",
    [
        {"top1": math.nan},
        {"top1": 1.5},
        {"top1": -0.1},
        {"loss": math.inf},
    ],
)
def test_a_metric_that_is_no_number_is_no_evaluation(
    metrics: dict[str, object],
    make_spec: Callable[..., SpecRecord],
    make_evaluation: Callable[..., EvaluationRecord],
) -> None:
    with pytest.raises(
        ValueError, match="`top1` is from 0 to 1 and `loss` finite.*record the trial as failed"
    ):
        make_evaluation(make_spec(), **metrics)


@pytest.mark.parametrize("latency_ms", [0.0, -1.5, math.nan, math.inf])
def test_a_latency_is_a_time(
    latency_ms: float, make_latency: Callable[..., LatencyRecord]
) -> None:
    with pytest.raises(ValueError, match="`latency_ms`=.* is not a finite number above 0"):
        make_latency(latency_ms=latency_ms)


def test_a_latency_as_a_document_and_as_a_text(
    make_latency: Callable[..., LatencyRecord],
) -> None:
    measured = make_latency(peak_bytes=7)
    summed = make_latency(latency_source=LatencySource.TABLE)
    for record in (measured, summed):
        assert LatencyRecord.from_json(json.loads(json.dumps(record.to_json()))) == record
    assert type(measured.to_json()["latency_source"]) is str
    ending = "batch of 3, a processor, 2 threads"
    assert str(measured) == f"2.5 ms, median of 31 forwards, {ending}"
    assert str(summed) == f"2.5 ms, summed from its parts, {ending}"


def test_the_record_of_a_spec() -> None:
    spec = NetworkSpec.parse("vit(depth=3): V2L1/cb")
    record = SpecRecord.of(spec, params=7, macs=11, attention_bytes=13)
    assert record.key == spec.key
    assert (record.text, record.placement) == ("vit(depth=3): V2L1/cb", "V2L1/cb")
    assert NetworkSpec.from_json(record.document) == spec


def test_totals_are_no_part_of_a_study_s_fingerprint(
    make_study: Callable[..., StudyRecord],
) -> None:
    assert make_study().fingerprint == make_study(num_trials=99, confirm_seeds=1).fingerprint
    assert make_study().fingerprint != make_study(fingerprint_document={"seed": 6}).fingerprint


@pytest.mark.parametrize(
    "changes", [{"epoch": 0}, {"top1": math.nan}, {"top1": 1.5}, {"loss": math.inf}]
)
def test_a_rung_s_metrics_are_numbers(changes: dict[str, float]) -> None:
    fields: dict[str, Any] = {"epoch": 3, "top1": 0.5, "loss": 0.75, "goes_on": True}
    assert RungReport(**fields) == RungReport(3, 0.5, 0.75, True)
    with pytest.raises(
        ValueError, match="a rung needs an `epoch` >= 1.*record the trial as failed"
    ):
        RungReport(**{**fields, **changes})
