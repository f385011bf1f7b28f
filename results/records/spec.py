"""Records of network specs and of their latencies."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from enum import StrEnum

from sharedattn.placement import NetworkSpec
from sharedattn.results.records.document import Document


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecRecord:
    """A network spec with its closed-form figures.

    Attributes:
        key: sha256, the spec's own.
        text: `backbone(...)@size: placement`.
        placement: the placement's text alone.
        document: the spec as JSON.
        params: parameters.
        macs: multiply-accumulates of one image.
        attention_bytes: live attention memory of one image, float32.
    """

    key: str
    text: str
    placement: str
    document: Document
    params: int
    macs: int
    attention_bytes: int

    @classmethod
    def of(cls, spec: NetworkSpec, *, params: int, macs: int, attention_bytes: int) -> SpecRecord:
        """The record of a resolved spec and of its cost."""
        return cls(
            key=spec.key,
            text=str(spec),
            placement=str(spec.placement),
            document=spec.to_json(),
            params=params,
            macs=macs,
            attention_bytes=attention_bytes,
        )


class LatencySource(StrEnum):
    """How a latency is known; what was summed from a table is of earlier versions."""

    TABLE = "table"
    NETWORK = "network"


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyRecord:
    """How long a forward of a network takes, and how that is known.

    Attributes:
        latency_ms: milliseconds of one forward of a batch.
        latency_source: measured on the whole network, or, by earlier versions, summed from a
            table of parts.
        repeats: timed calls that the median is of.
        device: the device's name, with its threads where it is a CPU.
        batch_size: images of the batch.
        peak_bytes: peak memory on a CUDA device, or None where it was not counted.

    Raises:
        ValueError: no time at all, or none that is finite.
    """

    latency_ms: float
    latency_source: LatencySource
    repeats: int
    device: str
    batch_size: int
    peak_bytes: int | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.latency_ms) and self.latency_ms > 0):
            raise ValueError(f"`latency_ms`={self.latency_ms} is not a finite number above 0")

    def to_json(self) -> Document:
        """A plain dictionary of every field."""
        return {**asdict(self), "latency_source": self.latency_source.value}

    @classmethod
    def from_json(cls, document: Document) -> LatencyRecord:
        """The inverse of `to_json`.

        Raises:
            TypeError: missing fields, or others.
            ValueError: an unknown source, or no time.
        """
        record = cls(**document)
        return replace(record, latency_source=LatencySource(record.latency_source))

    def __str__(self) -> str:
        how = (
            "summed from its parts"
            if self.latency_source is LatencySource.TABLE
            else f"median of {self.repeats} forwards"
        )
        return f"{self.latency_ms:.3g} ms, {how}, batch of {self.batch_size}, {self.device}"
