import json
import math
from collections.abc import Callable

import pytest

from sharedattn.placement import NetworkSpec
from sharedattn.results.records import (
    LatencyRecord,
    LatencySource,
    SpecRecord,
)


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
