"""The interface of pruners: a rule that decides at each rung whether to stop a trial.

Trials only stop and never wait: the pruner judges a trial when it reaches a rung, by the peers
that reached it before, and never revises a judgement.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class RungPoint:
    """A trial at a rung.

    Attributes:
        number: the trial's number.
        top1: accuracy at this rung, a fraction.
        macs: multiply-accumulates per image, exact.
    """

    number: int
    top1: float
    macs: int


class Pruner(ABC):
    """Judges trials at rungs; keeps no state beyond what the database holds.

    Args:
        rungs: epochs at which trials are judged, ascending.
    """

    name: ClassVar[str]

    def __init__(self, *, rungs: tuple[int, ...]) -> None:
        self.rungs = rungs

    @abstractmethod
    def document(self) -> dict[str, Any]:
        """Everything that a judgement depends on, for the study's fingerprint."""

    @abstractmethod
    def should_prune(self, trial: RungPoint, epoch: int, peers: Sequence[RungPoint]) -> bool:
        """Whether to stop a trial at a rung.

        Args:
            trial: the trial at this rung.
            epoch: the rung.
            peers: the other trials at this rung whose result it may know, by number.
        """
