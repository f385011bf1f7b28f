"""Records of network specs and of their latencies."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from enum import StrEnum

from sharedattn.placement import NetworkSpec
from sharedattn.results.records.document import Document


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecRecord:
    """A network spec with its closed-form costs.

    Attributes:
        key: the spec's sha256.
        text: `backbone(...)@size: placement`.
        placement: the placement's text alone.
        document: the spec as JSON.
        params: number of parameters.
        macs: multiply-accumulates per image.
        attention_bytes: live attention memory per image, float32.
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
        """Create the record of a resolved spec with its cost."""
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
    """Source of a latency; only earlier versions summed it from a table."""

    TABLE = "table"
    NETWORK = "network"


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyRecord:
    """Latency of a network's forward pass, and how it was measured.

    Attributes:
        latency_ms: milliseconds per forward pass of a batch.
        latency_source: measured on the whole network, or (earlier versions) summed from a table
            of parts.
        repeats: number of timed calls behind the median.
        device: the device's name, with the thread count for a CPU.
        batch_size: number of images in the batch.
        peak_bytes: peak memory on a CUDA device, or None if it was not measured.

    Raises:
        ValueError: a time is not positive or not finite.
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
        """A plain dictionary of all fields."""
        return {**asdict(self), "latency_source": self.latency_source.value}

    @classmethod
    def from_json(cls, document: Document) -> LatencyRecord:
        """The inverse of `to_json`.

        Raises:
            TypeError: fields are missing or unknown.
            ValueError: the source is unknown, or a time is invalid.
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
