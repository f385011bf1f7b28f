"""Latencies in a search: measured while nothing else runs, stored before anything uses them.

Every network is measured whole, by the process that drives the study, at moments at which it has
no trial running; what other programs do meanwhile it cannot see.

A latency is written to the database before its placement is, those of refused proposals too. What
is stored is never measured again, so that a search that was killed goes on as it would have.
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
        max_ms: the most that a placement may take; None: no bound.
    """

    def __init__(
        self, store: Store, driver: StudyWriter, study: Study, max_ms: float | None = None
    ) -> None:
        """Read what is stored.

        Args:
            store: the database.
            driver: the right to write to the study.
            study: one whose record says how latencies are obtained.
            max_ms: as the attribute.
        """
        assert study.record.latency is not None
        self.max_ms = max_ms
        self._driver = driver
        self._document = study.record.latency
        self._setting = LatencySetting(**self._document["setting"])
        self._known = {key: found.latency_ms for key, found in store.latencies(study).items()}

    def needs_quiet(self, spec: ResolvedSpec) -> bool:
        """Whether the latency of a network is still to be measured, with nothing else running."""
        return spec.key not in self._known

    def of(self, spec: ResolvedSpec, record: SpecRecord) -> float:
        """Milliseconds of a forward of a network: stored, or measured and then stored.

        Args:
            spec: the network.
            record: its record.

        Raises:
            InputError: it is to be measured, and this process is not where the study's latencies
                are from.
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
    """Measure what a new study needs before its first trial: the latency of its reference point.

    Args:
        record: the study, not written yet.
        space: what it searches.
        setting: the target, of this process.
        reference_factor: the reference point's latency over that of the placement of most MACs.

    Returns:
        The record with where latencies are measured, and with their reference.
    """
    backbone = space.space.backbone
    most_ms = measure_network(NetworkSpec(backbone, space.dearest), setting).median_ms
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
    """Refuse to measure for a study whose other latencies are of another kind or from elsewhere.

    Args:
        document: how the study obtains latencies.
        here: the setting of this process.

    Raises:
        InputError: device, threads, torch or batch size differ; or the study's latencies were
            summed from parts, by an earlier version.
    """
    if LatencySource(document["source"]) is LatencySource.TABLE:
        raise InputError(
            "this study's latencies were summed from the times of layers, which was removed since "
            "such sums err by more than 5 %; begin another study with --study, where each network "
            "is measured whole"
        )
    if document["setting"] != here.to_json():
        raise InputError(
            f"this study's latencies are of {document['where']}, and this is {here}; go on there, "
            f"or begin another study with --study"
        )
