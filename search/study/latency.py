"""Latencies in a search: measured while no trial runs, stored before anything uses them.

The process that drives the study measures every network whole, while none of its trials runs; it
cannot see what other programs do meanwhile.

A latency is stored before its placement, also for refused proposals. Stored latencies are never
measured again, so an interrupted search continues as it would have.
"""

from __future__ import annotations

from dataclasses import replace

from sharedattn.costs.latency import LatencySetting, measure_network
from sharedattn.errors import InputError
from sharedattn.placement import NetworkSpec, ResolvedSpec
from sharedattn.results.database.store import Store
from sharedattn.results.database.writing import StudyWriter
from sharedattn.results.records import (
    Document,
    LatencyRecord,
    LatencySource,
    SpecRecord,
    Study,
    StudyRecord,
)
from sharedattn.spaces.budget import BudgetedSpace


class Latencies:
    """The latencies of one study's placements, for its driver.

    Attributes:
        max_ms: bound on a placement's latency, or None for no bound.
    """

    def __init__(
        self, store: Store, driver: StudyWriter, study: Study, max_ms: float | None = None
    ) -> None:
        """Read the stored latencies.

        Args:
            store: the database.
            driver: the study's writer.
            study: a study whose record has a latency setting.
            max_ms: bound on a placement's latency, or None for no bound.
        """
        assert study.record.latency is not None
        self.max_ms = max_ms
        self._driver = driver
        self._document = study.record.latency
        self._setting = LatencySetting(**self._document["setting"])
        self._known = {key: found.latency_ms for key, found in store.latencies(study).items()}

    def needs_quiet(self, spec: ResolvedSpec) -> bool:
        """Whether a network is not measured yet, which requires that nothing else runs."""
        return spec.key not in self._known

    def of(self, spec: ResolvedSpec, record: SpecRecord) -> float:
        """Milliseconds of a network's forward pass: stored, or measured and then stored.

        Args:
            spec: the network.
            record: its database record.

        Raises:
            InputError: it is not measured yet, and this process differs from the one that
                measured the study's other latencies.
        """
        if spec.key not in self._known:
            latency = self._measure(spec)
            self._driver.record_latency(record, latency)
            self._known[spec.key] = latency.latency_ms
        return self._known[spec.key]

    def _measure(self, spec: ResolvedSpec) -> LatencyRecord:
        setting = self._setting
        check_setting(self._document, LatencySetting.here(setting.device, setting.batch_size))
        timing = measure_network(spec, setting)
        return LatencyRecord(
            latency_ms=timing.median_ms,
            latency_source=LatencySource.NETWORK,
            repeats=timing.repeats,
            device=setting.device_text,
            batch_size=setting.batch_size,
            peak_bytes=timing.peak_bytes,
        )


def with_latencies(
    record: StudyRecord,
    space: BudgetedSpace,
    setting: LatencySetting,
    *,
    reference_factor: float,
) -> StudyRecord:
    """Measure a new study's reference latency before its first trial.

    Args:
        record: the study, not stored yet.
        space: the space that it searches.
        setting: the latency setting of this process.
        reference_factor: ratio of the reference latency to that of the placement of most MACs.

    Returns:
        The record with its latency setting and reference latency.
    """
    backbone = space.space.backbone
    most_ms = measure_network(NetworkSpec(backbone, space.most_expensive), setting).median_ms
    return replace(
        record,
        reference_point={**record.reference_point, "latency_ms": reference_factor * most_ms},
        latency={
            "source": LatencySource.NETWORK.value,
            "where": str(setting),
            "setting": setting.to_json(),
            "backbone": backbone.to_json(),
        },
    )


def check_setting(document: Document, here: LatencySetting) -> None:
    """Check that this process measures latencies as the study's others were measured.

    Args:
        document: the study's latency setting.
        here: the setting of this process.

    Raises:
        InputError: device, threads, torch or batch size differ; or an earlier version summed the
            study's latencies from parts.
    """
    if LatencySource(document["source"]) is LatencySource.TABLE:
        raise InputError(
            "this study's latencies were summed from the times of layers, which is no longer "
            "supported, since such sums err by more than 5 %; begin another study with --study, "
            "where each network is measured whole"
        )
    if document["setting"] != here.to_json():
        raise InputError(
            f"this study's latencies were measured on {document['where']}, but this is {here}; "
            f"continue there, or begin another study with --study"
        )
