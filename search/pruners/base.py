"""What a pruner is: a rule that says at each rung whether a trial is stopped.

Trials only stop, none waits: the pruner judges a trial when it reaches a rung, by those of its
peers that were there before it, and never takes a judgement back.
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
        macs: multiply-accumulates of one image, exact.
    """

    number: int
    top1: float
    macs: int


class Pruner(ABC):
    """Judges trials at rungs; holds nothing that the database does not.

    Args:
        rungs: epochs at which trials are judged; ascending.
    """

    name: ClassVar[str]

    def __init__(self, *, rungs: tuple[int, ...]) -> None:
        self.rungs = rungs

    @abstractmethod
    def document(self) -> dict[str, Any]:
        """All that a judgement depends on, for the study's fingerprint."""

    @abstractmethod
    def should_prune(self, trial: RungPoint, epoch: int, peers: Sequence[RungPoint]) -> bool:
        """Whether a trial ends at a rung.

        Args:
            trial: the trial at this rung.
            epoch: the rung.
            peers: the other trials at this rung whose measurement may be known to it, by number.
        """
