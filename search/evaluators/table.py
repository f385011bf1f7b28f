"""Accuracies read from a table: a simulated search, for samplers and for the driver itself.

The table is a JSON object from placement text to top1, such as another study's results.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

from results.records import Fidelity, document_key
from search.evaluators.base import Evaluator, Measurement, Report, Task
from sharedattn.errors import InputError
from sharedattn.placement import Placement


@dataclass(frozen=True)
class TableEvaluator(Evaluator):
    """Looks a placement's top1 up; a placement that is not there fails.

    Attributes:
        top1: accuracy, a fraction, by placement text.
        image_size: pixels on a side of the network the table speaks of.
    """

    top1: Mapping[str, float]
    image_size: int

    @classmethod
    def load(cls, path: Path, image_size: int) -> TableEvaluator:
        """Read a table.

        Raises:
            InputError: no such file, not a JSON object of placements and fractions, or an empty
                one.
        """
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(
                f"`a table is a JSON object of placement: top1` must hold, but {path} is not: "
                f"{error}"
            ) from error
        if not isinstance(document, dict) or not document:
            raise InputError(
                f"`a table is a JSON object of placement: top1` must hold, but {path} is not"
            )
        top1: dict[str, float] = {}
        for text, value in document.items():
            if not isinstance(value, (int, float)) or not 0.0 <= value <= 1.0:
                raise InputError(
                    f"`0 <= top1 <= 1` must hold in a table, but {path} has {value!r} for {text!r}"
                )
            top1[str(Placement.parse(text))] = float(value)
        return cls(top1, image_size)

    @property
    def recipe_key(self) -> str:
        return document_key({"table": dict(self.top1)})

    @property
    def data_fingerprint(self) -> str:
        return self.recipe_key

    @property
    def fidelity(self) -> Fidelity:
        return Fidelity(epochs=1, image_size=self.image_size)

    def evaluate(self, task: Task) -> Generator[Report, None, Measurement]:
        yield from ()
        text = str(task.spec.placement)
        if text not in self.top1:
            raise KeyError(f"the table has no placement {text!r}")
        return Measurement(
            split="table", top1=self.top1[text], loss=0.0, num_images=0, wall_time_s=0.0
        )
