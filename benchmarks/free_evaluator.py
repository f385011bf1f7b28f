"""An evaluator that costs nothing, to measure everything around it."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from sharedattn.progress import OnProgress
from sharedattn.results.records import EpochMetrics, Fidelity
from sharedattn.search.evaluators import Evaluator, Measurement, Task


@dataclass(frozen=True)
class FreeEvaluator(Evaluator):
    """Derives an accuracy from the placement's hash, after some reports, at no cost."""

    num_reports: int

    @property
    def recipe_key(self) -> str:
        return "0" * 64

    @property
    def data_fingerprint(self) -> str:
        return "0" * 64

    @property
    def fidelity(self) -> Fidelity:
        return Fidelity(epochs=self.num_reports, image_size=16)

    @property
    def rungs(self) -> tuple[int, ...]:
        return tuple(range(1, self.num_reports))

    def evaluate(
        self, task: Task, on_progress: OnProgress | None = None
    ) -> Generator[EpochMetrics, None, Measurement]:
        top1 = 0.5 + int(task.spec.key[:8], 16) / 2**33
        for rung in self.rungs:
            yield EpochMetrics(epoch=rung, top1=top1, loss=0.5)
        return Measurement(split="validation", top1=top1, loss=0.5, num_images=1, wall_time_s=0.0)
