"""Latencies in a search: obtained while nothing else runs, stored before anything uses them.

Before its study is made, a search times the parts of its space's placements on the target device,
checks their sums on whole networks, and decides from that once and for all whether latencies are
summed from the table or each network is measured whole. Both are of this process alone, at moments
at which it has no trial running; what other programs do meanwhile it cannot see.

A latency is written to the database before its placement is, those of refused proposals too. What
is stored is never measured again, so that a search that was killed goes on as it would have.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

from sharedattn.backbones import describe
from sharedattn.costs.latency import (
    LatencyCheck,
    LatencySetting,
    LatencyTable,
    measure_network,
    measure_table,
    part_names,
)
from sharedattn.errors import InputError
from sharedattn.placement import BackboneSpec, NetworkSpec, Placement
from sharedattn.results.database.store import Store
from sharedattn.results.database.writer import StudyWriter
from sharedattn.results.records.records import (
    Document,
    LatencyRecord,
    LatencySource,
    SpecRecord,
    Study,
    StudyRecord,
)
from sharedattn.seeds import derived_seed
from sharedattn.spaces.budget import BudgetedSpace

NUM_CHECKED = 5  # random placements that are measured whole
MAX_HOST_DRAWS = 300  # of random placements, for their parts


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
        self._table = _table(self._document)
        self._known = {key: found.latency_ms for key, found in store.latencies(study).items()}

    @property
    def measures_whole(self) -> bool:
        """Whether every network is measured, rather than summed from its parts."""
        return LatencySource(self._document["source"]) is LatencySource.NETWORK

    def needs_quiet(self, spec: NetworkSpec) -> bool:
        """Whether the latency of a network is still to be measured, with nothing else running."""
        return spec.key not in self._known and not self._is_summed(spec.placement)

    def of(self, spec: NetworkSpec, record: SpecRecord) -> float:
        """Milliseconds of a forward of a network: stored, summed or measured; then stored.

        Args:
            spec: the network, resolved.
            record: its record.

        Raises:
            InputError: it is to be measured, and this process is not where the study's latencies
                are from.
        """
        if spec.key not in self._known:
            latency = self._obtain(spec)
            self._driver.record_latency(record, latency)
            self._known[spec.key] = latency.latency_ms
        return self._known[spec.key]

    def _is_summed(self, placement: Placement) -> bool:
        return not self.measures_whole and self._table.holds(placement)

    def _obtain(self, spec: NetworkSpec) -> LatencyRecord:
        setting = self._setting
        if self._is_summed(spec.placement):
            return LatencyRecord(
                latency_ms=self._table.predict_ms(spec.placement),
                latency_source=LatencySource.TABLE,
                repeats=self._table.repeats,
                device=setting.device_text,
                batch_size=setting.batch_size,
            )
        check_setting(self._document, LatencySetting.here(setting.device, setting.batch_size))
        timing = measure_network(spec.backbone, spec.placement, setting)
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
    known: Mapping[str, float],
    reference_factor: float,
) -> StudyRecord:
    """Measure what a new study needs before its first trial.

    Args:
        record: the study, not written yet.
        space: what it searches.
        setting: the target, of this process.
        known: parts that need not be measured again, see `known_parts`.
        reference_factor: the reference point's latency over that of the placement of most MACs.

    Returns:
        The record with how latencies are obtained, and with their reference.
    """
    backbone = space.space.backbone
    table = space_table(space, setting, seed=record.seed, known=known)
    dearest_ms = measure_network(backbone, space.dearest, setting).median_ms
    source = LatencySource.TABLE if table.is_trusted else LatencySource.NETWORK
    return replace(
        record,
        reference_point={**record.reference_point, "latency_ms": reference_factor * dearest_ms},
        latency={
            "source": source.value,
            "where": str(setting),
            "setting": setting.to_json(),
            "backbone": backbone.to_json(),
            "repeats": table.repeats,
            "factor": table.factor,
            "worst_error": table.worst_error,
            "checks": [check.to_json() for check in table.checks],
            "parts": dict(table.parts),
        },
    )


def space_table(
    space: BudgetedSpace, setting: LatencySetting, *, seed: int, known: Mapping[str, float]
) -> LatencyTable:
    """Time the parts of a space's placements, and check their sums on `NUM_CHECKED` of them.

    Parts that none of `MAX_HOST_DRAWS` random placements has are not in the table.

    Args:
        space: whose placements.
        setting: where; of this process.
        seed: of the placements that are drawn.
        known: parts that need not be measured again.
    """
    shape = describe(space.space.backbone)
    rng = random.Random(derived_seed(seed, 0, 0))
    hosts: list[Placement] = [space.dearest]
    names = set(part_names(shape, space.dearest))
    for _ in range(MAX_HOST_DRAWS):
        drawn = space.sample(rng)
        new = set(part_names(shape, drawn)) - names
        if new:
            hosts.append(drawn)
            names |= new
    return measure_table(
        space.space.backbone,
        setting,
        hosts=hosts,
        scale=Placement.all_vanilla([stage.max_depth for stage in shape.stages]),
        checked=space.sample_many(rng, min(NUM_CHECKED, space.in_budget)),
        known=known,
    )


def known_parts(store: Store, backbone: BackboneSpec, setting: LatencySetting) -> dict[str, float]:
    """Parts of the same backbone in the same setting that a study of this database has timed.

    Args:
        store: the database.
        backbone: the backbone.
        setting: the target.

    Returns:
        Milliseconds by name, of the newest such study; empty where there is none.
    """
    for study in reversed(store.studies()):
        found = study.record.latency
        if (
            found is not None
            and found["setting"] == setting.to_json()
            and found["backbone"] == backbone.to_json()
        ):
            return dict(found["parts"])
    return {}


def check_setting(document: Document, here: LatencySetting) -> None:
    """Refuse to measure for a study elsewhere than where its other latencies are from.

    Args:
        document: how the study obtains latencies.
        here: the setting of this process.

    Raises:
        InputError: device, threads, torch or batch size differ.
    """
    if document["setting"] != here.to_json():
        raise InputError(
            f"`latencies of a study are of one device` must hold, but its others are of "
            f"{document['where']} and this is {here}; go on there, or choose another --study name"
        )


def _table(document: Document) -> LatencyTable:
    backbone = BackboneSpec.from_json(document["backbone"])
    return LatencyTable(
        backbone=backbone,
        setting=LatencySetting(**document["setting"]),
        shape=describe(backbone),
        parts=document["parts"],
        factor=document["factor"],
        repeats=document["repeats"],
        checks=tuple(
            LatencyCheck(**{**check, "measured_ms": tuple(check["measured_ms"])})
            for check in document["checks"]
        ),
    )
